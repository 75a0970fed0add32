// Runs as rows: state, name, when, how long, how much, and the summary values that most of them share.
//
// A plain table with links in its first column: arrow keys, screen readers and "open in new tab" work as everywhere. Sorting
// is by buttons in the column headings, and `aria-sort` says which one is active.

import type { ReactNode } from "react";
import type { Run } from "../api";
import { valueText } from "../lib/document";
import { formatAge, formatCount, formatDuration, formatTime } from "../lib/numbers";
import { runHref } from "../lib/route";
import { durationUs, type RunColumn, type RunOrder } from "../lib/runList";
import { Link } from "../router";
import { StateBadge } from "./StateBadge";

interface RunsTableProps {
  runs: readonly Run[];
  summaryNames: readonly string[];
  order: RunOrder;
  onOrder: (order: RunOrder) => void;
  nowUs: number;
}

export function RunsTable({ runs, summaryNames, order, onOrder, nowUs }: RunsTableProps) {
  const heading = { order, onOrder };
  return (
    <div className="table-frame">
      <table className="table" data-testid="runs">
        <thead>
          <tr>
            <Heading column="state" {...heading}>State</Heading>
            <Heading column="name" {...heading}>Run</Heading>
            <Heading column="created" isNumber {...heading}>Started</Heading>
            <Heading column="duration" isNumber {...heading}>Duration</Heading>
            <Heading column="last_step" isNumber {...heading}>Last step</Heading>
            <Heading column="points" isNumber {...heading}>Points</Heading>
            {summaryNames.map((name) => (
              <Heading key={name} column={`summary:${name}`} isNumber {...heading}>{name}</Heading>
            ))}
            <Heading column="host" {...heading}>Host</Heading>
          </tr>
        </thead>
        <tbody>
          {runs.map((run) => (
            <RunRow key={run.id} run={run} summaryNames={summaryNames} nowUs={nowUs} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function RunRow({ run, summaryNames, nowUs }: { run: Run; summaryNames: readonly string[]; nowUs: number }) {
  return (
    <tr data-run-id={run.id}>
      <td>
        <StateBadge state={run.state} />
      </td>
      <th scope="row" className="run-name">
        <Link href={runHref(run)}>{run.name ?? run.id}</Link>
        {run.group !== null && run.group !== "" && <span className="tag tag-group">{run.group}</span>}
        {run.tags.map((tag) => (
          <span key={tag} className="tag">{tag}</span>
        ))}
        {run.gaps > 0 && <span className="tag tag-gaps">{formatCount(run.gaps)} gaps</span>}
      </th>
      <td className="number quiet" title={formatTime(run.created_at_us)}>{formatAge(run.created_at_us, nowUs)}</td>
      <td className="number">{formatDuration(durationUs(run, nowUs))}</td>
      <td className="number">{run.last_step === null ? "–" : formatCount(run.last_step)}</td>
      <td className="number">{formatCount(run.points)}</td>
      {summaryNames.map((name) => (
        <td key={name} className="number">{valueText(run.summary[name])}</td>
      ))}
      <td className="quiet">{run.host || "–"}</td>
    </tr>
  );
}

interface HeadingProps {
  column: RunColumn;
  order: RunOrder;
  onOrder: (order: RunOrder) => void;
  isNumber?: boolean;
  children: ReactNode;
}

function Heading({ column, order, onOrder, isNumber = false, children }: HeadingProps) {
  const isActive = order.column === column;
  // The first click on a number shows the largest first, on a word the first in the alphabet.
  const next = { column, isDescending: isActive ? !order.isDescending : isNumber };
  return (
    <th
      scope="col"
      className={isNumber ? "number" : undefined}
      aria-sort={isActive ? (order.isDescending ? "descending" : "ascending") : undefined}
    >
      <button type="button" className="sort" onClick={() => onOrder(next)}>
        {children}
        <span className="sort-mark" aria-hidden="true">{isActive ? (order.isDescending ? "↓" : "↑") : ""}</span>
      </button>
    </th>
  );
}
