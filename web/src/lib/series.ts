// A metric as it is drawn: buckets of points, and how new ones join them.
//
// The server answers with a few hundred buckets and then pushes what arrives. A page that stays open for days must not
// grow with the run, so a series that holds too many buckets is laid onto an even grid of steps again, here. What a
// bucket says stays exact through any number of such merges: count, minimum, maximum, mean and last value of the points
// in it. Only the place where one bucket ends and the next begins gets coarser.
//
// # Invariants
// - Buckets of a series ascend and do not overlap: `a.stepLast < b.stepFirst`.
// - The counts of all buckets add up to the points they were made of. `count` includes NaN and infinite points.
// - Nothing here changes its arguments.

export interface Bucket {
  readonly stepFirst: number;
  readonly stepLast: number;
  readonly timeLastUs: number;
  readonly count: number;
  /** Of the finite points; null when there is none. */
  readonly min: number | null;
  readonly max: number | null;
  readonly mean: number | null;
  /** Null when the last point is NaN or infinite. */
  readonly last: number | null;
  readonly nanCount: number;
  readonly infCount: number;
}

export interface Series {
  readonly key: string;
  /** The writer's label; empty but for runs that several processes share. */
  readonly label: string;
  readonly rawPoints: number;
  readonly buckets: readonly Bucket[];
}

/** The columns of section 3 of docs/http-api.md. */
export interface BucketColumns {
  readonly step_first: readonly number[];
  readonly step_last: readonly number[];
  readonly time_last_us: readonly number[];
  readonly count: readonly number[];
  readonly min: readonly (number | null)[];
  readonly max: readonly (number | null)[];
  readonly mean: readonly (number | null)[];
  readonly last: readonly (number | null)[];
  readonly nan_count: readonly number[];
  readonly inf_count: readonly number[];
}

/** Turns the wire's columns into buckets. A column that is too short reads as empty, never as another bucket's value. */
export function bucketsOfColumns(columns: BucketColumns): Bucket[] {
  return columns.step_first.map((stepFirst, index) => ({
    stepFirst,
    stepLast: columns.step_last[index] ?? stepFirst,
    timeLastUs: columns.time_last_us[index] ?? 0,
    count: columns.count[index] ?? 0,
    min: columns.min[index] ?? null,
    max: columns.max[index] ?? null,
    mean: columns.mean[index] ?? null,
    last: columns.last[index] ?? null,
    nanCount: columns.nan_count[index] ?? 0,
    infCount: columns.inf_count[index] ?? 0,
  }));
}

/** Both buckets as one. `later` wins the last value where both end at the same step. */
export function mergeBuckets(earlier: Bucket, later: Bucket): Bucket {
  const earlierFinite = earlier.count - earlier.nanCount - earlier.infCount;
  const laterFinite = later.count - later.nanCount - later.infCount;
  const newest = later.stepLast >= earlier.stepLast ? later : earlier;
  return {
    stepFirst: Math.min(earlier.stepFirst, later.stepFirst),
    stepLast: newest.stepLast,
    timeLastUs: newest.timeLastUs,
    count: earlier.count + later.count,
    min: lesser(earlier.min, later.min),
    max: greater(earlier.max, later.max),
    mean: weightedMean(earlier.mean, earlierFinite, later.mean, laterFinite),
    last: newest.last,
    nanCount: earlier.nanCount + later.nanCount,
    infCount: earlier.infCount + later.infCount,
  };
}

function lesser(a: number | null, b: number | null): number | null {
  return a === null ? b : b === null ? a : Math.min(a, b);
}

function greater(a: number | null, b: number | null): number | null {
  return a === null ? b : b === null ? a : Math.max(a, b);
}

function weightedMean(a: number | null, aCount: number, b: number | null, bCount: number): number | null {
  if (a === null || aCount <= 0) return b;
  if (b === null || bCount <= 0) return a;
  // As a step from `a` towards `b`, so that two huge values do not overflow on the way.
  return a + (b - a) * (bCount / (aCount + bCount));
}

/**
 * Adds arrived buckets to a series; lays it onto `capacity` buckets when it holds more than twice as many.
 *
 * Late points (a second writer, a resumed step) go where their step is, into the bucket that covers it.
 */
export function extendSeries(series: Series, arrived: readonly Bucket[], rawPointsAdded: number, capacity: number): Series {
  const buckets = coalesce(appendEvenly(series.buckets, arrived, capacity));
  return {
    ...series,
    rawPoints: series.rawPoints + rawPointsAdded,
    buckets: buckets.length > 2 * capacity ? rebucket(buckets, capacity) : buckets,
  };
}

/**
 * Appends buckets, each into the one before while that stays no wider than an even bucket is by now.
 *
 * Otherwise the end of a long series, where single points arrive, would be drawn in another resolution than the rest. Points
 * that all fit stay single.
 */
function appendEvenly(buckets: readonly Bucket[], arrived: readonly Bucket[], capacity: number): readonly Bucket[] {
  const appended = [...buckets];
  const first = buckets[0];
  const isBucketed = buckets.some((bucket) => bucket.count > 1);
  for (const bucket of arrived) {
    const before = appended.at(-1);
    const mayMerge = first !== undefined && (isBucketed || appended.length >= capacity);
    const stepsPerBucket = mayMerge ? (bucket.stepLast - first.stepFirst + 1) / capacity : 0;
    const isNext = before !== undefined && before.stepLast < bucket.stepFirst;
    if (isNext && bucket.stepLast - before.stepFirst < stepsPerBucket) {
      appended[appended.length - 1] = mergeBuckets(before, bucket);
    } else {
      appended.push(bucket);
    }
  }
  return appended;
}

/** Orders buckets by step and merges those that overlap. */
function coalesce(buckets: readonly Bucket[]): readonly Bucket[] {
  const isOrdered = buckets.every((bucket, index) => {
    const before = buckets[index - 1];
    return before === undefined || before.stepLast < bucket.stepFirst;
  });
  if (isOrdered) return buckets;
  const merged: Bucket[] = [];
  for (const bucket of buckets.toSorted((a, b) => a.stepFirst - b.stepFirst)) {
    const before = merged.at(-1);
    if (before !== undefined && bucket.stepFirst <= before.stepLast) {
      merged[merged.length - 1] = mergeBuckets(before, bucket);
    } else {
      merged.push(bucket);
    }
  }
  return merged;
}

/** Lays buckets onto an even grid of at most `capacity` cells over the same steps. */
export function rebucket(buckets: readonly Bucket[], capacity: number): readonly Bucket[] {
  const first = buckets[0];
  const last = buckets.at(-1);
  if (first === undefined || last === undefined || buckets.length <= capacity) return buckets;
  const stepsPerCell = (last.stepLast - first.stepFirst + 1) / capacity;
  const laid: Bucket[] = [];
  let filledCell = -1;
  for (const bucket of buckets) {
    // A bucket wider than a cell counts to the one it begins in; it is never split, since its points are gone.
    const cell = Math.floor((bucket.stepFirst - first.stepFirst) / stepsPerCell);
    const before = laid.at(-1);
    if (before !== undefined && cell === filledCell) {
      laid[laid.length - 1] = mergeBuckets(before, bucket);
    } else {
      laid.push(bucket);
      filledCell = cell;
    }
  }
  return laid;
}

/** Whether a bucket lies wholly in a range of steps, wholly outside, or across its border. */
export function placeInRange(bucket: Bucket, minStep: number, maxStep: number): "inside" | "outside" | "across" {
  if (bucket.stepLast < minStep || bucket.stepFirst > maxStep) return "outside";
  return bucket.stepFirst >= minStep && bucket.stepLast <= maxStep ? "inside" : "across";
}

/** Where a bucket is drawn: the middle of its steps. */
export function stepOf(bucket: Bucket): number {
  return (bucket.stepFirst + bucket.stepLast) / 2;
}
