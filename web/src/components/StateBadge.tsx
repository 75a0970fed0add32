// The state of a run or writer, as colour, shape and word: never as colour alone.

const MEANING: Readonly<Record<string, string>> = {
  running: "records are arriving",
  finished: "ended with exit code 0",
  failed: "ended with an error",
  quiet: "still open, but nothing has arrived for a while",
  lost: "its process ended without a last word; what it left behind can still be synced",
};

export function StateBadge({ state }: { state: string }) {
  return (
    <span className={`state state-${state}`} title={MEANING[state]} data-state={state}>
      <span className="dot" aria-hidden="true" />
      {state}
    </span>
  );
}
