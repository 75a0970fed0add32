// A run's inputs, outcomes and writers as tables.

import { useEffect, useMemo, useState } from "react";
import type { Door, Run, Writer } from "../api";
import { documentRows, type Json } from "../lib/document";
import { formatAge, formatCount, formatPlural } from "../lib/numbers";
import type { RunPath } from "../lib/route";
import { useNowUs } from "./now";
import { StateBadge } from "./StateBadge";

export function Overview({ door, path, run }: { door: Door; path: RunPath; run: Run }) {
  return (
    <div className="overview">
      <WritersTable door={door} path={path} run={run} />
      <DocumentTable title="Config" document={run.config} empty="This run was started without a config." />
      <DocumentTable title="Summary" document={run.summary} empty="Nothing has been logged yet." />
    </div>
  );
}

function DocumentTable({ title, document, empty }: { title: string; document: { readonly [name: string]: Json }; empty: string }) {
  const rows = useMemo(() => documentRows(document), [document]);
  return (
    <section aria-label={title}>
      <h2 className="group-title">
        {title} <span className="quiet">{formatCount(rows.length)}</span>
      </h2>
      {rows.length === 0 ? (
        <p className="quiet">{empty}</p>
      ) : (
        <div className="table-frame">
          <table className="table" aria-label={title}>
            <tbody>
              {rows.map(({ name, text, exact }) => (
                <tr key={name}>
                  <th scope="row">{name}</th>
                  <td className="value" title={exact}>{text}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

/** A writer is one start of one process: the place to see which of them is behind, gone, or was started twice. */
function WritersTable({ door, path, run }: { door: Door; path: RunPath; run: Run }) {
  const writers = useWriters(door, path, run);
  const nowUs = useNowUs();
  return (
    <section aria-label="Writers" className="overview-wide">
      <h2 className="group-title">
        Writers <span className="quiet">{formatCount(writers.length)}</span>
      </h2>
      <div className="table-frame">
        <table className="table" aria-label="Writers">
          <thead>
            <tr>
              <th scope="col">State</th>
              <th scope="col">Process</th>
              <th scope="col">Label</th>
              <th scope="col" className="number">Started</th>
              <th scope="col" className="number">Last seen</th>
              <th scope="col" className="number">Lag</th>
              <th scope="col" className="number">Backlog</th>
              <th scope="col" className="number">Duplicates dropped</th>
              <th scope="col" className="number">Gaps</th>
            </tr>
          </thead>
          <tbody>
            {writers.map((writer) => (
              <tr key={writer.writer_id}>
                <td><StateBadge state={writer.state} /></td>
                <th scope="row" title={`writer ${writer.writer_id}`}>{writer.host || "?"} · {writer.pid || "?"}</th>
                <td>{writer.label === "" ? "–" : writer.label}</td>
                <td className="number quiet">{writer.started_us === null ? "–" : formatAge(writer.started_us, nowUs)}</td>
                <td className="number quiet">{writer.last_seen_us === null ? "–" : formatAge(writer.last_seen_us, nowUs)}</td>
                <td className="number">{writer.lag_s === null ? "–" : `${writer.lag_s.toFixed(1)} s`}</td>
                <td className="number">{writer.backlog_frames === null ? "–" : formatPlural(writer.backlog_frames, "frame")}</td>
                <td className="number">{formatCount(writer.duplicates)}</td>
                <td className="number">{formatCount(writer.gaps.length)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** Fetched again when the channel told that the run moved on; a fetch under way is left to end, so at most one runs. */
function useWriters(door: Door, { entity, project, id }: RunPath, { rows, state, writers: count }: Run): readonly Writer[] {
  const [writers, setWriters] = useState<readonly Writer[]>([]);
  const [fetchedFor, setFetchedFor] = useState("");
  const wanted = `${rows} ${state} ${count}`;
  useEffect(() => {
    if (fetchedFor === wanted) return;
    const flight = new AbortController();
    const timer = setTimeout(() => {
      door.writers({ entity, project, id }, flight.signal).then(
        (found) => {
          setWriters(found);
          setFetchedFor(wanted);
        },
        () => undefined, // The page's feed reports a server that is away.
      );
    }, fetchedFor === "" ? 0 : 1000);
    return () => {
      clearTimeout(timer);
      flight.abort();
    };
  }, [door, entity, project, id, wanted, fetchedFor]);
  return writers;
}
