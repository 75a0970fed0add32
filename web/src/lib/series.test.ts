import { describe, expect, it } from "vitest";
import { bucketsOfColumns, extendSeries, mergeBuckets, placeInRange, rebucket, type Bucket, type Series } from "./series";

function point(step: number, value: number): Bucket {
  const finite = Number.isFinite(value) ? value : null;
  return {
    stepFirst: step,
    stepLast: step,
    timeLastUs: step * 10,
    count: 1,
    min: finite,
    max: finite,
    mean: finite,
    last: finite,
    nanCount: Number.isNaN(value) ? 1 : 0,
    infCount: Math.abs(value) === Number.POSITIVE_INFINITY ? 1 : 0,
  };
}

function seriesOf(buckets: readonly Bucket[]): Series {
  return { key: "loss", label: "", rawPoints: buckets.length, buckets };
}

/** A repeatable stream of 0 to 1 (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function sum(buckets: readonly Bucket[], of: (bucket: Bucket) => number): number {
  return buckets.reduce((total, bucket) => total + of(bucket), 0);
}

describe("mergeBuckets", () => {
  it("keeps minimum, maximum, mean and count of the points of both", () => {
    const left = [point(1, 4), point(2, -2), point(3, 7)].reduce(mergeBuckets);
    const right = point(4, 3);

    const merged = mergeBuckets(left, right);

    expect(merged).toMatchObject({ stepFirst: 1, stepLast: 4, count: 4, min: -2, max: 7, last: 3 });
    expect(merged.mean).toBeCloseTo(3, 12);
  });

  it("leaves NaN and infinity out of the mean and counts them", () => {
    const merged = [point(1, 2), point(2, Number.NaN), point(3, Number.POSITIVE_INFINITY), point(4, 4)].reduce(mergeBuckets);

    expect(merged).toMatchObject({ count: 4, min: 2, max: 4, mean: 3, nanCount: 1, infCount: 1 });
  });

  it("takes the last value from the later step, whichever comes first", () => {
    expect(mergeBuckets(point(9, 90), point(5, 50)).last).toBe(90);
  });

  it("says nothing of values when no point is finite", () => {
    expect(mergeBuckets(point(1, Number.NaN), point(2, Number.NaN))).toMatchObject({ min: null, max: null, mean: null, last: null, nanCount: 2 });
  });

  it("does not overflow on the way to a mean of huge values", () => {
    expect(mergeBuckets(point(1, 1.6e308), point(2, 1.6e308)).mean).toBe(1.6e308);
  });
});

describe("extendSeries", () => {
  it("appends what arrived and counts its raw points", () => {
    const extended = extendSeries(seriesOf([point(1, 10)]), [point(2, 20), point(3, 30)], 2, 100);

    expect(extended.buckets.map((bucket) => bucket.last)).toEqual([10, 20, 30]);
    expect(extended.rawPoints).toBe(3);
  });

  it("stays within twice the capacity while it grows, and loses no point", () => {
    const random = randomFrom(3);
    let series = seriesOf([]);
    let lowest = Number.POSITIVE_INFINITY;
    let total = 0;
    for (let step = 0; step < 20_000; step++) {
      const value = random() * 100 - 50;
      lowest = Math.min(lowest, value);
      total += value;
      series = extendSeries(series, [point(step, value)], 1, 50);
      expect(series.buckets.length).toBeLessThanOrEqual(100);
    }

    expect(series.rawPoints).toBe(20_000);
    expect(sum(series.buckets, (bucket) => bucket.count)).toBe(20_000);
    expect(Math.min(...series.buckets.map((bucket) => bucket.min ?? 0))).toBe(lowest);
    expect(sum(series.buckets, (bucket) => (bucket.mean ?? 0) * bucket.count)).toBeCloseTo(total, 3);
  });

  it("draws the newest steps no finer than the rest of a long series", () => {
    let series = seriesOf(rebucket(Array.from({ length: 10_000 }, (_, step) => point(step, step)), 60));
    for (let step = 10_000; step < 11_000; step++) series = extendSeries(series, [point(step, step)], 1, 100);

    const added = series.buckets.slice(60);
    expect(added).toHaveLength(10);
    // The last one is still filling up.
    expect(added.slice(0, -1).every(({ count }) => count >= 100)).toBe(true);
  });

  it("keeps points single while all of them fit", () => {
    let series = seriesOf([]);
    for (let step = 0; step < 1_000; step += 10) series = extendSeries(series, [point(step, step)], 1, 100);

    expect(series.buckets.map(({ count }) => count)).toEqual(Array.from({ length: 100 }, () => 1));
  });

  it("puts a late point into the bucket that covers its step", () => {
    const wide = mergeBuckets(point(0, 1), point(9, 1));
    const extended = extendSeries(seriesOf([wide, point(20, 5)]), [point(4, 100)], 1, 100);

    expect(extended.buckets).toHaveLength(2);
    expect(extended.buckets[0]).toMatchObject({ stepFirst: 0, stepLast: 9, count: 3, max: 100, last: 1 });
  });

  it("puts a late point between buckets when none covers its step", () => {
    const extended = extendSeries(seriesOf([point(1, 1), point(9, 9)]), [point(5, 5)], 1, 100);

    expect(extended.buckets.map((bucket) => bucket.stepFirst)).toEqual([1, 5, 9]);
  });

  it("merges a bucket that reaches over several others", () => {
    const wide = mergeBuckets(point(0, 0), point(50, 50));
    const extended = extendSeries(seriesOf([point(10, 1), point(20, 2), point(60, 6)]), [wide], 2, 100);

    expect(extended.buckets.map(({ stepFirst, stepLast, count }) => [stepFirst, stepLast, count])).toEqual([[0, 50, 4], [60, 60, 1]]);
  });

  it("leaves the series it was given as it was", () => {
    const before = seriesOf([point(1, 1)]);

    extendSeries(before, [point(1, 2)], 1, 10);

    expect(before).toEqual(seriesOf([point(1, 1)]));
  });
});

describe("rebucket", () => {
  it("lays any buckets onto at most so many, in order and without overlap", () => {
    const random = randomFrom(11);
    for (let round = 0; round < 50; round++) {
      let step = 0;
      const points = Array.from({ length: 700 }, () => point((step += 1 + Math.floor(random() * 40)), random()));

      const laid = rebucket(points, 60);

      expect(laid.length).toBeLessThanOrEqual(60);
      expect(sum(laid, (bucket) => bucket.count)).toBe(700);
      expect(laid.every((bucket, index) => index === 0 || (laid[index - 1]?.stepLast ?? 0) < bucket.stepFirst)).toBe(true);
    }
  });

  it("does not touch what fits already", () => {
    const points = [point(1, 1), point(1000, 2)];

    expect(rebucket(points, 2)).toBe(points);
  });
});

describe("bucketsOfColumns", () => {
  it("reads a column that is too short as empty, never as another bucket's value", () => {
    const columns = { step_first: [1, 2], step_last: [1, 2], time_last_us: [5], count: [1, 1], min: [3], max: [3], mean: [3], last: [3], nan_count: [0], inf_count: [] };

    expect(bucketsOfColumns(columns)[1]).toEqual({ stepFirst: 2, stepLast: 2, timeLastUs: 0, count: 1, min: null, max: null, mean: null, last: null, nanCount: 0, infCount: 0 });
  });
});

describe("placeInRange", () => {
  it("tells inside, outside and across apart, borders included", () => {
    const bucket = mergeBuckets(point(10, 1), point(20, 1));

    expect(placeInRange(bucket, 10, 20)).toBe("inside");
    expect(placeInRange(bucket, 21, 30)).toBe("outside");
    expect(placeInRange(bucket, 20, 30)).toBe("across");
  });
});
