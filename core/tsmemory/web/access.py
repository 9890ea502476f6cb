"""Who may look: the link that works once, the cookie behind it, and the headers of every answer.

The page shows private conversations, on a machine where other users' programs and any web site
open in the browser can send requests to loopback. So every request needs

1. a ``Host`` that is loopback: a site whose name was rebound to 127.0.0.1 sends its own name;
2. the cookie, which only the one-time link gives (``SameSite=Strict``, ``HttpOnly``), compared in
   constant time;

and every answer forbids scripts, frames and loads from elsewhere.
"""

from __future__ import annotations

import secrets
from http.cookies import SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Access"]

COOKIE = "tsmemory"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Access:
    """ASGI middleware: lets in who opened the link, nobody else.

    Args:
        token: what the link carries; used up by the first request that brings it.
    """

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self._app = app
        self._token: str | None = token
        self._session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        answer = self._answer(scope)
        await (answer or self._app)(scope, receive, send_guarded)

    def _answer(self, scope: Scope) -> ASGIApp | None:
        """What to say instead of the page; None lets the request through."""
        headers = Headers(scope=scope)
        host = headers.get("host", "").rsplit(":", 1)[0]
        if host not in _LOOPBACK:
            return PlainTextResponse("not this host", 421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("this page only reads", 405)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if self._redeem(query.pop("token", "")):
            rest = f"?{urlencode(query)}" if query else ""
            response = RedirectResponse(scope["path"] + rest, 303)
            response.set_cookie(COOKIE, self._session, httponly=True, samesite="strict")
            return response
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        if cookie is None or not secrets.compare_digest(
            cookie.value.encode(), self._session.encode()
        ):
            return PlainTextResponse(
                "open the link that `tsmemory web` printed; it works once. Start it again for a "
                "new one.",
                403,
            )
        return None

    def _redeem(self, given: str) -> bool:
        token = self._token
        if token is None or not secrets.compare_digest(given.encode(), token.encode()):
            return False
        self._token = None
        return True
