// One run, while it trains and after.

import { useCallback, useEffect, useState } from "react";
import type { Door, StepRange } from "../api";
import { FilterBox } from "../components/FilterBox";
import { ConnectionBanner, FirstRunLesson, GapNotice, ProblemNotice } from "../components/notices";
import { Overview } from "../components/Overview";
import { Panels } from "../components/Panels";
import { RunHeader } from "../components/RunHeader";
import { useRunFeed } from "../feeds/hooks";
import { formatCount } from "../lib/numbers";
import type { RunPath } from "../lib/route";

type Tab = "charts" | "overview";

export function RunPage({ door, path }: { door: Door; path: RunPath }) {
  const { feed, view } = useRunFeed(door, path);
  const { run, metrics, range } = view;
  const [filter, setFilter] = useState("");
  const [tab, setTab] = useState<Tab>(() => (location.hash === "#overview" ? "overview" : "charts"));
  const zoom = useCallback((zoomed: StepRange | null) => feed.setRange(zoomed), [feed]);
  const name = run?.name ?? path.id;
  useEffect(() => {
    document.title = `${name} · ${path.project} · Runferry`;
  }, [name, path.project]);
  const choose = (chosen: Tab): void => {
    setTab(chosen);
    history.replaceState(null, "", chosen === "charts" ? location.pathname : `#${chosen}`);
  };

  return (
    <main className="page page-wide" data-testid="run-page" data-connection={view.connection}>
      <ConnectionBanner connection={view.connection} />
      {view.problem !== null && <ProblemNotice problem={view.problem} />}
      {run !== null && (
        <>
          <RunHeader run={run} connection={view.connection} />
          <GapNotice door={door} path={path} run={run} />
          <div className="toolbar">
            <div className="tabs" role="group" aria-label="View">
              <button type="button" aria-pressed={tab === "charts"} onClick={() => choose("charts")}>Charts</button>
              <button type="button" aria-pressed={tab === "overview"} onClick={() => choose("overview")}>Config, summary, writers</button>
            </div>
            {tab === "charts" && range !== null && (
              <button type="button" className="zoom" onClick={() => zoom(null)} data-testid="zoom">
                Steps {formatCount(range.minStep)}–{formatCount(range.maxStep)} <span aria-hidden="true">×</span>
                <span className="visually-hidden">Show all steps</span>
              </button>
            )}
            {tab === "charts" && <FilterBox label="Filter metrics" filter={filter} onFilter={setFilter} />}
          </div>
          {tab === "overview" && <Overview door={door} path={path} run={run} />}
          {tab === "charts" && metrics !== null && metrics.length > 0 && (
            <Panels door={door} path={path} feed={feed} metrics={metrics} filter={filter} range={range} onZoom={zoom} />
          )}
          {tab === "charts" && metrics?.length === 0 && (
            <FirstRunLesson title="Nothing logged in this run yet" project={path.project} entity={path.entity} />
          )}
        </>
      )}
    </main>
  );
}
