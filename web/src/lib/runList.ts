// The runs table's order, filter and columns, apart from how it is drawn.

import type { Run } from "../api";
import { sortableNumber } from "./document";
import { compareNames, matchesFilter } from "./groups";

/** A fixed column, or a summary value by its name. */
export type RunColumn = "state" | "name" | "created" | "duration" | "points" | "last_step" | "host" | `summary:${string}`;

export interface RunOrder {
  readonly column: RunColumn;
  readonly isDescending: boolean;
}

/** A run matches by what a reader remembers of it: name, id, group, job type, tags, state, host. */
export function filterRuns(runs: readonly Run[], filter: string): readonly Run[] {
  if (filter.trim() === "") return runs;
  return runs.filter((run) => {
    const words = [run.name, run.id, run.group, run.job_type, run.state, run.host, ...run.tags];
    return matchesFilter(words.filter((word) => word !== null).join(" "), filter.trim());
  });
}

/** Runs without a value for the column come last, in either direction. */
export function sortRuns(runs: readonly Run[], { column, isDescending }: RunOrder, nowUs: number): readonly Run[] {
  const sign = isDescending ? -1 : 1;
  return runs
    .map((run) => ({ run, value: sortValue(run, column, nowUs) }))
    .toSorted((a, b) => {
      if (a.value === null || b.value === null) return Number(a.value === null) - Number(b.value === null);
      if (typeof a.value === "number" && typeof b.value === "number") return sign * (a.value - b.value);
      return sign * compareNames(String(a.value), String(b.value));
    })
    .map(({ run }) => run);
}

function sortValue(run: Run, column: RunColumn, nowUs: number): number | string | null {
  switch (column) {
    case "state":
      return run.state;
    case "name":
      return run.name ?? run.id;
    case "created":
      return run.created_at_us;
    case "duration":
      return durationUs(run, nowUs);
    case "points":
      return run.points;
    case "last_step":
      return run.last_step;
    case "host":
      return run.host;
    default: {
      const value = sortableNumber(run.summary[column.slice("summary:".length)]);
      return value === null || Number.isNaN(value) ? null : value;
    }
  }
}

/** From its start to its end, or to the last sign of life of a run that never said it ended. */
export function durationUs(run: Run, nowUs: number): number {
  const endUs = run.finished_at_us ?? (run.state === "running" ? nowUs : (run.heartbeat_at_us ?? nowUs));
  return Math.max(0, endUs - run.created_at_us);
}

/** The summary values that most runs have, as many as a table has room for. Names starting with `_` are the client's own. */
export function commonSummaryNames(runs: readonly Run[], limit: number): readonly string[] {
  const uses = new Map<string, number>();
  for (const run of runs) {
    for (const [name, value] of Object.entries(run.summary)) {
      if (!name.startsWith("_") && sortableNumber(value) !== null) uses.set(name, (uses.get(name) ?? 0) + 1);
    }
  }
  return [...uses]
    .toSorted(([a, aUses], [b, bUses]) => bUses - aUses || Number(!isOutcome(a)) - Number(!isOutcome(b)) || compareNames(a, b))
    .slice(0, limit)
    .map(([name]) => name)
    .toSorted(compareNames);
}

/** What people compare runs by, before what they only watch. */
function isOutcome(name: string): boolean {
  return /loss|acc|error|score|auc|f1|bleu|perplexity|reward/i.test(name);
}
