"""The pages: sessions, one session with a window drawn over it, a search."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsmemory.checks import DEFAULT_USER
from tsmemory.engine.text import visible
from tsmemory.engine.urls import redact_url
from tsmemory.errors import InvalidInputError, MissingDependencyError, TSMemoryError
from tsmemory.model import Block, Message, ToolCall
from tsmemory.store import Store
from tsmemory.times import as_datetime
from tsmemory.web.figures import draw
from tsmemory.window import Window

try:
    import jinja2
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    from tsmemory.web.access import Access
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f'the page needs {error.name}; pip install "tsmemory[web]"'
    ) from error

__all__ = ["create_app"]

_HERE = Path(__file__).parent
_PAGE = 50  # sessions or hits per page
_TRANSCRIPT = 2_000  # messages of one session that the page reads, the newest
_FOLD = 1_500  # characters of a text before it is folded
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_SIZES = ("last", "step", "max_tokens")


def create_app(store: Store, *, token: str | None = None, name: str = "") -> Starlette:
    """An ASGI application that shows what `store` holds. It reads only.

    Args:
        store: stays its opener's to close.
        token: the one-time token of the link, ``/?token=…``; a random one by default.
        name: what the page calls the store; a URL's secrets are masked.

    Returns:
        A Starlette application; ``app.state.token`` is the token.
    """
    pages = _Pages(store, redact_url(name) if name else repr(store.backend))
    token = token or secrets.token_urlsafe(24)
    app = Starlette(
        routes=[
            Route("/", pages.sessions),
            Route("/session", pages.session),
            Route("/search", pages.search),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(Access, token=token)],
        exception_handlers={TSMemoryError: pages.failed},
    )
    app.state.token = token
    return app


class _Pages:
    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        loader = jinja2.FileSystemLoader(_HERE / "templates")
        self._templates = jinja2.Environment(
            loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
        )
        self._templates.filters.update(visible=visible, moment=_moment)
        self._templates.globals.update(store=name, fold=_FOLD, q="", user="")

    def _render(self, template: str, status: int = 200, **values: Any) -> Response:
        return HTMLResponse(self._templates.get_template(template).render(values), status)

    async def failed(self, request: Request, error: Exception) -> Response:
        """An error of the tree, as a page."""
        status = 400 if isinstance(error, InvalidInputError) else 502
        return self._render("error.html", status, error=f"{type(error).__name__}: {error}")

    async def sessions(self, request: Request) -> Response:
        """The sessions, the most recently active first."""
        params = request.query_params
        user = params.get("user", "")
        arguments: dict[str, Any] = {"limit": _PAGE, "cursor": params.get("cursor") or None}
        if user:
            arguments["user_id"] = user
        page = await self._store.alist_sessions(**arguments, on_error="skip")
        return self._render("sessions.html", page=page, user=user)

    async def session(self, request: Request) -> Response:
        """One session: its transcript, and a window drawn over it."""
        params = request.query_params
        user = params.get("user") or DEFAULT_USER
        chat = self._store.conversation(params.get("id", ""), user_id=user)
        session = await chat.asession()
        if session is None:
            return self._render("error.html", 404, error=f"no session {chat.session_id!r}")
        page = await chat.alist_messages(order="desc", limit=_TRANSCRIPT, on_error="skip")
        policy = _policy(params)
        return self._render(
            "session.html",
            session=session,
            drawn=draw(page.items[::-1], policy),
            older=max(0, session.message_count - len(page)),
            sizes={name: getattr(policy, name) for name in _SIZES},
            parts=_parts,
            arguments=_arguments,
        )

    async def search(self, request: Request) -> Response:
        """Messages that match a query."""
        params = request.query_params
        text, user = params.get("q", ""), params.get("user", "")
        arguments: dict[str, Any] = {"limit": _PAGE, "cursor": params.get("cursor") or None}
        if user:
            arguments["user_id"] = user
        page = None
        if text.strip():
            page = await self._store.asearch_messages(text, on_error="skip", **arguments)
        return self._render("search.html", page=page, q=text, user=user, marked=_marked)


def _moment(micros: int | None) -> str:
    """A time of the store (µs), for people: UTC, to the second."""
    moment = None if micros is None else as_datetime(micros)
    return str(micros) if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _policy(params: Mapping[str, str]) -> Window:
    sizes: dict[str, Any] = {"last": 20, "step": None}
    for name in _SIZES:
        text = params.get(name)
        if text is None:
            continue
        try:
            sizes[name] = int(text) if text.strip() else None
        except ValueError:
            raise InvalidInputError(f"{name} is a whole number, not {text!r}") from None
    return Window(**{name: size for name, size in sizes.items() if size is not None})


def _parts(message: Message) -> list[dict[str, str]]:
    """The content as the page shows it: texts, images as data, everything else by its kind."""
    if isinstance(message.content, str):
        return [{"kind": "text", "text": message.content}] if message.content else []
    return [_part(block) for block in message.content]


def _part(block: Block) -> dict[str, str]:
    for kind, name in (("text", "text"), ("reasoning", "reasoning"), ("text", "refusal")):
        if isinstance(block.get(name), str):
            return {"kind": kind, "text": block[name]}
    mime, data = block.get("mime_type"), block.get("base64")
    if block.get("type") == "image" and mime in _IMAGES and isinstance(data, str):
        return {"kind": "image", "text": f"data:{mime};base64,{data}"}
    words = [str(block[name]) for name in ("type", "mime_type", "url", "name") if block.get(name)]
    return {"kind": "other", "text": " ".join(words)}


def _arguments(call: ToolCall) -> str:
    if isinstance(call.arguments, str):
        return call.arguments
    return json.dumps(call.arguments, ensure_ascii=False, indent=2, default=str)


def _marked(snippet: str, spans: list[tuple[int, int]]) -> list[tuple[str, bool]]:
    """A snippet as runs of text: (text, whether it is a match)."""
    runs: list[tuple[str, bool]] = []
    done = 0
    for start, end in spans:
        runs += [(snippet[done:start], False), (snippet[start:end], True)]
        done = end
    return [run for run in (*runs, (snippet[done:], False)) if run[0]]
