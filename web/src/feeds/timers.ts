// Waiting, as an argument: the feeds are given the clock they wait by, so their tests turn it by hand.

export interface Timers {
  /** Calls `action` once after `delayMs`, unless the returned function is called before. */
  after(delayMs: number, action: () => void): () => void;
}

export const browserTimers: Timers = {
  after(delayMs, action) {
    const timer = setTimeout(action, delayMs);
    return () => clearTimeout(timer);
  },
};

const RETRY_DELAYS_MS = [300, 700, 1_500, 3_000, 5_000] as const;

/** How long to wait before attempt `attempt` (1, 2, 3 …) to reach a server that went away. */
export function retryDelayMs(attempt: number): number {
  return RETRY_DELAYS_MS[Math.min(attempt, RETRY_DELAYS_MS.length) - 1] ?? RETRY_DELAYS_MS[0];
}

export type Connection = "connecting" | "live" | "lost";
