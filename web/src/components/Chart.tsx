// A metric over steps, and how many raw points stand behind what is drawn.
//
// The figures under the plot are part of the promise, not decoration: a drawn line is a summary, and says of how much. The
// same figures are data attributes, for tests and for scripts that read the page.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import type uPlot from "uplot";
import type { StepRange } from "../api";
import type { RunFeed } from "../feeds/runFeed";
import { useKey } from "../feeds/hooks";
import { formatCount, formatPlural, formatValue } from "../lib/numbers";
import { plotColumns, type PlotColumns } from "../lib/plotColumns";
import type { Bucket, Series } from "../lib/series";
import { createPlot, PLOT_HEIGHT_PX, plotData } from "./chartPlot";
import { useTheme } from "./theme";

interface ChartProps {
  feed: RunFeed;
  name: string;
  /** The name as far as the heading above does not say it. */
  title: string;
  range: StepRange | null;
  onZoom: (range: StepRange | null) => void;
}

const NO_SERIES: readonly Series[] = [];

export function Chart({ feed, name, title, range, onZoom }: ChartProps) {
  const view = useKey(feed, name);
  const series = view?.series ?? NO_SERIES;
  const [isLogY, setLogY] = useState(false);
  const columns = useMemo(() => plotColumns(series, isLogY), [series, isLogY]);
  const readout = useRef<HTMLSpanElement>(null);
  const totals = useMemo(() => totalsOf(series), [series]);
  const { last } = totals;
  return (
    <figure
      className="panel"
      aria-label={`${name}: ${formatPlural(totals.rawPoints, "raw point")}, last value ${formatValue(last?.last)}`}
      data-testid="chart"
      data-key={name}
      data-raw-points={view === undefined ? undefined : totals.rawPoints}
      data-drawn={totals.drawn}
      data-last-value={last?.last ?? ""}
      data-last-step={last?.stepLast ?? ""}
    >
      <figcaption className="panel-head">
        <span className="panel-title" title={name}>{title}</span>
        <span className="readout" ref={readout} aria-hidden="true" />
        <span className="last-value">{last === null ? "" : lastText(last)}</span>
        <button type="button" className="toggle" aria-pressed={isLogY} title="Logarithmic value axis" onClick={() => setLogY(!isLogY)}>
          log
        </button>
      </figcaption>
      {view === undefined ? (
        <div className="plot plot-waiting" style={{ height: PLOT_HEIGHT_PX }} />
      ) : (
        <Plot columns={columns} series={series} isLogY={isLogY} range={range} onZoom={onZoom} readout={readout} />
      )}
      <div className="panel-foot">
        {view !== undefined && (
          <>
            <span>
              {formatPlural(totals.rawPoints, "raw point")}, {formatCount(totals.drawn)} drawn
            </span>
            {totals.nanCount > 0 && <span className="warning">{formatCount(totals.nanCount)} NaN</span>}
            {totals.infCount > 0 && <span className="warning">{formatCount(totals.infCount)} infinite</span>}
            {columns.hidesNonPositive && <span>values ≤ 0 not on this axis</span>}
          </>
        )}
        {series.length > 1 && <Labels series={series} />}
      </div>
    </figure>
  );
}

function Labels({ series }: { series: readonly Series[] }) {
  return (
    <span className="labels">
      {series.map(({ label }, index) => (
        <span key={label} className={`label label-${index % 8}`}>{label === "" ? "no label" : label}</span>
      ))}
    </span>
  );
}

interface PlotProps {
  columns: PlotColumns;
  series: readonly Series[];
  isLogY: boolean;
  range: StepRange | null;
  onZoom: (range: StepRange | null) => void;
  readout: React.RefObject<HTMLSpanElement | null>;
}

function Plot({ columns, series, isLogY, range, onZoom, readout }: PlotProps) {
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const theme = useTheme();
  // What uPlot's callbacks read: they outlive the render they were made in.
  const latest = useRef({ columns, series, range, onZoom });
  const seriesCount = series.length;

  useLayoutEffect(() => {
    latest.current = { columns, series, range, onZoom };
    plot.current?.setData(plotData(columns));
  }, [columns, series, range, onZoom]);

  useEffect(() => {
    const target = frame.current;
    if (target === null) return;
    const created = createPlot(target, target.clientWidth, {
      seriesCount,
      isLogY,
      theme,
      columns: () => latest.current.columns,
      range: () => latest.current.range,
      onZoom: (zoomed) => latest.current.onZoom(zoomed),
      onHover: (index) => {
        if (readout.current === null) return;
        readout.current.textContent = index === null ? "" : readoutText(latest.current.series, latest.current.columns, index);
      },
    });
    plot.current = created;
    const resize = new ResizeObserver(() => {
      if (target.clientWidth !== created.width) created.setSize({ width: target.clientWidth, height: PLOT_HEIGHT_PX });
    });
    resize.observe(target);
    return () => {
      resize.disconnect();
      created.destroy();
      plot.current = null;
    };
  }, [seriesCount, isLogY, theme, readout]);

  return <div className="plot" ref={frame} style={{ height: PLOT_HEIGHT_PX }} />;
}

interface Totals {
  rawPoints: number;
  drawn: number;
  nanCount: number;
  infCount: number;
  /** The bucket of the latest point of all series. */
  last: Bucket | null;
}

function totalsOf(series: readonly Series[]): Totals {
  const totals: Totals = { rawPoints: 0, drawn: 0, nanCount: 0, infCount: 0, last: null };
  for (const { rawPoints, buckets } of series) {
    totals.rawPoints += rawPoints;
    totals.drawn += buckets.length;
    for (const { nanCount, infCount } of buckets) {
      totals.nanCount += nanCount;
      totals.infCount += infCount;
    }
    const last = buckets.at(-1);
    if (last !== undefined && (totals.last === null || last.stepLast >= totals.last.stepLast)) totals.last = last;
  }
  return totals;
}

function lastText({ last, nanCount }: Bucket): string {
  if (last !== null) return formatValue(last);
  return nanCount > 0 ? "NaN" : "∞";
}

/** What the crosshair points at: the step or steps, and of each series the mean, its spread and its count. */
function readoutText(series: readonly Series[], columns: PlotColumns, index: number): string {
  const found = series.flatMap(({ label }, place) => {
    const bucket = columns.buckets[place]?.[index];
    return bucket === undefined ? [] : [{ label, bucket }];
  });
  const first = found[0];
  if (first === undefined) return "";
  const { stepFirst, stepLast } = first.bucket;
  const steps = stepFirst === stepLast ? formatCount(stepFirst) : `${formatCount(stepFirst)}–${formatCount(stepLast)}`;
  return `${steps}: ${found.map(({ label, bucket }) => `${label === "" ? "" : `${label} `}${bucketText(bucket)}`).join(", ")}`;
}

function bucketText({ count, mean, min, max, nanCount, infCount }: Bucket): string {
  if (mean === null) return nanCount > 0 ? "NaN" : infCount > 0 ? "∞" : "–";
  if (count === 1) return formatValue(mean);
  return `${formatValue(mean, 4)} (${formatValue(min, 3)} … ${formatValue(max, 3)}, ${formatPlural(count, "point")})`;
}
