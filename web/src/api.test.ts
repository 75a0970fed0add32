// A rule of the source, not of its behaviour: one file talks to the server.

import { expect, it } from "vitest";

const sources = import.meta.glob<string>(["./**/*.{ts,tsx}", "!./**/*.test.ts"], { query: "?raw", import: "default", eager: true });

it("makes requests in api.ts alone", () => {
  const talking = Object.entries(sources).filter(([, source]) => /\bfetch\(|\bEventSource\(|XMLHttpRequest|WebSocket|sendBeacon/.test(source));

  expect(talking.map(([file]) => file)).toEqual(["./api.ts"]);
});
