import { expect, it } from "vitest";
import { plotColumns } from "./plotColumns";
import type { Bucket, Series } from "./series";

function bucket(stepFirst: number, stepLast: number, mean: number | null): Bucket {
  return { stepFirst, stepLast, timeLastUs: 0, count: 1, min: mean, max: mean, mean, last: mean, nanCount: mean === null ? 1 : 0, infCount: 0 };
}

function series(label: string, ...buckets: Bucket[]): Series {
  return { key: "loss", label, rawPoints: buckets.length, buckets };
}

it("puts each bucket at the middle of its steps", () => {
  expect(plotColumns([series("", bucket(0, 9, 1), bucket(10, 19, 2))], false).steps).toEqual([4.5, 14.5]);
});

it("joins labels on the step: undefined where one has no bucket, null where it has no finite point", () => {
  const { steps, values } = plotColumns([series("a", bucket(1, 1, 10), bucket(3, 3, null)), series("b", bucket(2, 2, 20))], false);

  expect(steps).toEqual([1, 2, 3]);
  expect(values[2]).toEqual([10, undefined, null]);
  expect(values[5]).toEqual([undefined, 20, undefined]);
});

it("leaves out of a logarithmic axis what it cannot show, and says so", () => {
  const list = [series("", bucket(1, 1, 0), bucket(2, 2, -3), bucket(3, 3, 5))];

  expect(plotColumns(list, true)).toMatchObject({ hidesNonPositive: true });
  expect(plotColumns(list, true).values[2]).toEqual([null, null, 5]);
  expect(plotColumns(list, false).hidesNonPositive).toBe(false);
});
