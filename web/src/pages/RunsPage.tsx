// One project: its runs, as they start, move and end.

import { useEffect, useMemo, useState } from "react";
import type { Door } from "../api";
import { FilterBox } from "../components/FilterBox";
import { ConnectionBanner, FirstRunLesson, ProblemNotice } from "../components/notices";
import { useNowUs } from "../components/now";
import { RunsTable } from "../components/RunsTable";
import { useRunsFeed } from "../feeds/hooks";
import { formatCount, formatPlural } from "../lib/numbers";
import type { ProjectPath } from "../lib/route";
import { commonSummaryNames, filterRuns, sortRuns, type RunOrder } from "../lib/runList";

const SUMMARY_COLUMNS = 4;

export function RunsPage({ door, path }: { door: Door; path: ProjectPath }) {
  const { feed, view } = useRunsFeed(door, path);
  const [filter, setFilter] = useState("");
  const [order, setOrder] = useState<RunOrder>({ column: "created", isDescending: true });
  const nowUs = useNowUs();
  useEffect(() => {
    document.title = `${path.project} · Runferry`;
  }, [path.project]);

  const { runs } = view;
  const summaryNames = useMemo(() => commonSummaryNames(runs ?? [], SUMMARY_COLUMNS), [runs]);
  const shown = useMemo(() => sortRuns(filterRuns(runs ?? [], filter), order, nowUs), [runs, filter, order, nowUs]);
  const running = (runs ?? []).filter((run) => run.state === "running").length;
  const isEmpty = runs !== null ? runs.length === 0 : view.problem?.kind === "missing";

  return (
    <main className="page page-wide">
      <ConnectionBanner connection={view.connection} />
      {view.problem?.kind === "refused" && <ProblemNotice problem={view.problem} />}
      <div className="title-row">
        <h1>{path.project}</h1>
        {runs !== null && (
          <p className="quiet" data-testid="runs-count">
            {formatPlural(view.total, "run")}
            {running > 0 && `, ${formatCount(running)} running`}
          </p>
        )}
        {runs !== null && runs.length > 0 && <FilterBox label="Filter runs" filter={filter} onFilter={setFilter} />}
      </div>
      {isEmpty && <FirstRunLesson title="No runs in this project yet" project={path.project} entity={path.entity} />}
      {runs !== null && runs.length > 0 && (
        <>
          <RunsTable runs={shown} summaryNames={summaryNames} order={order} onOrder={setOrder} nowUs={nowUs} />
          {shown.length === 0 && <p className="quiet none">No run matches “{filter}”.</p>}
          {view.hasMore && (
            <p className="more">
              <button type="button" onClick={() => feed.fetchMore()}>Load more</button>
              <span className="quiet">
                Filter and order apply to the newest {formatCount(runs.length)} of {formatPlural(view.total, "run")}.
              </span>
            </p>
          )}
        </>
      )}
    </main>
  );
}
