import { expect, it } from "vitest";
import { groupByPrefix, matchesFilter, nameUnder } from "./groups";

function groups(...names: string[]): [string, string[]][] {
  return groupByPrefix(names.map((name) => ({ name }))).map(({ prefix, items }) => [prefix, items.map((item) => item.name)]);
}

it("groups by what stands before the last slash, names without one first", () => {
  expect(groups("val/loss", "train/loss", "epoch", "train/lr", "val/acc")).toEqual([
    ["", ["epoch"]],
    ["train", ["train/loss", "train/lr"]],
    ["val", ["val/acc", "val/loss"]],
  ]);
});

it("counts as people do", () => {
  expect(groups("layer/10", "layer/2", "layer/1")).toEqual([["layer", ["layer/1", "layer/2", "layer/10"]]]);
});

it("moves names that would stand alone up until they meet others", () => {
  expect(groups("layers/0/grad", "layers/1/grad", "a/b/c/d")).toEqual([
    ["", ["a/b/c/d"]],
    ["layers", ["layers/0/grad", "layers/1/grad"]],
  ]);
});

it("names no group after a slash at the start or the end", () => {
  expect(groups("/x", "/y", "z/")).toEqual([["", ["/x", "/y", "z/"]]]);
});

it("keeps each of a thousand names exactly once", () => {
  const names = Array.from({ length: 1000 }, (_, index) => `${"p/".repeat(index % 7)}${index % 13}/${index}`);

  expect(groups(...names).flatMap(([, inGroup]) => inGroup).toSorted()).toEqual(names.toSorted());
});

it("says under a heading only what the heading does not", () => {
  expect([nameUnder("train", "train/loss"), nameUnder("", "train/loss")]).toEqual(["loss", "train/loss"]);
});

it("matches when every word occurs, whatever the case", () => {
  expect(matchesFilter("train/Loss", "loss tr")).toBe(true);
  expect(matchesFilter("train/Loss", "val")).toBe(false);
  expect(matchesFilter("anything", "")).toBe(true);
});
