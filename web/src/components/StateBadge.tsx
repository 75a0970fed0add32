// The state of a run or writer, as colour, shape and word: never as colour alone.

const MEANING: Readonly<Record<string, string>> = {
  running: "records are arriving",
  finished: "ended with exit code 0",
  failed: "ended with an error, or its process died",
  died: "its process ended without finish(); what it had logged is here",
  quiet: "not heard of for a minute",
  lost: "not heard of for long: its network is down, or its process died. Heard of again it runs; what it left behind can be synced",
};

export function StateBadge({ state }: { state: string }) {
  return (
    <span className={`state state-${state}`} title={MEANING[state]} data-state={state}>
      <span className="dot" aria-hidden="true" />
      {state}
    </span>
  );
}
