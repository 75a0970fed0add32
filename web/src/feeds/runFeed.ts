// Everything one run's page shows, kept up to date by the push channel while the run is open.
//
// The charts near the viewport are the subscription. Whenever one comes in, the step range changes or the connection was
// away too long, one request fetches the history of the whole subscription, and the push channel is opened anew at the
// cursor of that answer. One cursor for all series is what keeps counts exact: a series fetched at its own moment and
// joined to a channel that stands elsewhere would count some points twice or never. It also keeps memory and traffic in
// proportion to what is on the screen, with ten metrics as with ten thousand.
//
// # Order
// History first, then the channel at its cursor, then the run and its metric names. A key or state that appears between two
// of these is in the later one, so nothing falls between.
// An answer may hold points a moment newer than its cursor, and the channel sends these once more, in its first delta. So of
// that delta only steps behind the last one known are taken.
// # Failure
// A lost channel is opened again at the last cursor; if that fails too, everything is fetched again, since the server may
// have come back with another store. A run that does not exist is asked for again: the address is printed before the run's
// first record arrives. Only a request the server refuses is not repeated.

import type { Door, LiveDelta, Metric, Run, SeriesDelta, StepRange } from "../api";
import { ApiError } from "../api";
import type { RunPath } from "../lib/route";
import type { Series } from "../lib/series";
import { extendSeries, placeInRange } from "../lib/series";
import type { Connection, Timers } from "./timers";
import { retryDelayMs } from "./timers";

export interface RunView {
  readonly run: Run | null;
  /** Null until they were fetched once. */
  readonly metrics: readonly Metric[] | null;
  readonly connection: Connection;
  readonly problem: ApiError | null;
  readonly range: StepRange | null;
}

/** What is known of one subscribed key. */
export interface KeyView {
  /** One for each label, in the order of the labels. */
  readonly series: readonly Series[];
  /** Grows whenever points of the key arrived or may have; a heat strip fetches again then. */
  readonly arrivals: number;
}

export const BUCKETS_PER_SERIES = 600;
/** Charts come into view in bursts while scrolling: wait for the burst, not for the end of the scrolling. */
const GATHER_MS = 40;
/** New metric names are looked up at most this often. */
const LOOKUP_MS = 400;
/** A bucket that reaches across the border of what is shown makes the history be asked for again, at most this often. */
const ACROSS_MS = 500;

const NOTHING: RunView = { run: null, metrics: null, connection: "connecting", problem: null, range: null };

export class RunFeed {
  private view: RunView = NOTHING;
  private readonly keyViews = new Map<string, KeyView>();
  private readonly listeners = new Set<() => void>();
  private readonly keyListeners = new Map<string, Set<() => void>>();
  /** How many charts on the screen show a key. */
  private readonly watched = new Map<string, number>();
  private subscribed: ReadonlySet<string> = new Set();
  private cursor: string | null = null;
  /** The next delta begins at the cursor of a history that may have held its points already. */
  private mayRepeat = false;
  private lostAttempts = 0;
  private syncFlight: AbortController | null = null;
  private isSyncWanted = false;
  private lookupFlight: AbortController | null = null;
  /** Run fields that arrived while the run was being fetched; the answer may be older than they are. */
  private arrivedRun: Partial<Run> = {};
  private closeLive: (() => void) | null = null;
  private readonly waits = new Map<"sync" | "lookup" | "retry", () => void>();

  constructor(
    private readonly door: Door,
    private readonly path: RunPath,
    private readonly timers: Timers,
  ) {}

  start(): void {
    void this.sync();
  }

  /** Ends all requests and the channel. `start` may follow; what was shown stays until then. */
  stop(): void {
    for (const cancel of this.waits.values()) cancel();
    this.waits.clear();
    this.syncFlight?.abort();
    this.syncFlight = null;
    this.lookupFlight?.abort();
    this.lookupFlight = null;
    this.closeLive?.();
    this.closeLive = null;
    this.isSyncWanted = false;
    this.subscribed = new Set();
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly current = (): RunView => this.view;

  subscribeKey(key: string, listener: () => void): () => void {
    const listeners = this.keyListeners.get(key) ?? new Set();
    this.keyListeners.set(key, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  currentKey(key: string): KeyView | undefined {
    return this.keyViews.get(key);
  }

  /** Keeps a key up to date until the returned function is called. */
  watch(key: string): () => void {
    this.watched.set(key, (this.watched.get(key) ?? 0) + 1);
    if (!this.subscribed.has(key)) this.waitOnce("sync", GATHER_MS, () => void this.sync());
    return () => {
      const count = (this.watched.get(key) ?? 1) - 1;
      if (count > 0) this.watched.set(key, count);
      else this.watched.delete(key);
    };
  }

  /** Shows only these steps, in finer buckets; null shows all. */
  setRange(range: StepRange | null): void {
    this.show({ range });
    this.syncFlight?.abort();
    this.syncFlight = null;
    void this.sync();
  }

  private async sync(): Promise<void> {
    if (this.syncFlight !== null) {
      this.isSyncWanted = true;
      return;
    }
    const flight = new AbortController();
    this.syncFlight = flight;
    const keys = [...this.watched.keys()];
    const range = this.view.range;
    try {
      const { cursor, series } = await this.fetchSeries(keys, range, flight.signal);
      if (flight.signal.aborted) return;
      this.replaceSeries(keys, series);
      this.mayRepeat = true;
      this.openLive(cursor);
      this.lookUp();
    } catch (error) {
      if (flight.signal.aborted) return;
      this.fail(error);
    }
    this.syncFlight = null;
    // A chart may have come back while the answer that no longer has it was on its way.
    const isKeyMissing = this.closeLive !== null && [...this.watched.keys()].some((key) => !this.subscribed.has(key));
    if (this.isSyncWanted || isKeyMissing) {
      this.isSyncWanted = false;
      void this.sync();
    }
  }

  /** With no chart on the screen there is no history to fetch, but the run must exist before a channel can be opened. */
  private async fetchSeries(keys: readonly string[], range: StepRange | null, signal: AbortSignal): Promise<{ cursor: string | null; series: readonly Series[] }> {
    if (keys.length > 0) return this.door.history(this.path, keys, BUCKETS_PER_SERIES, range, signal);
    await this.door.run(this.path, signal);
    return { cursor: null, series: [] };
  }

  private replaceSeries(keys: readonly string[], series: readonly Series[]): void {
    const before = [...this.keyViews.keys()];
    this.subscribed = new Set(keys);
    for (const key of before) {
      if (!this.subscribed.has(key)) this.keyViews.delete(key);
    }
    for (const key of keys) {
      const arrivals = (this.keyViews.get(key)?.arrivals ?? 0) + 1;
      this.keyViews.set(key, { series: series.filter((one) => one.key === key).toSorted(byLabel), arrivals });
    }
    for (const key of new Set([...before, ...keys])) this.tellKey(key);
  }

  private openLive(cursor: string | null): void {
    this.closeLive?.();
    this.cursor = cursor;
    this.closeLive = this.door.openLive(this.path, cursor, [...this.subscribed], {
      onOpen: () => {
        if (this.lostAttempts > 0) this.lookUp();
        this.lostAttempts = 0;
        if (this.view.connection !== "live" || this.view.problem !== null) this.show({ connection: "live", problem: null });
      },
      onDelta: (delta) => this.apply(delta),
      onTooOld: () => {
        this.closeLive = null;
        void this.sync();
      },
      onLost: () => {
        this.closeLive = null;
        this.show({ connection: "lost" });
        this.retry();
      },
    });
  }

  private apply(delta: LiveDelta): void {
    this.cursor = delta.cursor;
    for (const arrival of delta.series) this.extend(arrival);
    this.mayRepeat = false;
    this.tellHistograms(delta.otherKeys);
    this.arrivedRun = { ...this.arrivedRun, ...delta.run };
    if (this.view.run !== null && Object.keys(delta.run).length > 0) this.show({ run: { ...this.view.run, ...delta.run } });
    if (delta.newKeys.length > 0) this.waitOnce("lookup", LOOKUP_MS / 4, () => this.lookUp());
  }

  private extend({ key, label, rawPointsAdded, buckets }: SeriesDelta): void {
    const view = this.keyViews.get(key);
    if (view === undefined) return;
    const known = view.series.find((one) => one.label === label) ?? { key, label, rawPoints: 0, buckets: [] };
    const minStep = Math.max(this.view.range?.minStep ?? 0, this.mayRepeat ? (known.buckets.at(-1)?.stepLast ?? -1) + 1 : 0);
    const maxStep = this.view.range?.maxStep ?? Number.MAX_SAFE_INTEGER;
    const takesAll = this.view.range === null && !this.mayRepeat;
    const places = buckets.map((bucket) => (takesAll ? "inside" : placeInRange(bucket, minStep, maxStep)));
    const taken = buckets.filter((_, index) => places[index] === "inside");
    // Nobody here knows how many points of a bucket lie on which side of a border; the server does.
    if (places.includes("across")) this.waitOnce("sync", ACROSS_MS, () => void this.sync());
    const rawPoints = takesAll ? rawPointsAdded : taken.reduce((sum, bucket) => sum + bucket.count, 0);
    const extended = extendSeries(known, taken, rawPoints, BUCKETS_PER_SERIES);
    const others = view.series.filter((one) => one.label !== label);
    this.keyViews.set(key, { series: [...others, extended].toSorted(byLabel), arrivals: view.arrivals + 1 });
    this.tellKey(key);
  }

  /** Deltas carry the values of numbers only: a heat strip fetches again when its key is named. */
  private tellHistograms(keys: readonly string[]): void {
    for (const key of keys) {
      const view = this.keyViews.get(key);
      if (view === undefined) continue;
      this.keyViews.set(key, { ...view, arrivals: view.arrivals + 1 });
      this.tellKey(key);
    }
  }

  /** Fetches the run and the names of its metrics. */
  private lookUp(): void {
    if (this.lookupFlight !== null) {
      this.waitOnce("lookup", LOOKUP_MS, () => this.lookUp());
      return;
    }
    const flight = new AbortController();
    this.lookupFlight = flight;
    this.arrivedRun = {};
    Promise.all([this.door.run(this.path, flight.signal), this.door.metrics(this.path, flight.signal)])
      .then(([run, metrics]) => {
        if (flight.signal.aborted) return;
        this.lookupFlight = null;
        this.show({ run: { ...run, ...this.arrivedRun }, metrics, problem: null });
      })
      .catch((error: unknown) => {
        if (flight.signal.aborted) return;
        this.lookupFlight = null;
        this.fail(error);
      });
  }

  private fail(error: unknown): void {
    const problem = error instanceof ApiError ? error : new ApiError("refused", String(error));
    this.closeLive?.();
    this.closeLive = null;
    if (problem.kind === "unreachable") this.show({ connection: "lost" });
    else this.show({ problem });
    if (problem.kind !== "refused") this.retry();
  }

  private retry(): void {
    this.lostAttempts += 1;
    const cursor = this.lostAttempts === 1 ? this.cursor : null;
    this.wait("retry", retryDelayMs(this.lostAttempts), () => {
      if (cursor === null) void this.sync();
      else this.openLive(cursor);
    });
  }

  /** Puts off what already waits under this name. */
  private wait(name: "sync" | "lookup" | "retry", delayMs: number, action: () => void): void {
    this.waits.get(name)?.();
    this.waits.set(name, this.timers.after(delayMs, () => {
      this.waits.delete(name);
      action();
    }));
  }

  /** Leaves what already waits under this name, so that a steady stream of causes cannot put it off for ever. */
  private waitOnce(name: "sync" | "lookup", delayMs: number, action: () => void): void {
    if (!this.waits.has(name)) this.wait(name, delayMs, action);
  }

  private show(change: Partial<RunView>): void {
    this.view = { ...this.view, ...change };
    for (const listener of this.listeners) listener();
  }

  private tellKey(key: string): void {
    for (const listener of this.keyListeners.get(key) ?? []) listener();
  }
}

function byLabel(a: Series, b: Series): number {
  return a.label < b.label ? -1 : a.label > b.label ? 1 : 0;
}
