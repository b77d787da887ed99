"""The server: pages, events as bytes, answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from attpc_filter import AttpcFilterError, UsageError
from attpc_filter_web.events import pad_corners, to_bytes
from attpc_filter_web.security import Guard
from attpc_filter_web.session import Session

_STATIC = Path(__file__).with_name("static")
_PAGES = ("label", "gallery", "compare", "clusters", "agreement", "trust")
_MOST_LISTED = 200
_LONGEST_TEXT = 2000


def make_app(session: Session, token: str = "") -> Starlette:
    """Make the server of a session.

    Parameters
    ----------
    session : Session
        Events, answers and what chooses.
    token : str
        Asked for with every request; empty for none.
    """
    files = {path.name: path for path in _STATIC.iterdir() if path.is_file()}

    def page(name: str) -> Route:
        async def show(request: Request) -> Response:
            return FileResponse(files[f"{name}.html"])

        return Route("/" if name == "label" else f"/{name}", show)

    async def static(request: Request) -> Response:
        path = files.get(request.path_params["name"])  # names of the package's files, no paths
        return PlainTextResponse("no such file\n", 404) if path is None else FileResponse(path)

    def get(path: str, act: Callable[[Request], Any]) -> Route:
        return Route(path, _endpoint(lambda request, _: act(request)), methods=["GET"])

    def post(path: str, act: Callable[[dict[str, Any]], Any]) -> Route:
        return Route(path, _endpoint(lambda _, body: act(body)), methods=["POST"])

    routes = [
        *(page(name) for name in _PAGES),
        Route("/static/{name}", static),
        get("/api/setup", lambda request: session.setup()),
        get(
            "/api/pads",
            lambda request: _pads(session),
        ),
        get("/api/events/{row:int}", lambda request: _event(session, request)),
        get("/api/events/{row:int}/scores", lambda request: session.scores(_row(session, request))),
        get(
            "/api/events/{row:int}/trace/{pad:int}",
            lambda request: session.reader.trace(
                _row(session, request), request.path_params["pad"]
            ),
        ),
        get(
            "/api/next",
            lambda request: session.next(
                _text(request.query_params, "labeller"),
                _text(request.query_params, "policy"),
                _text(request.query_params, "filter"),
            ),
        ),
        get("/api/history", lambda r: session.history(_text(r.query_params, "labeller"))),
        get("/api/list", lambda request: _list(session, request)),
        get("/api/compare", lambda request: session.comparison()),
        get("/api/clusters", lambda request: session.cluster_list()),
        get("/api/agreement", lambda request: session.agreement()),
        get("/api/trust", lambda request: session.trust()),
        get("/api/labels.csv", lambda request: _labels(session, request)),
        get("/api/sample.csv", lambda request: _table("sample.csv", session.trust_csv())),
        post("/api/answers", lambda body: _answer(session, body)),
        post("/api/undo", lambda body: session.undo(_text(body, "labeller"))),
        post("/api/trust", lambda body: session.draw_trust(_number(body, "per_tag"))),
        post(
            "/api/clusters",
            lambda body: session.name_cluster(_number(body, "cluster"), _text(body, "name")),
        ),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, token=token)])


def _endpoint(act: Callable[[Request, dict[str, Any]], Any]) -> Callable[[Request], Any]:
    """An endpoint that answers with JSON, and with one line where the request makes no sense."""

    async def answer(request: Request) -> Response:
        try:
            body: Any = {}
            if request.method == "POST":
                body = await request.json()
                if not isinstance(body, dict):
                    raise UsageError("the request is no JSON object")
            found = await run_in_threadpool(act, request, body)
        except (AttpcFilterError, json.JSONDecodeError, UnicodeDecodeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return found if isinstance(found, Response) else _json(found)

    return answer


def _json(content: Any) -> Response:
    """JSON; numbers that are not finite become null."""
    return Response(json.dumps(_finite(content)), media_type="application/json")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float | np.floating):
        return float(content) if np.isfinite(content) else None
    return content.item() if isinstance(content, np.generic) else content


def _bytes(content: bytes) -> Response:
    return Response(content, media_type="application/octet-stream")


def _pads(session: Session) -> Response:
    return _bytes(pad_corners(session.reader.detector).astype("<f4").tobytes())


def _row(session: Session, request: Request) -> int:
    row: int = request.path_params["row"]
    if not row < len(session.catalogue):
        raise UsageError(f"event {row}: there are {len(session.catalogue)}")
    return row


def _event(session: Session, request: Request) -> Response:
    row = _row(session, request)
    catalogue = session.catalogue
    about = {"row": row, "run": int(catalogue.run[row]), "event": int(catalogue.event[row])}
    return _bytes(to_bytes(session.reader.read(row), about))


def _list(session: Session, request: Request) -> dict[str, Any]:
    query = request.query_params
    offset, limit = _number(query, "offset", 0), _number(query, "limit", 24)
    return session.listed(_text(query, "filter"), max(offset, 0), min(max(limit, 1), _MOST_LISTED))


def _labels(session: Session, request: Request) -> Response:
    query = request.query_params
    return _table("labels.csv", session.labels_csv("unsure" in query, "by" in query))


def _table(name: str, text: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type="text/csv", headers=headers)


def _answer(session: Session, body: dict[str, Any]) -> dict[str, Any]:
    seconds = body.get("seconds", 0.0)
    if not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise UsageError("seconds: must be a number, 0 or more")
    row = _number(body, "row")
    if not 0 <= row < len(session.catalogue):
        raise UsageError(f"event {row}: there are {len(session.catalogue)}")
    return session.answer(
        labeller=_text(body, "labeller"),
        row=row,
        label=_text(body, "label"),
        note=_text(body, "note"),
        seconds=float(seconds),
        scores_shown=body.get("scores_shown") is True,
        policy=_text(body, "policy"),
        filter_text=_text(body, "filter"),
        corrects=_text(body, "corrects"),
        correction=body.get("correction") is True,
    )


def _text(entries: Any, name: str) -> str:
    text = entries.get(name) or ""
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise UsageError(f"{name}: must be a text of at most {_LONGEST_TEXT} letters")
    return text.strip()


def _number(entries: Any, name: str, default: int | None = None) -> int:
    value = entries.get(name, default)
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: must be a whole number") from error
