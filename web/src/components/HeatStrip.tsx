// A histogram metric over steps, as a strip of colour: steps to the right, values upwards, share of the count as colour.
//
// The strip has the frame and the axis width of a chart, so that a step stands at the same place in both. It holds no deltas:
// when rows arrived it fetches the thinned set again, since one histogram more changes which ones an even thinning picks. Rows
// need not hold a histogram, so the wait doubles each time none came, up to `LONGEST_WAIT_MS`.

import { useEffect, useMemo, useRef, useState } from "react";
import type { Door, HistogramStrip, StepRange } from "../api";
import { useKey } from "../feeds/hooks";
import type { RunFeed } from "../feeds/runFeed";
import { browserTimers } from "../feeds/timers";
import { heatGrid, rampColour, type HeatGrid, type Histogram } from "../lib/heat";
import { formatCount, formatPlural, formatValue } from "../lib/numbers";
import type { RunPath } from "../lib/route";
import { PLOT_HEIGHT_PX } from "./chartPlot";
import { useTheme, type Theme } from "./theme";

const HISTOGRAMS_DRAWN = 200;
const VALUE_ROWS = 64;
const WAIT_MS = 800;

interface HeatStripProps {
  door: Door;
  path: RunPath;
  feed: RunFeed;
  name: string;
  /** The name as far as the heading above does not say it. */
  title: string;
  range: StepRange | null;
}

export function HeatStrip({ door, path, feed, name, title, range }: HeatStripProps) {
  const arrivals = useKey(feed, name)?.arrivals ?? 0;
  const strip = useStrip(door, path, name, range, arrivals);
  const histograms = strip?.histograms ?? NO_HISTOGRAMS;
  const grid = useMemo(() => heatGrid(histograms, VALUE_ROWS), [histograms]);
  const [hovered, setHovered] = useState<number | null>(null);
  const shown = hovered === null ? undefined : histograms[hovered];
  const first = histograms[0];
  const last = histograms.at(-1);
  return (
    <figure
      className="panel"
      aria-label={`${name}: ${formatPlural(strip?.rawPoints ?? 0, "histogram")} over steps`}
      data-testid="heat-strip"
      data-key={name}
      data-raw-points={strip?.rawPoints}
      data-drawn={histograms.length}
      data-last-step={last?.step ?? ""}
    >
      <figcaption className="panel-head">
        <span className="panel-title" title={name}>{title}</span>
        <span className="readout" aria-hidden="true">{shown === undefined ? "" : histogramText(shown)}</span>
        <span className="last-value">{last === undefined ? "" : `${formatValue(grid.valueMin, 3)} … ${formatValue(grid.valueMax, 3)}`}</span>
      </figcaption>
      <div className="strip" style={{ height: PLOT_HEIGHT_PX }}>
        {first !== undefined && last !== undefined && (
          <>
            <span className="strip-max">{formatValue(grid.valueMax, 3)}</span>
            <span className="strip-min">{formatValue(grid.valueMin, 3)}</span>
            <HeatCanvas histograms={histograms} grid={grid} onHover={setHovered} />
            <span className="strip-first">{formatCount(first.step)}</span>
            {last.step !== first.step && <span className="strip-last">{formatCount(last.step)}</span>}
          </>
        )}
      </div>
      <div className="panel-foot">
        {strip !== null && (
          <span>
            {formatPlural(strip.rawPoints, "raw histogram")}, {formatCount(histograms.length)} drawn
          </span>
        )}
      </div>
    </figure>
  );
}

const NO_HISTOGRAMS: readonly Histogram[] = [];

function useStrip(door: Door, { entity, project, id }: RunPath, name: string, range: StepRange | null, arrivals: number): HistogramStrip | null {
  const [strip, setStrip] = useState<HistogramStrip | null>(null);
  const refetch = useRef<(() => void) | null>(null);
  useEffect(() => {
    const flight = new AbortController();
    let cancelWait = (): void => undefined;
    let isWaiting = false;
    let isWanted = false;
    const fetchStrip = (): void => {
      if (isWaiting) {
        isWanted = true;
        return;
      }
      isWaiting = true;
      isWanted = false;
      door
        .histograms({ entity, project, id }, name, HISTOGRAMS_DRAWN, range, flight.signal)
        .then((found) => {
          if (flight.signal.aborted) return;
          setStrip(found);
        })
        .catch(() => undefined) // The feed reports a server that is away, and its return is an arrival.
        .finally(() => {
          cancelWait = browserTimers.after(WAIT_MS, () => {
            isWaiting = false;
            if (isWanted) fetchStrip();
          });
        });
    };
    refetch.current = fetchStrip;
    return () => {
      refetch.current = null;
      cancelWait();
      flight.abort();
    };
  }, [door, entity, project, id, name, range]);
  useEffect(() => {
    if (arrivals > 0) refetch.current?.();
  }, [arrivals]);
  return strip;
}

interface HeatCanvasProps {
  histograms: readonly Histogram[];
  grid: HeatGrid;
  onHover: (column: number | null) => void;
}

function HeatCanvas({ histograms, grid, onHover }: HeatCanvasProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const theme = useTheme();
  useEffect(() => {
    const target = canvas.current;
    if (target === null) return;
    const draw = (): void => drawHeat(target, histograms, grid, theme);
    const resize = new ResizeObserver(draw);
    resize.observe(target);
    return () => resize.disconnect();
  }, [histograms, grid, theme]);
  const hover = (event: React.PointerEvent<HTMLCanvasElement>): void => {
    const { left, width } = event.currentTarget.getBoundingClientRect();
    onHover(columnAt(histograms, (event.clientX - left) / width));
  };
  return <canvas ref={canvas} onPointerMove={hover} onPointerLeave={() => onHover(null)} />;
}

function drawHeat(canvas: HTMLCanvasElement, histograms: readonly Histogram[], grid: HeatGrid, theme: Theme): void {
  const width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  const height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  if (context === null) return;
  const image = context.createImageData(width, height);
  for (let x = 0; x < width; x++) {
    const column = columnAt(histograms, (x + 0.5) / width);
    for (let y = 0; y < height; y++) {
      const row = Math.floor(((height - 1 - y) * grid.rows) / height);
      const heat = grid.heat[row * grid.columns + column] ?? 0;
      image.data.set([...rampColour(theme.heat, heat), 255], 4 * (y * width + x));
    }
  }
  context.putImageData(image, 0, 0);
}

/** The histogram at a place of 0 to 1: each reaches from its step to the next one's, the last as far as the one before it. */
function columnAt(histograms: readonly Histogram[], place: number): number {
  const first = histograms[0]?.step ?? 0;
  const last = histograms.at(-1)?.step ?? 0;
  const lastWidth = last - (histograms.at(-2)?.step ?? last - 1);
  const step = first + place * (last - first + lastWidth);
  let low = 0;
  let high = histograms.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if ((histograms[middle]?.step ?? 0) <= step) low = middle;
    else high = middle - 1;
  }
  return low;
}

function histogramText({ step, counts, nanCount, infCount }: Histogram): string {
  const values = counts.reduce((sum, count) => sum + count, 0);
  const broken = [nanCount > 0 ? `${formatCount(nanCount)} NaN` : "", infCount > 0 ? `${formatCount(infCount)} infinite` : ""];
  return [`${formatCount(step)}: ${formatPlural(values, "value")}`, ...broken.filter((text) => text !== "")].join(", ");
}
