// A text filter: `/` jumps into it from anywhere on the page, Escape empties it.

import { useEffect, useRef } from "react";

export function FilterBox({ label, filter, onFilter }: { label: string; filter: string; onFilter: (filter: string) => void }) {
  const box = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const isTyping = event.target instanceof HTMLElement && event.target.matches("input, textarea, select");
      if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      box.current?.focus();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  return (
    <input
      ref={box}
      type="search"
      className="filter"
      aria-label={label}
      placeholder={`${label}  ( / )`}
      value={filter}
      spellCheck={false}
      onChange={(event) => onFilter(event.target.value)}
      onKeyDown={(event) => event.key === "Escape" && onFilter("")}
    />
  );
}
