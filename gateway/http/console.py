"""The console's page at /console: files of this package, served as they are. They hold no data and ask for no key."""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from gateway import __version__
from gateway.call import dump
from gateway.http.service import Service

FOLDER = Path(__file__).parent.parent / "console"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# Nothing but this gateway's own files and API, no script in the page itself, and no text that a browser may take for
# markup (`trusted-types`): what a message says can never become more than text.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}


async def page(request: Request) -> Response:
    """The page."""
    return _file("index.html")


async def file(request: Request) -> Response:
    """A file that the page loads; 404 for any other."""
    return _file(request.path_params["name"])


async def slashed(request: Request) -> Response:
    """The page's addresses are relative, so that it can be served below a path; with a slash they would be wrong."""
    return RedirectResponse("../console", 308)


async def about(request: Request) -> Response:
    """What the page must know before it asks for a key: whether one is needed."""
    service: Service = request.app.state.service
    said = {"version": __version__, "key": service.ring.asks}
    return Response(dump(said), media_type="application/json", headers=HEADERS)


def _file(name: str) -> Response:
    path = FOLDER / name
    if path.parent != FOLDER or path.suffix not in TYPES or not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, headers=HEADERS, media_type=TYPES[path.suffix])


CONSOLE = (
    Route("/console", page, methods=["GET"]),
    Route("/console/", slashed, methods=["GET"]),
    Route("/console/about.json", about, methods=["GET"]),
    Route("/console/{name}", file, methods=["GET"]),
)
