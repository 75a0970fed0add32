// All projects of the server, the last active first.

import { useEffect, useState } from "react";
import type { Door, Project } from "../api";
import { ApiError } from "../api";
import { ConnectionBanner, FirstRunLesson, ProblemNotice } from "../components/notices";
import { useNowUs } from "../components/now";
import { browserTimers, retryDelayMs } from "../feeds/timers";
import { formatAge, formatCount } from "../lib/numbers";
import { projectHref } from "../lib/route";
import { Link } from "../router";

export function ProjectsPage({ door }: { door: Door }) {
  const { projects, problem } = useProjects(door);
  const nowUs = useNowUs();
  useEffect(() => {
    document.title = "Runferry";
  }, []);
  return (
    <main className="page">
      <ConnectionBanner connection={problem?.kind === "unreachable" ? "lost" : "live"} />
      {problem !== null && problem.kind !== "unreachable" && <ProblemNotice problem={problem} />}
      <h1>Projects</h1>
      {projects?.length === 0 && <FirstRunLesson title="No runs on this server yet" project="my-project" entity={null} />}
      {projects !== null && projects.length > 0 && (
        <div className="table-frame">
          <table className="table table-narrow">
            <thead>
              <tr>
                <th scope="col">Project</th>
                <th scope="col">Entity</th>
                <th scope="col" className="number">Runs</th>
                <th scope="col">Last active</th>
              </tr>
            </thead>
            <tbody>
              {projects.map((project) => (
                <tr key={projectHref(project)}>
                  <th scope="row">
                    <Link href={projectHref(project)}>{project.project}</Link>
                  </th>
                  <td className="quiet">{project.entity}</td>
                  <td className="number">{formatCount(project.runs)}</td>
                  <td className="quiet">{project.last_active_us === null ? "–" : formatAge(project.last_active_us, nowUs)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </main>
  );
}

/** Fetched when shown and whenever the reader comes back to the tab; again and again while the server is away. */
function useProjects(door: Door): { projects: readonly Project[] | null; problem: ApiError | null } {
  const [projects, setProjects] = useState<readonly Project[] | null>(null);
  const [problem, setProblem] = useState<ApiError | null>(null);
  useEffect(() => {
    let flight = new AbortController();
    let attempts = 0;
    let cancelRetry = (): void => undefined;
    const load = (): void => {
      cancelRetry();
      flight.abort();
      flight = new AbortController();
      const { signal } = flight;
      door.projects(signal).then(
        (found) => {
          attempts = 0;
          setProjects(found.toSorted((a, b) => (b.last_active_us ?? 0) - (a.last_active_us ?? 0)));
          setProblem(null);
        },
        (error: unknown) => {
          if (signal.aborted) return;
          const failed = error instanceof ApiError ? error : new ApiError("refused", String(error));
          setProblem(failed);
          attempts += 1;
          if (failed.kind === "unreachable") cancelRetry = browserTimers.after(retryDelayMs(attempts), load);
        },
      );
    };
    load();
    addEventListener("focus", load);
    return () => {
      removeEventListener("focus", load);
      cancelRetry();
      flight.abort();
    };
  }, [door]);
  return { projects, problem };
}
