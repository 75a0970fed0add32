// Which panel each metric of a run gets.
//
// The list names a metric once per writer label and kind: two ranks that log `loss` share one chart, and a name that once
// held a number and once a histogram has a panel for each.

import type { Metric, MetricKind } from "../api";
import { compareNames } from "./groups";

export interface Panel {
  readonly name: string;
  readonly kind: "chart" | "heat strip";
}

const PANEL_OF_KIND: Readonly<Record<MetricKind, Panel["kind"] | null>> = {
  number: "chart",
  bool: "chart",
  histogram: "heat strip",
  string: null,
  json: null,
  null: null,
};

export function panelsOf(metrics: readonly Metric[]): readonly Panel[] {
  const panels = new Map<string, Panel>();
  for (const { name, kind } of metrics) {
    const panelKind = PANEL_OF_KIND[kind];
    if (panelKind !== null) panels.set(`${panelKind} ${name}`, { name, kind: panelKind });
  }
  return [...panels.values()];
}

export function textMetricsOf(metrics: readonly Metric[]): readonly Metric[] {
  return metrics.filter(({ kind }) => PANEL_OF_KIND[kind] === null).toSorted((a, b) => compareNames(a.name, b.name));
}
