// The read door of the server: every request and the push channel of this page, and nothing else makes any.
//
// docs/http-api.md is the contract; the names on the wire (`raw_points`) end here, except for a run, which is shown as it
// came. One place means one way to fail: whatever goes wrong is an `ApiError` that says what can be done about it.
//
// # Failure
// The push channel does not use EventSource's own retry: that gives up for good on any answer but 200, as a proxy gives
// while the server restarts. `openLive` reports the loss once, with the channel closed, and its caller decides when to open
// the next one, at the last cursor it saw.

import type { Histogram } from "./lib/heat";
import type { ProjectPath, RunPath } from "./lib/route";
import type { Json } from "./lib/document";
import type { Bucket, BucketColumns, Series } from "./lib/series";
import { bucketsOfColumns } from "./lib/series";

export type RunState = "running" | "finished" | "failed" | "quiet" | "lost";
export type MetricKind = "number" | "histogram" | "string" | "bool" | "json" | "null";

export interface Project extends ProjectPath {
  readonly runs: number;
  readonly last_active_us: number | null;
}

/** Section 1 of docs/http-api.md. */
export interface Run extends RunPath {
  readonly name: string | null;
  readonly group: string | null;
  readonly job_type: string | null;
  readonly notes: string | null;
  readonly tags: readonly string[];
  readonly state: RunState;
  readonly config: { readonly [name: string]: Json };
  readonly summary: { readonly [name: string]: Json };
  readonly created_at_us: number;
  readonly heartbeat_at_us: number | null;
  readonly finished_at_us: number | null;
  readonly exit_code: number | null;
  readonly points: number;
  readonly rows: number;
  readonly last_step: number | null;
  readonly host: string | null;
  readonly writers: number;
  readonly gaps: number;
  readonly duplicates: number;
}

export interface Metric {
  readonly name: string;
  readonly label: string;
  readonly kind: MetricKind;
  readonly points: number;
  readonly last: Json;
}

export interface Gap {
  readonly seq: number;
  readonly count: number;
  readonly reason: string;
  readonly rows: number | null;
  readonly detail: string | null;
}

export interface Writer {
  readonly writer_id: string;
  readonly label: string;
  readonly state: string;
  readonly host: string | null;
  readonly pid: number | null;
  readonly started_us: number | null;
  readonly last_seen_us: number | null;
  readonly duplicates: number;
  readonly gaps: readonly Gap[];
  readonly lag_s: number | null;
  readonly backlog_frames: number | null;
  readonly exit_code: number | null;
}

export interface StepRange {
  readonly minStep: number;
  readonly maxStep: number;
}

export interface History {
  readonly cursor: string;
  readonly series: readonly Series[];
}

export interface HistogramStrip {
  readonly rawPoints: number;
  readonly histograms: readonly Histogram[];
}

export interface SeriesDelta {
  readonly key: string;
  readonly label: string;
  readonly rawPointsAdded: number;
  readonly buckets: readonly Bucket[];
}

export interface LiveDelta {
  readonly cursor: string;
  readonly run: Partial<Run>;
  readonly series: readonly SeriesDelta[];
  readonly newKeys: readonly string[];
  /** Keys that got something else than numbers: histograms, texts. */
  readonly otherKeys: readonly string[];
}

/** What the push channel of a run tells. Exactly one of `onLost` and the returned close function ends it. */
export interface LiveListener {
  onOpen(): void;
  onDelta(delta: LiveDelta): void;
  /** The cursor is too old for deltas: ask for the history again. The channel is closed. */
  onTooOld(): void;
  onLost(): void;
}

export interface RunsListener {
  onOpen(): void;
  onRuns(runs: readonly Run[]): void;
  onLost(): void;
}

/** `unreachable`: try again. `missing`: the thing does not exist. `refused`: this request will never work. */
export class ApiError extends Error {
  constructor(
    readonly kind: "unreachable" | "missing" | "refused",
    message: string,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

/** What the page needs of a server; the feeds take it as an argument, so that their tests need none. */
export interface Door {
  projects(signal: AbortSignal): Promise<readonly Project[]>;
  runs(path: ProjectPath, cursor: string | null, signal: AbortSignal): Promise<{ runs: readonly Run[]; nextCursor: string | null; total: number }>;
  run(path: RunPath, signal: AbortSignal): Promise<Run>;
  metrics(path: RunPath, signal: AbortSignal): Promise<readonly Metric[]>;
  /** At least one key. */
  history(path: RunPath, keys: readonly string[], buckets: number, range: StepRange | null, signal: AbortSignal): Promise<History>;
  histograms(path: RunPath, key: string, count: number, range: StepRange | null, signal: AbortSignal): Promise<HistogramStrip>;
  writers(path: RunPath, signal: AbortSignal): Promise<readonly Writer[]>;
  /** Without a cursor: from now on. */
  openLive(path: RunPath, cursor: string | null, keys: readonly string[], listener: LiveListener): () => void;
  openRuns(path: ProjectPath, listener: RunsListener): () => void;
}

const RUNS_PER_PAGE = 200;

/** Whether the server wants a key that this browser has not shown; who watches is told when that changes. */
export const keyWanted = {
  now: false,
  watchers: new Set<() => void>(),
  watch: (watcher: () => void) => {
    keyWanted.watchers.add(watcher);
    return () => keyWanted.watchers.delete(watcher);
  },
  isWanted: () => keyWanted.now,
};

function setKeyWanted(isWanted: boolean): void {
  keyWanted.now = isWanted;
  for (const watcher of keyWanted.watchers) watcher();
}

/** Shows the key once; the server answers with a cookie that no script can read. Rejects with an `ApiError`. */
export async function logIn(key: string): Promise<void> {
  let response: Response;
  try {
    response = await fetch("/api/v1/session", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ key }),
    });
  } catch (error) {
    throw new ApiError("unreachable", `the server does not answer (${error instanceof Error ? error.message : String(error)})`);
  }
  if (!response.ok) throw new ApiError("refused", await errorMessage(response));
  setKeyWanted(false);
}

export const httpDoor: Door = {
  async projects(signal) {
    return (await getJson<{ projects: Project[] }>("/projects", [], signal)).projects;
  },
  async runs({ entity, project }, cursor, signal) {
    const query: Query = [["entity", entity], ["project", project], ["order", "-created_at"], ["limit", RUNS_PER_PAGE]];
    if (cursor !== null) query.push(["cursor", cursor]);
    const answer = await getJson<{ runs: Run[]; next_cursor: string | null; total: number }>("/runs", query, signal);
    return { runs: answer.runs, nextCursor: answer.next_cursor, total: answer.total };
  },
  run(path, signal) {
    return getJson<Run>(runUrl(path), [], signal);
  },
  async metrics(path, signal) {
    return (await getJson<{ metrics: Metric[] }>(`${runUrl(path)}/metrics`, [], signal)).metrics;
  },
  async history(path, keys, buckets, range, signal) {
    const query: Query = [...keysQuery(keys), ["buckets", buckets], ...rangeQuery(range)];
    const answer = await getJson<HistoryWire>(`${runUrl(path)}/history`, query, signal);
    const series = answer.series.map((one) => ({
      key: one.key,
      label: one.label,
      rawPoints: one.raw_points,
      buckets: bucketsOfColumns(one),
    }));
    return { cursor: answer.cursor, series };
  },
  async histograms(path, key, count, range, signal) {
    const query: Query = [["key", key], ["buckets", count], ...rangeQuery(range)];
    const answer = await getJson<HistogramsWire>(`${runUrl(path)}/histograms`, query, signal);
    const histograms = answer.histograms.map(({ step, edges, counts, nan_count, inf_count }) => ({
      step,
      edges,
      counts,
      nanCount: nan_count,
      infCount: inf_count,
    }));
    return { rawPoints: answer.raw_points, histograms };
  },
  async writers(path, signal) {
    return (await getJson<{ writers: Writer[] }>(`${runUrl(path)}/writers`, [], signal)).writers;
  },
  openLive(path, cursor, keys, listener) {
    const from: Query = cursor === null ? [] : [["cursor", cursor]];
    return openEvents(address(`${runUrl(path)}/live`, [...from, ...keysQuery(keys)]), listener, {
      delta: (data) => {
        const delta = data as DeltaWire;
        const series = (delta.series ?? []).map((one) => ({
          key: one.key,
          label: one.label,
          rawPointsAdded: one.raw_points_added,
          buckets: bucketsOfColumns(one),
        }));
        listener.onDelta({ cursor: delta.cursor, run: delta.run ?? {}, series, newKeys: delta.new_keys ?? [], otherKeys: delta.other_keys ?? [] });
        return "go on";
      },
      snapshot: () => {
        listener.onTooOld();
        return "close";
      },
    });
  },
  openRuns({ entity, project }, listener) {
    return openEvents(address("/live", [["entity", entity], ["project", project]]), listener, {
      runs: (data) => {
        listener.onRuns((data as { runs: Run[] }).runs);
        return "go on";
      },
    });
  },
};

interface HistoryWire {
  cursor: string;
  series: (BucketColumns & { key: string; label: string; raw_points: number })[];
}

interface DeltaWire {
  cursor: string;
  run?: Partial<Run>;
  series?: (BucketColumns & { key: string; label: string; raw_points_added: number })[];
  new_keys?: string[];
  other_keys?: string[];
}

interface HistogramsWire {
  raw_points: number;
  histograms: { step: number; edges: number[]; counts: number[]; nan_count: number; inf_count: number }[];
}

type Query = [name: string, value: string | number][];

function runUrl({ entity, project, id }: RunPath): string {
  return `/runs/${encodeURIComponent(entity)}/${encodeURIComponent(project)}/${encodeURIComponent(id)}`;
}

function keysQuery(keys: readonly string[]): Query {
  return keys.map((key) => ["keys", key]);
}

function rangeQuery(range: StepRange | null): Query {
  return range === null ? [] : [["min_step", range.minStep], ["max_step", range.maxStep]];
}

function address(path: string, query: Query): string {
  const parameters = new URLSearchParams(query.map(([name, value]) => [name, String(value)]));
  return query.length === 0 ? `/api/v1${path}` : `/api/v1${path}?${parameters.toString()}`;
}

/** Rejects with an `ApiError`, or with the signal's reason when the caller no longer wants the answer. */
async function getJson<Answer>(path: string, query: Query, signal: AbortSignal): Promise<Answer> {
  let response: Response;
  try {
    response = await fetch(address(path, query), { signal, headers: { accept: "application/json" } });
    if (response.ok) return (await response.json()) as Answer;
  } catch (error) {
    signal.throwIfAborted();
    throw new ApiError("unreachable", `the server does not answer (${error instanceof Error ? error.message : String(error)})`);
  }
  const message = await errorMessage(response);
  if (response.status === 401) setKeyWanted(true);
  if (response.status === 404) throw new ApiError("missing", message);
  // 5xx and "too many" pass; what is left is a request this page should not have made.
  const mayPass = response.status >= 500 || response.status === 429;
  throw new ApiError(mayPass ? "unreachable" : "refused", message);
}

async function errorMessage(response: Response): Promise<string> {
  try {
    const body = (await response.json()) as { error?: { message?: string } };
    if (body.error?.message) return body.error.message;
  } catch {
    // Not from Runferry, perhaps a proxy's page: the status is all there is to say.
  }
  return `the server answered ${response.status} ${response.statusText}`.trim();
}

type Handlers = Record<string, (data: unknown) => "go on" | "close">;

function openEvents(url: string, listener: { onOpen(): void; onLost(): void }, handlers: Handlers): () => void {
  const source = new EventSource(url);
  source.addEventListener("open", () => listener.onOpen());
  source.addEventListener("error", () => {
    source.close();
    listener.onLost();
  });
  for (const [name, handle] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => {
      if (handle(JSON.parse((event as MessageEvent<string>).data)) === "close") source.close();
    });
  }
  return () => source.close();
}
