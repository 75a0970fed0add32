// The frame around every page, and which page an address shows.

import { useSyncExternalStore } from "react";
import { httpDoor, keyWanted } from "./api";
import { Login } from "./components/Login";
import { projectHref, routeOf, type Route } from "./lib/route";
import { ProjectsPage } from "./pages/ProjectsPage";
import { RunPage } from "./pages/RunPage";
import { RunsPage } from "./pages/RunsPage";
import { Link, usePathname } from "./router";

export function App() {
  const route = routeOf(usePathname());
  const isKeyWanted = useSyncExternalStore(keyWanted.watch, keyWanted.isWanted);
  return (
    <>
      <header className="topbar">
        <nav aria-label="Where you are">
          <Crumbs route={route} />
        </nav>
        <a className="quiet" href="/api/docs">
          API
        </a>
      </header>
      {isKeyWanted ? <Login /> : <Page route={route} />}
    </>
  );
}

function Crumbs({ route }: { route: Route }) {
  return (
    <ol className="crumbs">
      <li>
        <Link className="brand" href="/">
          <Mark /> Runferry
        </Link>
      </li>
      {(route.page === "runs" || route.page === "run") && (
        <li>
          <Link href={projectHref(route.path)} aria-current={route.page === "runs" ? "page" : undefined}>
            <span className="quiet">{route.path.entity} / </span>
            {route.path.project}
          </Link>
        </li>
      )}
      {route.page === "run" && (
        <li aria-current="page" className="mono">
          {route.path.id}
        </li>
      )}
    </ol>
  );
}

function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
      <path d="M3 18c4 0 5-11 10-11s6 10 10 10 4-4 6-4" />
      <path d="M3 26h26" className="water" />
    </svg>
  );
}

/** The key starts a page afresh when its address changes: no filter or zoom leaks from one run into the next. */
function Page({ route }: { route: Route }) {
  switch (route.page) {
    case "projects":
      return <ProjectsPage door={httpDoor} />;
    case "runs":
      return <RunsPage key={projectHref(route.path)} door={httpDoor} path={route.path} />;
    case "run":
      return <RunPage key={JSON.stringify(route.path)} door={httpDoor} path={route.path} />;
    case "unknown":
      return (
        <main className="page">
          <h1>Nothing here</h1>
          <p className="lead">
            This address names no project and no run. <Link href="/">All projects</Link>
          </p>
        </main>
      );
  }
}
