// Colours for what is drawn on a canvas, read from the style sheet, which is the one place that names them.

import { useSyncExternalStore } from "react";
import type { Colour } from "../lib/heat";

export interface Theme {
  readonly ink: string;
  readonly quiet: string;
  readonly grid: string;
  readonly warning: string;
  readonly series: readonly string[];
  readonly heat: readonly Colour[];
}

const SERIES_COLOURS = 8;
const HEAT_STOPS = 5;
const DARK = matchMedia("(prefers-color-scheme: dark)");
let theme: Theme | null = null;

/** The same object until the reader's system changes between light and dark. */
export function useTheme(): Theme {
  return useSyncExternalStore(subscribe, () => (theme ??= readTheme()));
}

function subscribe(listener: () => void): () => void {
  const onChange = (): void => {
    theme = null;
    listener();
  };
  DARK.addEventListener("change", onChange);
  return () => DARK.removeEventListener("change", onChange);
}

function readTheme(): Theme {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string): string => style.getPropertyValue(name).trim();
  return {
    ink: read("--ink"),
    quiet: read("--quiet"),
    grid: read("--grid"),
    warning: read("--warning"),
    series: Array.from({ length: SERIES_COLOURS }, (_, index) => read(`--series-${index}`)),
    heat: Array.from({ length: HEAT_STOPS }, (_, index) => parseColour(read(`--heat-${index}`))),
  };
}

/** Of "15 92 115". */
function parseColour(text: string): Colour {
  const [red = 0, green = 0, blue = 0] = text.split(/\s+/).map(Number);
  return [red, green, blue];
}
