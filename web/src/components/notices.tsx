// What a page says instead of, or above, its content: nothing yet, connection lost, not there, gaps in the record.

import { useEffect, useState } from "react";
import type { ApiError, Door, Gap, Run, Writer } from "../api";
import type { Connection } from "../feeds/timers";
import type { RunPath } from "../lib/route";
import { formatPlural } from "../lib/numbers";

/** Stays in the page while empty, so that screen readers hear its text when it comes. */
export function ConnectionBanner({ connection }: { connection: Connection }) {
  return (
    <div role="status" className="banner-place">
      {connection === "lost" && (
        <div className="banner banner-lost" data-testid="connection-lost">
          Connection lost, retrying. What you see is the last that arrived.
        </div>
      )}
    </div>
  );
}

export function ProblemNotice({ problem }: { problem: ApiError }) {
  return (
    <div role="alert" className="notice">
      <h2>{problem.kind === "missing" ? "Not here yet" : "The server refused this request"}</h2>
      <p>{problem.message}</p>
      {problem.kind === "missing" && (
        <p className="quiet">If the run has just started, it appears here by itself as soon as its first record arrives.</p>
      )}
    </div>
  );
}

/** The three lines that make a run appear where the reader looks. */
export function FirstRunLesson({ title, project, entity }: { title: string; project: string; entity: string | null }) {
  const where = entity === null ? `project=${JSON.stringify(project)}` : `entity=${JSON.stringify(entity)}, project=${JSON.stringify(project)}`;
  return (
    <section className="lesson" data-testid="empty">
      <h2>{title}</h2>
      <p>Start the training with this server&rsquo;s address, and log from Python. The page follows by itself.</p>
      <pre>
        <code>
          <span className="shell">$ export RUNFERRY_BASE_URL={location.origin}</span>
          {"\n\n"}import runferry{"\n"}
          {`run = runferry.init(${where})`}
          {"\n"}
          {'run.log({"loss": 0.25})'}
        </code>
      </pre>
    </section>
  );
}

/** Gaps are the only legal form of loss, so they are told before anything is drawn. Details come from the writers. */
export function GapNotice({ door, path, run }: { door: Door; path: RunPath; run: Run }) {
  const writers = useWriters(door, path, run.gaps);
  if (run.gaps === 0) return null;
  const gaps = (writers ?? []).flatMap((writer) => writer.gaps);
  return (
    <div role="note" className="notice notice-gaps" data-testid="gaps">
      <strong>{formatPlural(run.gaps, "gap")}</strong> in what the training process recorded: charts below do not contain these rows.
      {gaps.length > 0 && (
        <ul>
          {gapSums(gaps).map(({ reason, rows, numbers, detail }) => (
            <li key={reason}>
              <code>{reason}</code> {rows > 0 ? `${formatPlural(rows, "row")} lost or thinned` : `${formatPlural(numbers, "frame")} lost`}
              {detail !== "" && <span className="quiet"> ({detail})</span>}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function useWriters(door: Door, { entity, project, id }: RunPath, gaps: number): readonly Writer[] | null {
  const [writers, setWriters] = useState<readonly Writer[] | null>(null);
  useEffect(() => {
    if (gaps === 0) return;
    const flight = new AbortController();
    door
      .writers({ entity, project, id }, flight.signal)
      .then(setWriters)
      .catch(() => undefined); // The count is shown already; the details come with the next change.
    return () => flight.abort();
  }, [door, entity, project, id, gaps]);
  return writers;
}

function gapSums(gaps: readonly Gap[]): { reason: string; rows: number; numbers: number; detail: string }[] {
  const sums = new Map<string, { reason: string; rows: number; numbers: number; detail: string }>();
  for (const { reason, rows, count, detail } of gaps) {
    const sum = sums.get(reason) ?? { reason, rows: 0, numbers: 0, detail: "" };
    sums.set(reason, { reason, rows: sum.rows + (rows ?? 0), numbers: sum.numbers + count, detail: detail ?? sum.detail });
  }
  return [...sums.values()];
}
