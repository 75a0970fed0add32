import { expect, it } from "vitest";
import { heatGrid, rampColour, type Histogram } from "./heat";

function histogram(step: number, edges: number[], counts: number[]): Histogram {
  return { step, edges, counts, nanCount: 0, infCount: 0 };
}

it("spreads each bin over the rows it overlaps, in proportion", () => {
  const { heat, valueMin, valueMax } = heatGrid([histogram(0, [0, 4, 8], [3, 1])], 4);

  expect([valueMin, valueMax]).toEqual([0, 8]);
  // 3/8 in each of the two lower rows, 1/8 in the two upper ones; the largest is 1, drawn by its square root.
  expect([...heat].map((value) => Number(value.toFixed(4)))).toEqual([1, 1, 0.5774, 0.5774]);
});

it("shows shares, not counts: a larger batch is not darker", () => {
  const { heat } = heatGrid([histogram(0, [0, 1, 2], [1, 1]), histogram(1, [0, 1, 2], [500, 500])], 2);

  expect([...heat]).toEqual([1, 1, 1, 1]);
});

it("puts histograms of different edges onto one grid", () => {
  const { heat, columns } = heatGrid([histogram(0, [0, 1], [5]), histogram(1, [1, 2], [5])], 2);

  expect(columns).toBe(2);
  expect([...heat]).toEqual([1, 0, 0, 1]);
});

it("keeps a histogram of one value visible", () => {
  const { heat, valueMin, valueMax } = heatGrid([histogram(0, [3, 3], [10])], 3);

  expect([valueMin, valueMax]).toEqual([2.5, 3.5]);
  expect([...heat]).toEqual([0, 1, 0]);
});

it("does not let empty bins at the edges stretch the value axis", () => {
  expect(heatGrid([histogram(0, [-100, 0, 1, 100], [0, 4, 0])], 4)).toMatchObject({ valueMin: 0, valueMax: 1 });
});

it("draws nothing of no histograms, and of empty ones", () => {
  expect(heatGrid([], 4).heat).toHaveLength(0);
  expect([...heatGrid([histogram(0, [0, 1], [0])], 2).heat]).toEqual([0, 0]);
});

it("holds colours at the ends of the ramp", () => {
  const stops = [[0, 0, 0], [100, 200, 50]] as const;

  expect([rampColour(stops, -1), rampColour(stops, 0.5), rampColour(stops, 7)]).toEqual([[0, 0, 0], [50, 100, 25], [100, 200, 50]]);
});
