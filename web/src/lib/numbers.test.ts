import { describe, expect, it } from "vitest";
import { formatAge, formatCount, formatDuration, formatLogTicks, formatPlural, formatTicks, formatValue } from "./numbers";

describe("formatValue", () => {
  it.each([
    [0.123456789, "0.12346"],
    [2.5, "2.5"],
    [1234567, "1,234,567"],
    [-3, "−3"],
    [3e-4, "0.0003"],
    [2.5e-7, "2.5e−7"],
    [123456789.5, "1.2346e8"],
    [0, "0"],
    [Number.NaN, "NaN"],
    [Number.POSITIVE_INFINITY, "∞"],
    [Number.NEGATIVE_INFINITY, "−∞"],
    [null, "–"],
  ])("writes %s as %s", (value, text) => {
    expect(formatValue(value)).toBe(text);
  });
});

it("writes counts in full", () => {
  expect(formatCount(1204331)).toBe("1,204,331");
  expect([formatPlural(1, "point"), formatPlural(2000, "point")]).toEqual(["1 point", "2,000 points"]);
});

describe("formatTicks", () => {
  it.each([
    [[0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.50", "0.75", "1.00"]],
    [[0.1, 0.2, 0.1 + 0.2], ["0.1", "0.2", "0.3"]],
    [[0, 5000, 10000], ["0", "5k", "10k"]],
    [[0, 2500, 5000], ["0", "2500", "5000"]],
    [[2e6, 2.5e6, 3e7], ["2.0M", "2.5M", "30.0M"]],
    [[-1, 0, 1], ["−1", "0", "1"]],
    [[0, 1e-5, 2e-5], ["0", "1e−5", "2e−5"]],
    [[7], ["7"]],
    [[], []],
  ])("labels %j", (ticks, labels) => {
    expect(formatTicks(ticks)).toEqual(labels);
  });

  it("never gives two ticks the same label", () => {
    for (const distance of [1e-6, 0.002, 0.05, 0.25, 1, 20, 2500, 1e5, 2e9]) {
      const ticks = Array.from({ length: 6 }, (_, index) => 3 * distance + index * distance);
      expect(new Set(formatTicks(ticks)).size).toBe(6);
    }
  });

  it("leaves out the ticks that a logarithmic axis skips", () => {
    expect(formatLogTicks([0.01, null, 1, null, 100])).toEqual(["0.01", "", "1", "", "100"]);
  });
});

it.each([
  [4.21e6, "4.2 s"],
  [59e6, "59 s"],
  [185e6, "3 min 05 s"],
  [8040e6, "2 h 14 min"],
  [273_600e6, "3 d 4 h"],
  [-5, "0.0 s"],
])("writes %d microseconds as %s", (us, text) => {
  expect(formatDuration(us)).toBe(text);
});

it("tells ages in the largest unit, and a date when that says more", () => {
  const nowUs = Date.UTC(2026, 10, 21, 12) * 1000;

  expect(formatAge(nowUs - 3e6, nowUs)).toBe("just now");
  expect(formatAge(nowUs - 300e6, nowUs)).toBe("5 min ago");
  expect(formatAge(nowUs - 30 * 86_400e6, nowUs)).toBe("2026-10-22");
});
