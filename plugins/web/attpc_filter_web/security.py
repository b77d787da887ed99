"""Who may ask, and what a page may do."""

import hmac
from http.cookies import SimpleCookie
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: A page's own scripts send it with every change; pages of other sites cannot.
CHANGE_HEADER = "x-attpc-filter"
_COOKIE = "attpc_filter_token"
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Refuses what does not come from the pages' own browser, and sets the headers.

    * Without a token only requests to a name of this machine are answered, so that a foreign page
      cannot reach the server by a name of its own (DNS rebinding).
    * With a token a request needs it: once in the address, then in a cookie.
    * Requests that change something need a header that pages of other sites cannot send.

    Parameters
    ----------
    app : ASGIApp
        The server.
    token : str
        Empty for none.
    """

    def __init__(self, app: ASGIApp, token: str = "") -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if isinstance(refusal, str):
            await PlainTextResponse(refusal, 403)(scope, receive, send_with_headers)
        elif refusal is not None:
            await refusal(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> str | RedirectResponse | None:
        if self._token:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if given and self._is_token(given):
                response = RedirectResponse(scope["path"], 303)
                response.set_cookie(_COOKIE, given, httponly=True, samesite="strict")
                return response
            cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
            if cookie is None or not self._is_token(cookie.value):
                return "Open the address that the terminal shows: it has a token.\n"
        elif headers.get("host", "").rsplit(":", 1)[0].lower() not in _LOCAL_NAMES:
            return "This server answers to localhost only.\n"
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if CHANGE_HEADER not in headers or headers.get("sec-fetch-site") not in (
                None,
                "same-origin",
            ):
                return "Only the pages of this server may change something.\n"
            if origin is not None and origin.partition("://")[2] != headers.get("host", ""):
                return "Only the pages of this server may change something.\n"
        return None

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._token.encode())
