import { expect, it } from "vitest";
import { projectHref, routeOf, runHref } from "./route";

it("finds back from every address to what it was made of", () => {
  for (const text of ["digits", "a b", "50%", "ü/ß", "?#&", "<b>"]) {
    const path = { entity: text, project: text, id: text };

    expect(routeOf(runHref(path))).toEqual({ page: "run", path });
    expect(routeOf(projectHref(path))).toEqual({ page: "runs", path: { entity: text, project: text } });
  }
});

it.each(["/p/only-entity", "/runs/a/b", "/runs/a/b/c/d", "/elsewhere", "/p/%/x"])("knows no page at %s", (pathname) => {
  expect(routeOf(pathname)).toEqual({ page: "unknown" });
});

it("takes a slash at the end for the same address", () => {
  expect(routeOf("/p/acme/digits/")).toEqual({ page: "runs", path: { entity: "acme", project: "digits" } });
  expect(routeOf("/")).toEqual({ page: "projects" });
});
