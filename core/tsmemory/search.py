"""What a search gives: hits with their snippets. See `Store.search_messages`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from tsmemory.engine.search import Kind, Query, spans
from tsmemory.errors import InvalidInputError
from tsmemory.model import HIT_TYPES, Message, MessageList, Session
from tsmemory.record import Record

__all__ = ["Kind", "Match", "SearchHit", "SearchOrder", "SessionHit", "excerpt"]

SearchOrder: TypeAlias = Literal["recent", "relevance"]
Match: TypeAlias = Literal["all", "any"]

_SNIPPET = 160  # characters, about two lines of a terminal


class SearchHit(Record, frozen=True, kw_only=True):
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

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchHit:
        """The hit that `to_dict` gave."""
        hit: SearchHit = _hit(cls, data)
        return hit

    def _repr_html_(self) -> str:
        from tsmemory import html  # only notebooks need it

        return html.hits([self])


class SessionHit(Record, frozen=True, kw_only=True):
    """A session that a search found."""

    session: Session
    score: float
    """As `SearchHit.score`."""
    snippet: str
    spans: list[tuple[int, int]]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SessionHit:
        """The hit that `to_dict` gave."""
        hit: SessionHit = _hit(cls, data)
        return hit

    def _repr_html_(self) -> str:
        from tsmemory import html  # only notebooks need it

        return html.hits([self])


HIT_TYPES.update(message=SearchHit, session=SessionHit)


def _hit(kind: type[Any], data: Mapping[str, Any]) -> Any:
    """A hit from its JSON: its records are read as records, so that tagged values are restored."""
    try:
        fields = {name: data[name] for name in kind.__struct_fields__ if name in data}
        if "message" in fields:
            fields["message"] = Message.from_dict(fields["message"])
            fields["around"] = MessageList(map(Message.from_dict, fields.get("around", ())))
        else:
            fields["session"] = Session.from_dict(fields["session"])
        fields["spans"] = [(int(start), int(end)) for start, end in fields["spans"]]
        return kind(**fields)
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidInputError(f"not a {kind.__name__} as to_dict gives it: {error}") from None


def excerpt(texts: Iterable[str], query: Query) -> tuple[str, list[tuple[int, int]]]:
    """The part of the first text with a match around it, and the matches in that part."""
    opening = ""
    for text in texts:
        word_spans = spans(text, query)
        if word_spans:
            return _cut_out(text, word_spans)
        opening = opening or text
    return _cut_out(opening, [])


def _cut_out(text: str, word_spans: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    if len(text) <= _SNIPPET:
        return text, word_spans
    first = word_spans[0] if word_spans else (0, 0)
    start = max(0, min(first[0] - _SNIPPET // 4, len(text) - _SNIPPET))
    if start:
        space = text.find(" ", start, first[0])
        start = space + 1 if space >= 0 else start
    end = max(min(len(text), start + _SNIPPET), min(first[1], start + 2 * _SNIPPET))
    lead, tail = ("…" if start else ""), ("…" if end < len(text) else "")
    shift = len(lead) - start
    inside = [(a + shift, b + shift) for a, b in word_spans if start <= a and b <= end]
    return f"{lead}{text[start:end]}{tail}", inside
