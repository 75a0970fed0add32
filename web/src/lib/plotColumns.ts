// Series of one chart as the columns uPlot draws: one shared x column, and minimum, maximum and mean per series.
//
// Several writers log the same metric at different steps, and uPlot knows only one x column, so the columns are joined
// on the step. uPlot tells two kinds of absence apart, and so must this: `undefined` where a series has no bucket (the
// line runs on), `null` where a bucket has no finite point (the line breaks: something went wrong there).

import type { Bucket, Series } from "./series";
import { stepOf } from "./series";

export type PlotColumn = (number | null | undefined)[];

export interface PlotColumns {
  readonly steps: number[];
  /** For each series in turn: minimum, maximum, mean. */
  readonly values: PlotColumn[];
  /** For each series, the bucket at each step, for what the cursor reads out. */
  readonly buckets: (Bucket | undefined)[][];
  /** Whether a value that a logarithmic axis cannot show was left out. */
  readonly hidesNonPositive: boolean;
}

export function plotColumns(seriesList: readonly Series[], isLogY: boolean): PlotColumns {
  const steps = joinSteps(seriesList);
  const indexOfStep = new Map(steps.map((step, index) => [step, index]));
  const values: PlotColumn[] = [];
  const buckets: (Bucket | undefined)[][] = [];
  let hidesNonPositive = false;

  const shown = (value: number | null): number | null => {
    if (!isLogY || value === null || value > 0) return value;
    hidesNonPositive = true;
    return null;
  };
  for (const series of seriesList) {
    const minimum: PlotColumn = Array.from({ length: steps.length });
    const maximum: PlotColumn = Array.from({ length: steps.length });
    const mean: PlotColumn = Array.from({ length: steps.length });
    const ofSeries: (Bucket | undefined)[] = Array.from({ length: steps.length });
    for (const bucket of series.buckets) {
      const index = indexOfStep.get(stepOf(bucket));
      if (index === undefined) continue;
      minimum[index] = shown(bucket.min);
      maximum[index] = shown(bucket.max);
      mean[index] = shown(bucket.mean);
      ofSeries[index] = bucket;
    }
    values.push(minimum, maximum, mean);
    buckets.push(ofSeries);
  }
  return { steps, values, buckets, hidesNonPositive };
}

function joinSteps(seriesList: readonly Series[]): number[] {
  const only = seriesList[0];
  if (seriesList.length === 1 && only !== undefined) return only.buckets.map(stepOf);
  const steps = new Set(seriesList.flatMap((series) => series.buckets.map(stepOf)));
  return [...steps].toSorted((a, b) => a - b);
}
