// The head of a run's page: what it is called, how it stands, and the handful of facts one looks for first.

import type { Run } from "../api";
import type { Connection } from "../feeds/timers";
import { formatAge, formatCount, formatDuration, formatTime } from "../lib/numbers";
import { durationUs } from "../lib/runList";
import { useNowUs } from "./now";
import { StateBadge } from "./StateBadge";

export function RunHeader({ run, connection }: { run: Run; connection: Connection }) {
  const nowUs = useNowUs();
  return (
    <header className="run-head" data-testid="run-header" data-state={run.state}>
      <div className="title-row">
        <StateBadge state={run.state} />
        <h1>{run.name ?? run.id}</h1>
        {run.group !== null && run.group !== "" && <span className="tag tag-group">{run.group}</span>}
        {run.job_type !== null && run.job_type !== "" && <span className="tag">{run.job_type}</span>}
        {run.tags.map((tag) => (
          <span key={tag} className="tag">{tag}</span>
        ))}
        <span className={`link link-${connection}`} title="The push channel that moves this page">
          {connection === "live" ? "live" : connection}
        </span>
      </div>
      {run.notes !== null && run.notes !== "" && <p className="notes">{run.notes}</p>}
      <dl className="facts">
        <Fact name="Started" value={formatAge(run.created_at_us, nowUs)} title={formatTime(run.created_at_us)} />
        <Fact name="Duration" value={formatDuration(durationUs(run, nowUs))} />
        <Fact name="Last step" value={run.last_step === null ? "–" : formatCount(run.last_step)} />
        <Fact name="Rows" value={formatCount(run.rows)} />
        <Fact name="Points" value={formatCount(run.points)} />
        <Fact name="Host" value={run.host || "–"} />
        <Fact name="Writers" value={formatCount(run.writers)} />
        {run.exit_code !== null && <Fact name="Exit code" value={String(run.exit_code)} />}
      </dl>
    </header>
  );
}

function Fact({ name, value, title }: { name: string; value: string; title?: string }) {
  return (
    <div className="fact" title={title}>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
