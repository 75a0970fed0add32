// Addresses of the page, both ways: the path in the browser's bar to what is shown, and back.
//
// The client library prints `/runs/{entity}/{project}/{id}` when a run starts, so these addresses are public and stay as
// they are. Segments are percent-encoded one by one: a project may be called `a b` or `50%`.

export interface ProjectPath {
  readonly entity: string;
  readonly project: string;
}

export interface RunPath extends ProjectPath {
  readonly id: string;
}

export type Route =
  | { readonly page: "projects" }
  | { readonly page: "runs"; readonly path: ProjectPath }
  | { readonly page: "run"; readonly path: RunPath }
  | { readonly page: "unknown" };

export function routeOf(pathname: string): Route {
  const segments = decodeSegments(pathname);
  if (segments === null) return { page: "unknown" };
  const [head, entity, project, id] = segments;
  if (segments.length === 0) return { page: "projects" };
  if (head === "p" && segments.length === 3 && entity && project) return { page: "runs", path: { entity, project } };
  if (head === "runs" && segments.length === 4 && entity && project && id) return { page: "run", path: { entity, project, id } };
  return { page: "unknown" };
}

/** Null for an address that is no valid percent-encoding, as `/p/%/x`. */
function decodeSegments(pathname: string): string[] | null {
  try {
    return pathname.split("/").filter((segment) => segment !== "").map(decodeURIComponent);
  } catch {
    return null;
  }
}

export function projectHref({ entity, project }: ProjectPath): string {
  return `/p/${encodeURIComponent(entity)}/${encodeURIComponent(project)}`;
}

export function runHref({ entity, project, id }: RunPath): string {
  return `/runs/${encodeURIComponent(entity)}/${encodeURIComponent(project)}/${encodeURIComponent(id)}`;
}
