"""What a search gives: hits with their snippets. See `Store.search_messages`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from tsmemory.engine.search import Kind, Query, spans
from tsmemory.model import Message, MessageList, Session

__all__ = ["Kind", "Match", "SearchHit", "SearchOrder", "SessionHit", "excerpt"]

SearchOrder: TypeAlias = Literal["recent", "relevance"]
Match: TypeAlias = Literal["all", "any"]

_SNIPPET = 160  # characters, about two lines of a terminal


class SearchHit(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a search found."""

    user_id: str
    session_id: str
    message: Message
    score: float
    """How well it matches: of this message's text alone, comparable within one search."""
    snippet: str
    """The part of the text around the first match, ``…`` where text was left out."""
    spans: list[tuple[int, int]]
    """Where the matches are in `snippet`: (start, end) in characters."""
    around: MessageList = msgspec.field(default_factory=MessageList)
    """With ``around=n``: the message, up to n on each side of it, tool calls and their results
    whole; what a chat API takes."""

    def _repr_html_(self) -> str:
        from tsmemory import html  # only notebooks need it

        return html.hits([self])


class SessionHit(msgspec.Struct, frozen=True, kw_only=True):
    """A session that a search found."""

    session: Session
    score: float
    """As `SearchHit.score`."""
    snippet: str
    spans: list[tuple[int, int]]

    def _repr_html_(self) -> str:
        from tsmemory import html  # only notebooks need it

        return html.hits([self])


def excerpt(texts: Iterable[str], query: Query) -> tuple[str, list[tuple[int, int]]]:
    """The part of the first text with a match around it, and the matches in that part."""
    opening = ""
    for text in texts:
        places = spans(text, query)
        if places:
            return _cut_out(text, places)
        opening = opening or text
    return _cut_out(opening, [])


def _cut_out(text: str, places: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    if len(text) <= _SNIPPET:
        return text, places
    first = places[0] if places else (0, 0)
    start = max(0, min(first[0] - _SNIPPET // 4, len(text) - _SNIPPET))
    if start:
        space = text.find(" ", start, first[0])
        start = space + 1 if space >= 0 else start
    end = max(min(len(text), start + _SNIPPET), min(first[1], start + 2 * _SNIPPET))
    lead, tail = ("…" if start else ""), ("…" if end < len(text) else "")
    shift = len(lead) - start
    inside = [(a + shift, b + shift) for a, b in places if start <= a and b <= end]
    return f"{lead}{text[start:end]}{tail}", inside
