"""Pages for people: the dashboard's files, and a list of the routes made from the OpenAPI schema.

Everything comes from this server: a machine without internet sees the same as any other.

# Dashboard
Built files lie in `server/static`. A path that is no file and not under `/api` is a page inside the dashboard, so it gets
`index.html`. Files under `assets/` carry a hash in their names and may be kept for ever; the rest is asked for again.
"""

from __future__ import annotations

import base64
import hashlib
import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, HTMLResponse

from runferry.server.http.answers import SECURITY_HEADERS, ApiError, json_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastapi import FastAPI

STATIC = Path(__file__).parent.parent / "static"
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}"
    "code{font-family:ui-monospace,monospace}h2{font-size:1rem;margin:1.5rem 0 .2rem}td,th{text-align:left;padding:.1rem 1rem .1rem 0;"
    "vertical-align:top;font-weight:normal}p{margin:.2rem 0}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode("ascii")
_POLICY = SECURITY_HEADERS["content-security-policy"].replace("style-src 'self'", f"style-src 'self' 'sha256-{_STYLE_HASH}'")


def page_routes(app: FastAPI, static: Path = STATIC) -> APIRouter:
    """The routes; they must be added last, since the dashboard takes every path that is left."""
    router = APIRouter(include_in_schema=False)
    root = static.resolve()

    @router.get("/api/v1/openapi.json")
    async def schema() -> Response:
        return json_answer(app.openapi())

    @router.get("/api/docs")
    async def docs() -> Response:
        return _page("Runferry read door", "".join(_described(app.openapi())))

    @router.api_route("/api/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
    async def unknown(path: str) -> Response:
        raise ApiError(404, "not_found", f"there is no /api/{path}; /api/docs lists what there is")

    @router.api_route("/{path:path}", methods=["GET", "HEAD"])
    def dashboard(path: str) -> Response:
        file = _file(root, path)
        if file is not None:
            is_hashed = path.startswith("assets/")
            caching = "public, max-age=31536000, immutable" if is_hashed else "no-cache"
            return FileResponse(file, headers={"cache-control": caching})
        if path.startswith("assets/"):
            raise ApiError(404, "not_found", f"there is no /{path}")
        index = root / "index.html"
        if index.is_file():
            return FileResponse(index, headers={"cache-control": "no-cache"})
        return _page("Runferry", '<p>The dashboard is not built on this server. The data is here: see <a href="/api/docs">the API</a>.</p>')

    return router


def _file(root: Path, path: str) -> Path | None:
    if not path or "\x00" in path:
        return None
    found = (root / path).resolve()
    return found if found.is_relative_to(root) and found.is_file() else None


def _page(title: str, body: str) -> HTMLResponse:
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>'
    )
    return HTMLResponse(text, headers={"content-security-policy": _POLICY, "cache-control": "no-cache"})


def _described(schema: Mapping[str, Any]) -> Iterator[str]:
    yield '<p>JSON under <code>/api/v1</code>. Machine-readable: <a href="/api/v1/openapi.json">openapi.json</a>.</p>'
    for path, operations in schema.get("paths", {}).items():
        for method, operation in operations.items():
            yield f"<h2><code>{html.escape(method.upper())} {html.escape(path)}</code></h2>"
            yield f"<p>{html.escape(operation.get('summary', ''))}</p>"
            yield "<table>" + "".join(_parameter(item) for item in operation.get("parameters", ())) + "</table>"
            answer = operation.get("responses", {}).get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if "$ref" in answer:
                name = answer["$ref"].rsplit("/", 1)[-1]
                fields = schema["components"]["schemas"][name].get("properties", {})
                yield f"<p>Answers <code>{html.escape(name)}</code>: {html.escape(', '.join(fields))}.</p>"


def _parameter(parameter: Mapping[str, Any]) -> str:
    name = html.escape(str(parameter.get("name")))
    default = parameter.get("schema", {}).get("default")
    shown = f"default {default}" if default is not None else ("required" if parameter.get("required") else "optional")
    words = html.escape(str(parameter.get("description") or ""))
    return f"<tr><th><code>{name}</code></th><td>{html.escape(shown)}</td><td>{words}</td></tr>"
