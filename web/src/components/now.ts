// The time for "5 min ago" and running durations, the same for everything on the page, once a second.

import { useSyncExternalStore } from "react";

let nowUs = Date.now() * 1000;

function subscribe(listener: () => void): () => void {
  const timer = setInterval(() => {
    nowUs = Date.now() * 1000;
    listener();
  }, 1000);
  return () => clearInterval(timer);
}

export function useNowUs(): number {
  return useSyncExternalStore(subscribe, () => nowUs);
}
