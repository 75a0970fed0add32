// React's side of the feeds: one feed per page, started when it is shown and stopped when nobody looks.
//
// A hidden tab keeps its channel for half a minute and then lets go: browsers allow six connections to one address, so six
// forgotten tabs would otherwise block the seventh for good.

import { useCallback, useEffect, useMemo, useSyncExternalStore } from "react";
import type { Door } from "../api";
import type { ProjectPath, RunPath } from "../lib/route";
import type { KeyView, RunView } from "./runFeed";
import { RunFeed } from "./runFeed";
import type { RunsView } from "./runsFeed";
import { RunsFeed } from "./runsFeed";
import { browserTimers } from "./timers";

const HIDDEN_MS = 30_000;

export function useRunFeed(door: Door, { entity, project, id }: RunPath): { feed: RunFeed; view: RunView } {
  const feed = useMemo(() => new RunFeed(door, { entity, project, id }, browserTimers), [door, entity, project, id]);
  useWhileVisible(feed);
  return { feed, view: useSyncExternalStore(feed.subscribe, feed.current) };
}

export function useRunsFeed(door: Door, { entity, project }: ProjectPath): { feed: RunsFeed; view: RunsView } {
  const feed = useMemo(() => new RunsFeed(door, { entity, project }, browserTimers), [door, entity, project]);
  useWhileVisible(feed);
  return { feed, view: useSyncExternalStore(feed.subscribe, feed.current) };
}

/** A key of the run, kept up to date while the component that asks is mounted; undefined until its history is there. */
export function useKey(feed: RunFeed, key: string): KeyView | undefined {
  useEffect(() => feed.watch(key), [feed, key]);
  const subscribe = useCallback((listener: () => void) => feed.subscribeKey(key, listener), [feed, key]);
  return useSyncExternalStore(subscribe, () => feed.currentKey(key));
}

function useWhileVisible(feed: { start(): void; stop(): void }): void {
  useEffect(() => {
    let isRunning = true;
    let cancelStop: (() => void) | null = null;
    feed.start();
    const onVisibility = (): void => {
      cancelStop?.();
      cancelStop = null;
      if (document.hidden) {
        cancelStop = browserTimers.after(HIDDEN_MS, () => {
          isRunning = false;
          feed.stop();
        });
      } else if (!isRunning) {
        isRunning = true;
        feed.start();
      }
    };
    document.addEventListener("visibilitychange", onVisibility);
    return () => {
      document.removeEventListener("visibilitychange", onVisibility);
      cancelStop?.();
      feed.stop();
    };
  }, [feed]);
}
