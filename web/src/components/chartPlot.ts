// One chart as uPlot draws it: a band from minimum to maximum, the mean as a line, marks where points are not finite.
//
// Kept apart from the React component, because uPlot keeps its own state and redraws at the speed of the mouse, which React
// must not be asked to follow. All charts of a page share one crosshair by step, not by pixel: they differ in width of axis
// and in the steps they have.

import uPlot from "uplot";
import type { StepRange } from "../api";
import { formatLogTicks, formatTicks } from "../lib/numbers";
import type { PlotColumns } from "../lib/plotColumns";
import type { Theme } from "./theme";

export const PLOT_HEIGHT_PX = 184;
export const Y_AXIS_PX = 50;
const X_AXIS_PX = 24;
const CROSSHAIR = "run-step";
const MARK_PX = 4;
const SHORTEST_DRAG_PX = 5;

export interface PlotSettings {
  readonly seriesCount: number;
  readonly isLogY: boolean;
  readonly theme: Theme;
  /** What `plot.setData` was last called with. */
  readonly columns: () => PlotColumns;
  /** The zoomed steps, or null for all there are. */
  readonly range: () => StepRange | null;
  readonly onHover: (index: number | null) => void;
  readonly onZoom: (range: StepRange | null) => void;
}

export function createPlot(target: HTMLElement, widthPx: number, settings: PlotSettings): uPlot {
  const { theme, isLogY, seriesCount } = settings;
  const axis = { stroke: theme.quiet, font: "11px system-ui, sans-serif", ticks: { show: false }, grid: { stroke: theme.grid, width: 1 } };
  const options: uPlot.Options = {
    width: widthPx,
    height: PLOT_HEIGHT_PX,
    legend: { show: false },
    padding: [8, 10, 0, 0],
    scales: {
      x: { time: false, range: (_, min, max) => stepsShown(settings.range(), min, max) },
      y: { distr: isLogY ? 3 : 1 },
    },
    axes: [
      { ...axis, size: X_AXIS_PX, gap: 4, space: 70, values: (_, ticks) => formatTicks(ticks) },
      { ...axis, size: Y_AXIS_PX, gap: 5, space: 30, values: (_, ticks) => (isLogY ? formatLogTicks(ticks) : formatTicks(ticks)) },
    ],
    series: [{}, ...Array.from({ length: seriesCount }, (_, index) => seriesOf(theme, index)).flat()],
    bands: Array.from({ length: seriesCount }, (_, index) => ({ series: [3 * index + 2, 3 * index + 1], fill: `${colourOf(theme, index)}33` })),
    cursor: {
      y: false,
      drag: { x: true, y: false, setScale: false },
      points: { size: 7 },
      bind: { dblclick: () => resetZoom(settings) },
      // Zooming is announced once, by the chart it happened in; only the crosshair is shared.
      sync: { key: CROSSHAIR, setSeries: false, scales: ["x", null], filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
    },
    hooks: {
      setCursor: [(plot) => settings.onHover(plot.cursor.idx ?? null)],
      setSelect: [(plot) => zoomToSelection(plot, settings)],
      draw: [(plot) => drawMarks(plot, settings)],
    },
  };
  return new uPlot(options, plotData(settings.columns()), target);
}

export function plotData({ steps, values }: PlotColumns): uPlot.AlignedData {
  return [steps, ...values] as uPlot.AlignedData;
}

function colourOf(theme: Theme, index: number): string {
  return theme.series[index % theme.series.length] ?? theme.ink;
}

/** Minimum, maximum, mean. The first two are there for the band alone. */
function seriesOf(theme: Theme, index: number): uPlot.Series[] {
  const border: uPlot.Series = { stroke: "transparent", width: 0, points: { show: false } };
  return [border, border, { stroke: colourOf(theme, index), width: 1.5, points: { size: 4, space: 12 } }];
}

/** A lone step gets room on both sides; zoomed steps are shown as asked for, even where nothing was logged. */
function stepsShown(range: StepRange | null, min: number | null, max: number | null): [number, number] {
  const from = range?.minStep ?? min ?? 0;
  const to = range?.maxStep ?? max ?? 1;
  return from === to ? [from - 1, to + 1] : [from, to];
}

function resetZoom(settings: PlotSettings): () => null {
  return () => {
    settings.onZoom(null);
    return null;
  };
}

function zoomToSelection(plot: uPlot, settings: PlotSettings): void {
  const { left, width } = plot.select;
  if (width < SHORTEST_DRAG_PX) return;
  const minStep = Math.max(0, Math.floor(plot.posToVal(left, "x")));
  const maxStep = Math.max(minStep + 1, Math.ceil(plot.posToVal(left + width, "x")));
  plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  settings.onZoom({ minStep, maxStep });
}

/** NaN as a triangle at the foot of the plot, infinity as one at its top: their values have no place on the axis. */
function drawMarks(plot: uPlot, settings: PlotSettings): void {
  const { steps, buckets } = settings.columns();
  const { ctx, bbox } = plot;
  const size = MARK_PX * devicePixelRatio;
  ctx.save();
  ctx.fillStyle = settings.theme.warning;
  for (const ofSeries of buckets) {
    ofSeries.forEach((bucket, index) => {
      if (bucket === undefined || bucket.nanCount + bucket.infCount === 0) return;
      const x = plot.valToPos(steps[index] ?? 0, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) return;
      if (bucket.nanCount > 0) fillTriangle(ctx, x, bbox.top + bbox.height, size, -size * 1.6);
      if (bucket.infCount > 0) fillTriangle(ctx, x, bbox.top, size, size * 1.6);
    });
  }
  ctx.restore();
}

function fillTriangle(ctx: CanvasRenderingContext2D, x: number, base: number, halfWidth: number, height: number): void {
  ctx.beginPath();
  ctx.moveTo(x - halfWidth, base);
  ctx.lineTo(x + halfWidth, base);
  ctx.lineTo(x, base + height);
  ctx.fill();
}
