// The runs of one project, kept up to date by the project's push channel.
//
// The channel is opened first and the list fetched once it is open, so that a run which starts in between is in one of the
// two. A run that the channel told of is newer than the same run in an answer that was on its way.
//
// # Failure
// A lost channel is opened again, and the newest page fetched again with it. A request the server refuses is not repeated.

import type { Door, Run } from "../api";
import { ApiError } from "../api";
import type { ProjectPath } from "../lib/route";
import type { Connection, Timers } from "./timers";
import { retryDelayMs } from "./timers";

export interface RunsView {
  /** Null until they were fetched once. Newest first. */
  readonly runs: readonly Run[] | null;
  /** All runs of the project, also those not fetched yet. */
  readonly total: number;
  readonly hasMore: boolean;
  readonly connection: Connection;
  readonly problem: ApiError | null;
}

export class RunsFeed {
  private view: RunsView = { runs: null, total: 0, hasMore: false, connection: "connecting", problem: null };
  private readonly listeners = new Set<() => void>();
  private readonly byId = new Map<string, Run>();
  private readonly arrivedInFlight = new Map<string, Run>();
  private nextCursor: string | null = null;
  private hasFetched = false;
  private lostAttempts = 0;
  private flight: AbortController | null = null;
  private closeLive: (() => void) | null = null;
  private cancelRetry: (() => void) | null = null;

  constructor(
    private readonly door: Door,
    private readonly path: ProjectPath,
    private readonly timers: Timers,
  ) {}

  start(): void {
    this.closeLive?.();
    this.closeLive = this.door.openRuns(this.path, {
      onOpen: () => {
        void this.fetchPage(null);
      },
      onRuns: (runs) => this.arrive(runs),
      onLost: () => {
        this.show({ connection: "lost" });
        this.retry();
      },
    });
  }

  stop(): void {
    this.cancelRetry?.();
    this.flight?.abort();
    this.flight = null;
    this.closeLive?.();
    this.closeLive = null;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly current = (): RunsView => this.view;

  fetchMore(): void {
    if (this.nextCursor !== null && this.flight === null) void this.fetchPage(this.nextCursor);
  }

  private async fetchPage(cursor: string | null): Promise<void> {
    this.flight?.abort();
    const flight = new AbortController();
    this.flight = flight;
    this.arrivedInFlight.clear();
    try {
      const { runs, nextCursor, total } = await this.door.runs(this.path, cursor, flight.signal);
      if (flight.signal.aborted) return;
      this.flight = null;
      this.lostAttempts = 0;
      for (const run of runs) this.byId.set(run.id, this.arrivedInFlight.get(run.id) ?? run);
      // The newest page again, after a loss: pages that were fetched behind it stay, and so does their cursor.
      if (cursor !== null || !this.hasFetched) this.nextCursor = nextCursor;
      this.hasFetched = true;
      this.show({ runs: this.newestFirst(), total: Math.max(total, this.byId.size), hasMore: this.nextCursor !== null, connection: "live", problem: null });
    } catch (error) {
      if (flight.signal.aborted) return;
      this.flight = null;
      this.fail(error);
    }
  }

  private arrive(runs: readonly Run[]): void {
    let { total } = this.view;
    for (const run of runs) {
      if (!this.byId.has(run.id) && this.nextCursor === null) total += 1;
      this.byId.set(run.id, run);
      this.arrivedInFlight.set(run.id, run);
    }
    this.show({ runs: this.newestFirst(), total: Math.max(total, this.byId.size) });
  }

  private newestFirst(): readonly Run[] {
    return [...this.byId.values()].toSorted((a, b) => b.created_at_us - a.created_at_us);
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
    this.cancelRetry?.();
    this.cancelRetry = this.timers.after(retryDelayMs(this.lostAttempts), () => this.start());
  }

  private show(change: Partial<RunsView>): void {
    this.view = { ...this.view, ...change };
    for (const listener of this.listeners) listener();
  }
}
