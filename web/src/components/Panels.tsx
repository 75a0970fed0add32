// All metrics of a run as panels under their group headings.
//
// A run may have thousands of metrics. Each has a place of fixed size on the page, but only those near the viewport are
// charts, and only they are fetched and followed; the rest are empty frames with a name that the browser's search finds.

import { useEffect, useMemo, useRef, useState } from "react";
import type { Door, Metric, StepRange } from "../api";
import type { RunFeed } from "../feeds/runFeed";
import { valueText } from "../lib/document";
import { groupByPrefix, matchesFilter, nameUnder } from "../lib/groups";
import { formatCount } from "../lib/numbers";
import { panelsOf, textMetricsOf } from "../lib/panels";
import type { RunPath } from "../lib/route";
import { Chart } from "./Chart";
import { HeatStrip } from "./HeatStrip";

interface PanelsProps {
  door: Door;
  path: RunPath;
  feed: RunFeed;
  metrics: readonly Metric[];
  filter: string;
  range: StepRange | null;
  onZoom: (range: StepRange | null) => void;
}

export function Panels({ door, path, feed, metrics, filter, range, onZoom }: PanelsProps) {
  const groups = useMemo(
    () => groupByPrefix(panelsOf(metrics).filter((panel) => matchesFilter(panel.name, filter))),
    [metrics, filter],
  );
  const texts = useMemo(() => textMetricsOf(metrics).filter((metric) => matchesFilter(metric.name, filter)), [metrics, filter]);
  return (
    <>
      {groups.map(({ prefix, items }) => (
        <section key={prefix} className="group" aria-label={prefix === "" ? "Metrics" : prefix}>
          {(prefix !== "" || groups.length > 1) && (
            <h2 className="group-title">
              {prefix === "" ? "Metrics" : prefix} <span className="quiet">{formatCount(items.length)}</span>
            </h2>
          )}
          <div className="grid">
            {items.map((panel) => (
              <LazyPanel key={`${panel.kind} ${panel.name}`} title={nameUnder(prefix, panel.name)}>
                {panel.kind === "chart" ? (
                  <Chart feed={feed} name={panel.name} title={nameUnder(prefix, panel.name)} range={range} onZoom={onZoom} />
                ) : (
                  <HeatStrip door={door} path={path} feed={feed} name={panel.name} title={nameUnder(prefix, panel.name)} range={range} />
                )}
              </LazyPanel>
            ))}
          </div>
        </section>
      ))}
      {texts.length > 0 && <TextMetrics metrics={texts} />}
      {groups.length === 0 && texts.length === 0 && metrics.length > 0 && <p className="quiet none">No metric matches “{filter}”.</p>}
    </>
  );
}

/** How far outside the viewport a chart is made ready, so that calm scrolling never meets an empty frame. */
const NEAR_PX = 400;

function LazyPanel({ title, children }: { title: string; children: React.ReactNode }) {
  const place = useRef<HTMLDivElement>(null);
  const [isNear, setNear] = useState(false);
  useEffect(() => {
    const target = place.current;
    if (target === null) return;
    const observer = new IntersectionObserver(
      (entries) => setNear(entries.some((entry) => entry.isIntersecting)),
      { rootMargin: `${NEAR_PX}px 0px` },
    );
    observer.observe(target);
    return () => observer.disconnect();
  }, []);
  return (
    <div className="place" ref={place}>
      {isNear ? children : <p className="panel-title quiet">{title}</p>}
    </div>
  );
}

/** What was logged but has no place on a value axis, with the last value. */
function TextMetrics({ metrics }: { metrics: readonly Metric[] }) {
  return (
    <section className="group" aria-label="Other values">
      <h2 className="group-title">
        Other values <span className="quiet">{formatCount(metrics.length)}</span>
      </h2>
      <div className="table-frame">
        <table className="table table-narrow">
          <thead>
            <tr>
              <th scope="col">Metric</th>
              <th scope="col">Kind</th>
              <th scope="col" className="number">Raw points</th>
              <th scope="col">Last</th>
            </tr>
          </thead>
          <tbody>
            {metrics.map((metric) => (
              <tr key={`${metric.name} ${metric.label} ${metric.kind}`}>
                <th scope="row">{metric.name}</th>
                <td className="quiet">{metric.kind}</td>
                <td className="number">{formatCount(metric.points)}</td>
                <td className="value">{valueText(metric.last)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
