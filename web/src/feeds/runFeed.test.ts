import { beforeEach, describe, expect, it } from "vitest";
import { ApiError, type Door, type History, type LiveDelta, type LiveListener, type Metric, type Run, type StepRange } from "../api";
import type { Bucket, Series } from "../lib/series";
import { RunFeed } from "./runFeed";
import type { Timers } from "./timers";

const PATH = { entity: "acme", project: "digits", id: "r1" };

/** Time that moves when a test says so. */
class HandTimers implements Timers {
  private nowMs = 0;
  private waiting: { atMs: number; action: () => void }[] = [];

  after(delayMs: number, action: () => void): () => void {
    const entry = { atMs: this.nowMs + delayMs, action };
    this.waiting.push(entry);
    return () => (this.waiting = this.waiting.filter((other) => other !== entry));
  }

  async pass(ms: number): Promise<void> {
    await settled();
    this.nowMs += ms;
    const due = this.waiting.filter(({ atMs }) => atMs <= this.nowMs);
    this.waiting = this.waiting.filter(({ atMs }) => atMs > this.nowMs);
    for (const { action } of due) action();
    await settled();
  }
}

/** One turn of the event loop: every answered promise has been acted upon. */
function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

interface Channel {
  cursor: string | null;
  keys: readonly string[];
  listener: LiveListener;
  isOpen: boolean;
}

/** A server in memory: answers what the test put there, remembers what it was asked. */
class ScriptedDoor {
  run: Run | ApiError = { ...PATH, state: "running", points: 0, gaps: 0 } as unknown as Run;
  metrics: Metric[] = [];
  series: Series[] = [];
  cursor = "c0";
  isAway = false;
  /** Happen while the answer is on its way. */
  onRunAsked = (): void => undefined;
  onHistoryAsked = (): void => undefined;
  asked: { keys: readonly string[]; range: StepRange | null }[] = [];
  channels: Channel[] = [];

  readonly door = {
    run: () => {
      const answer = this.answer(this.run);
      queueMicrotask(this.onRunAsked);
      return answer;
    },
    metrics: () => this.answer(this.metrics),
    history: (_path: unknown, keys: readonly string[], _buckets: number, range: StepRange | null): Promise<History> => {
      this.asked.push({ keys, range });
      queueMicrotask(this.onHistoryAsked);
      return this.answer({ cursor: this.cursor, series: this.series.filter(({ key }) => keys.includes(key)) });
    },
    openLive: (_path: unknown, cursor: string | null, keys: readonly string[], listener: LiveListener) => {
      const channel = { cursor, keys, listener, isOpen: true };
      this.channels.push(channel);
      return () => {
        channel.isOpen = false;
      };
    },
  } as unknown as Door;

  get channel(): Channel {
    const last = this.channels.at(-1);
    if (last === undefined) throw new Error("no channel was opened");
    return last;
  }

  private answer<Answer>(found: Answer | ApiError): Promise<Answer> {
    if (this.isAway) return Promise.reject(new ApiError("unreachable", "away"));
    return found instanceof ApiError ? Promise.reject(found) : Promise.resolve(found);
  }
}

function point(step: number, value: number): Bucket {
  return { stepFirst: step, stepLast: step, timeLastUs: 0, count: 1, min: value, max: value, mean: value, last: value, nanCount: 0, infCount: 0 };
}

function wide(stepFirst: number, stepLast: number): Bucket {
  return { ...point(stepFirst, 1), stepLast, count: stepLast - stepFirst + 1 };
}

function delta(more: Partial<LiveDelta>): LiveDelta {
  return { cursor: "c1", run: {}, series: [], newKeys: [], otherKeys: [], ...more };
}

function arrival(key: string, ...buckets: Bucket[]): LiveDelta["series"][number] {
  return { key, label: "", rawPointsAdded: buckets.reduce((sum, { count }) => sum + count, 0), buckets };
}

let server: ScriptedDoor;
let timers: HandTimers;
let feed: RunFeed;

beforeEach(() => {
  server = new ScriptedDoor();
  timers = new HandTimers();
  feed = new RunFeed(server.door, PATH, timers);
});

/** A feed that shows `loss` with one point, its channel open. */
async function showLoss(): Promise<void> {
  server.series = [{ key: "loss", label: "", rawPoints: 1, buckets: [point(0, 5)] }];
  feed.watch("loss");
  feed.start();
  await timers.pass(50);
  server.channel.listener.onOpen();
}

function rawPoints(key: string): number | undefined {
  return feed.currentKey(key)?.series[0]?.rawPoints;
}

describe("charts in view", () => {
  it("are asked for together, and followed from the cursor of the answer", async () => {
    server.series = ["loss", "lr"].map((key) => ({ key, label: "", rawPoints: 1, buckets: [point(0, 1)] }));
    feed.start();
    await timers.pass(0);
    feed.watch("loss");
    feed.watch("lr");
    await timers.pass(50);

    expect(server.asked).toEqual([{ keys: ["loss", "lr"], range: null }]);
    expect(server.channel).toMatchObject({ cursor: "c0", keys: ["loss", "lr"], isOpen: true });
    expect(server.channels.filter(({ isOpen }) => isOpen)).toHaveLength(1);
  });

  it("that join later move the others to the same cursor, so that no point counts twice", async () => {
    await showLoss();
    server.channel.listener.onDelta(delta({ series: [arrival("loss", point(1, 4))] }));
    server.cursor = "c9";
    server.series = [
      { key: "loss", label: "", rawPoints: 3, buckets: [point(0, 5), point(1, 4), point(2, 3)] },
      { key: "lr", label: "", rawPoints: 3, buckets: [] },
    ];
    feed.watch("lr");
    await timers.pass(50);

    expect(server.channel.cursor).toBe("c9");
    expect(rawPoints("loss")).toBe(3);
  });

  it("that come back while an answer without them is on its way are asked for again", async () => {
    server.series = ["loss", "lr"].map((key) => ({ key, label: "", rawPoints: 1, buckets: [point(0, 1)] }));
    const leave = feed.watch("loss");
    feed.start();
    await timers.pass(50);
    leave();
    feed.watch("lr");
    server.onHistoryAsked = () => {
      server.onHistoryAsked = () => undefined;
      feed.watch("loss");
    };
    await timers.pass(50);
    await timers.pass(50);

    expect(rawPoints("loss")).toBe(1);
    expect(server.channel.keys.toSorted()).toEqual(["loss", "lr"]);
  });

  it("are no longer asked for once they left", async () => {
    await showLoss();
    const leave = feed.watch("lr");
    leave();
    feed.watch("acc");
    await timers.pass(50);

    expect(server.asked.at(-1)?.keys).toEqual(["loss", "acc"]);
  });
});

describe("a delta", () => {
  it("adds its points to the series and its fields to the run", async () => {
    await showLoss();

    server.channel.listener.onDelta(delta({ run: { points: 2, state: "finished" }, series: [arrival("loss", point(1, 4))] }));

    expect(rawPoints("loss")).toBe(2);
    expect(feed.currentKey("loss")?.series[0]?.buckets.at(-1)?.last).toBe(4);
    expect(feed.current().run).toMatchObject({ points: 2, state: "finished" });
  });

  it("right after a history does not count again what that held already", async () => {
    await showLoss();

    server.channel.listener.onDelta(delta({ series: [arrival("loss", point(0, 5), point(1, 4))] }));
    expect(rawPoints("loss")).toBe(2);

    server.channel.listener.onDelta(delta({ series: [arrival("loss", point(0, 7))] }));
    expect(rawPoints("loss")).toBe(3);
  });

  it("right after a history, with a bucket half known, has the history asked for again", async () => {
    await showLoss();
    const asked = server.asked.length;

    server.channel.listener.onDelta(delta({ series: [arrival("loss", wide(0, 9))] }));
    await timers.pass(600);

    expect(server.asked).toHaveLength(asked + 1);
  });

  it("with a named key tells its heat strip to look again", async () => {
    server.series = [{ key: "weights", label: "", rawPoints: 0, buckets: [] }];
    feed.watch("weights");
    feed.start();
    await timers.pass(50);
    const before = feed.currentKey("weights")?.arrivals ?? 0;

    server.channel.listener.onDelta(delta({ run: { rows: 8 } }));
    server.channel.listener.onDelta(delta({ run: { rows: 9 }, otherKeys: ["weights", "elsewhere"] }));

    expect(feed.currentKey("weights")?.arrivals).toBe(before + 1);
  });

  it("is not undone by an older answer that was on its way", async () => {
    await showLoss();
    server.onRunAsked = () => server.channel.listener.onDelta(delta({ run: { state: "finished" } }));

    server.channel.listener.onDelta(delta({ newKeys: ["acc"] }));
    await timers.pass(200);

    expect(feed.current().run?.state).toBe("finished");
  });

  it("with a new metric has the list of metrics looked up", async () => {
    await showLoss();
    server.metrics = [{ name: "acc", label: "", kind: "number", points: 1, last: 1 }];

    server.channel.listener.onDelta(delta({ newKeys: ["acc"] }));
    await timers.pass(200);

    expect(feed.current().metrics?.map(({ name }) => name)).toEqual(["acc"]);
  });

  it("makes a second label a second line", async () => {
    await showLoss();

    server.channel.listener.onDelta(delta({ series: [{ ...arrival("loss", point(1, 4)), label: "rank1" }] }));

    expect(feed.currentKey("loss")?.series.map(({ label, rawPoints }) => [label, rawPoints])).toEqual([["", 1], ["rank1", 1]]);
  });
});

describe("a zoomed range", () => {
  it("asks for finer buckets of these steps, and counts only what lies in it", async () => {
    await showLoss();
    feed.setRange({ minStep: 0, maxStep: 10 });
    await timers.pass(0);
    server.channel.listener.onDelta(delta({ series: [arrival("loss", point(5, 1), point(11, 1))] }));

    expect(server.asked.at(-1)).toEqual({ keys: ["loss"], range: { minStep: 0, maxStep: 10 } });
    expect(rawPoints("loss")).toBe(2);
  });

  it("asks again when a bucket reaches across its border, since nobody knows which points are inside", async () => {
    await showLoss();
    feed.setRange({ minStep: 0, maxStep: 10 });
    await timers.pass(0);
    const asked = server.asked.length;

    server.channel.listener.onDelta(delta({ series: [arrival("loss", wide(8, 20))] }));
    await timers.pass(600);

    expect(server.asked).toHaveLength(asked + 1);
  });
});

describe("a server that goes away", () => {
  it("is shown as lost, and followed again from the last cursor", async () => {
    await showLoss();
    server.channel.listener.onDelta(delta({ cursor: "c7" }));

    server.channel.listener.onLost();
    expect(feed.current().connection).toBe("lost");
    await timers.pass(300);
    server.channel.listener.onOpen();

    expect(server.channel.cursor).toBe("c7");
    expect(feed.current().connection).toBe("live");
  });

  it("for longer is asked for everything again when it is back", async () => {
    await showLoss();
    server.isAway = true;
    server.channel.listener.onLost();
    await timers.pass(300);
    server.channel.listener.onLost();
    await timers.pass(700);
    server.isAway = false;
    server.cursor = "new store";
    await timers.pass(1500);
    server.channel.listener.onOpen();

    expect(server.channel.cursor).toBe("new store");
    expect(feed.current().connection).toBe("live");
  });

  it("with the cursor too old for deltas is asked for the history", async () => {
    await showLoss();
    server.cursor = "c50";

    server.channel.listener.onTooOld();
    await timers.pass(0);

    expect(server.channel).toMatchObject({ cursor: "c50", isOpen: true });
  });
});

describe("a run", () => {
  it("that does not exist yet is asked for until it does", async () => {
    const real = server.run;
    server.run = new ApiError("missing", "run acme/digits/r1 does not exist");
    feed.start();
    await timers.pass(0);
    expect(feed.current().problem?.kind).toBe("missing");

    server.run = real;
    await timers.pass(300);
    server.channel.listener.onOpen();

    expect(feed.current()).toMatchObject({ problem: null, connection: "live", run: { id: "r1" } });
  });

  it("that the server refuses is not asked for again", async () => {
    server.run = new ApiError("refused", "bad request");
    feed.start();
    await timers.pass(0);
    await timers.pass(60_000);

    expect(server.channels).toHaveLength(0);
    expect(feed.current().problem?.message).toBe("bad request");
  });

  it("that is left leaves nothing open", async () => {
    await showLoss();

    feed.stop();
    await timers.pass(60_000);

    expect(server.channels.filter(({ isOpen }) => isOpen)).toHaveLength(0);
  });
});
