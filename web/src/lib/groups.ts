// Metric names in groups: what stands before the last slash is the heading, what stands behind it the panel.
//
// `train/loss` and `train/lr` belong under one heading, `layers/0/attention/grad` under `layers/0/attention`. Names without
// a slash come first, under no heading of their own. A name that would be alone under its heading goes to the one above: a row
// with a single panel wastes the screen. Order is the order people count in: `layer/2` before `layer/10`.

export interface Named {
  readonly name: string;
}

export interface Group<Item extends Named> {
  readonly prefix: string;
  readonly items: readonly Item[];
}

// One collator: building one per comparison makes sorting a thousand names take a second.
const NATURAL = new Intl.Collator("en", { numeric: true, sensitivity: "variant" });

export function compareNames(a: string, b: string): number {
  return NATURAL.compare(a, b);
}

/** What is left to say of a name under the heading it stands under. */
export function nameUnder(prefix: string, name: string): string {
  return prefix === "" ? name : name.slice(prefix.length + 1);
}

/** A slash at the very start or end names no group. */
function prefixOf(name: string): string {
  const slash = name.lastIndexOf("/");
  return slash <= 0 || slash === name.length - 1 ? "" : name.slice(0, slash);
}

export function groupByPrefix<Item extends Named>(items: readonly Item[]): Group<Item>[] {
  const byPrefix = new Map<string, Item[]>();
  for (const item of items) addTo(byPrefix, prefixOf(item.name), item);
  // Deepest first, so that `layers/0/grad` and `layers/1/grad` meet under `layers` before either goes on to the top.
  const deepestFirst = [...byPrefix.keys()].toSorted((a, b) => depthOf(b) - depthOf(a));
  for (let prefix = deepestFirst.shift(); prefix !== undefined; prefix = deepestFirst.shift()) {
    const group = byPrefix.get(prefix);
    const [alone] = group ?? [];
    if (prefix === "" || group?.length !== 1 || alone === undefined) continue;
    const above = prefixOf(prefix);
    byPrefix.delete(prefix);
    if (!byPrefix.has(above)) {
      const place = deepestFirst.findIndex((other) => depthOf(other) < depthOf(above));
      deepestFirst.splice(place === -1 ? deepestFirst.length : place, 0, above);
    }
    addTo(byPrefix, above, alone);
  }
  return [...byPrefix]
    .map(([prefix, group]) => ({ prefix, items: group.toSorted((a, b) => compareNames(a.name, b.name)) }))
    .toSorted((a, b) => compareNames(a.prefix, b.prefix));
}

function addTo<Item>(byPrefix: Map<string, Item[]>, prefix: string, item: Item): void {
  const group = byPrefix.get(prefix);
  if (group === undefined) byPrefix.set(prefix, [item]);
  else group.push(item);
}

function depthOf(prefix: string): number {
  return prefix === "" ? 0 : prefix.split("/").length;
}

/** Whether every word of the filter occurs in the text, whatever the case. */
export function matchesFilter(text: string, filter: string): boolean {
  const lower = text.toLowerCase();
  return filter.toLowerCase().split(/\s+/).every((word) => lower.includes(word));
}
