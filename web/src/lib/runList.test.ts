import { expect, it } from "vitest";
import type { Run } from "../api";
import { commonSummaryNames, durationUs, filterRuns, sortRuns } from "./runList";

function run(id: string, more: Partial<Run> = {}): Run {
  return {
    entity: "acme", project: "digits", id, name: id, group: "", job_type: "", notes: "", tags: [], state: "finished", config: {}, summary: {},
    created_at_us: 0, heartbeat_at_us: 0, finished_at_us: 0, exit_code: 0, points: 0, rows: 0, last_step: null, host: "", writers: 1, gaps: 0, duplicates: 0,
    ...more,
  };
}

function ids(runs: readonly Run[]): string[] {
  return runs.map(({ id }) => id);
}

it("puts runs without a value last, in either direction", () => {
  const runs = [run("none"), run("low", { summary: { loss: 1 } }), run("nan", { summary: { loss: { _type: "float", value: "NaN" } } }), run("high", { summary: { loss: 2 } })];

  expect(ids(sortRuns(runs, { column: "summary:loss", isDescending: true }, 0))).toEqual(["high", "low", "none", "nan"]);
  expect(ids(sortRuns(runs, { column: "summary:loss", isDescending: false }, 0))).toEqual(["low", "high", "none", "nan"]);
});

it("orders names as people count", () => {
  expect(ids(sortRuns([run("run-10"), run("run-9")], { column: "name", isDescending: false }, 0))).toEqual(["run-9", "run-10"]);
});

it("finds runs by name, tag, group, state and host", () => {
  const runs = [run("a", { tags: ["baseline"] }), run("b", { state: "lost", host: "gpu-7" })];

  expect(ids(filterRuns(runs, "base"))).toEqual(["a"]);
  expect(ids(filterRuns(runs, "lost GPU"))).toEqual(["b"]);
  expect(ids(filterRuns(runs, "  "))).toEqual(["a", "b"]);
});

it("lets only a running run's duration grow with the clock", () => {
  const times = { created_at_us: 10, heartbeat_at_us: 60, finished_at_us: null };

  expect(durationUs(run("r", { ...times, state: "running" }), 100)).toBe(90);
  expect(durationUs(run("l", { ...times, state: "lost" }), 100)).toBe(50);
  expect(durationUs(run("f", { ...times, finished_at_us: 40 }), 100)).toBe(30);
});

it("offers the summary values most runs share, outcomes before the rest", () => {
  const summary = { loss: 1, lr: 1, epoch: 1, _step: 1, note: "text" };

  expect(commonSummaryNames([run("a", { summary }), run("b", { summary: { ...summary, rare: 1 } })], 2)).toEqual(["epoch", "loss"]);
});
