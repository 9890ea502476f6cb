"""Searching: the use cases, and the hits that they give.

What a query means is `tsmemory.engine.search`'s; where candidates come from is the backend's index,
or a scan. Here pages, ranking, snippets and the messages around a hit are made of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from tsmemory import checks
from tsmemory.engine.contract import Backend
from tsmemory.engine.records import Key, MessageQuery, Position, SessionQuery
from tsmemory.engine.scan import scan
from tsmemory.engine.search import (
    KINDS,
    Candidate,
    Candidates,
    Kind,
    Query,
    Searchable,
    SearchQuery,
    index_text,
    parse_query,
    session_text,
    spans,
    texts_of,
)
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.filters import Filter
from tsmemory.model import Message, MessageList, Page, Session
from tsmemory.window import Window, cut

__all__ = ["SearchHit", "SearchOrder", "SessionHit", "search_messages", "search_sessions"]

SearchOrder: TypeAlias = Literal["recent", "relevance"]

RANKED = 1_000
"""Hits among which ``order="relevance"`` ranks, the most recent ones: ours. A ranking has to see
every hit before it can give the first."""
_SNIPPET = 160  # characters, about two lines of a terminal
_SESSIONS_SCANNED = 5_000  # session records that one page of search_sessions looks at, at most
_PORTION = 200  # session records per read


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


class SessionHit(msgspec.Struct, frozen=True, kw_only=True):
    """A session that a search found."""

    session: Session
    score: float
    """As `SearchHit.score`."""
    snippet: str
    spans: list[tuple[int, int]]


def search_messages(
    backend: Backend,
    text: str,
    *,
    user_id: str | None,
    session_id: str | None,
    kinds: Iterable[Kind],
    match: Literal["all", "any"],
    roles: str | Iterable[str] | None,
    created_from: int | None,
    created_to: int | None,
    where: Filter | None,
    order: SearchOrder,
    limit: int,
    cursor: str | None,
    around: int,
    on_error: Literal["raise", "skip"],
) -> Steps[Page[SearchHit]]:
    """A page of hits; see `Store.search_messages`. Ids and times come checked."""
    checks.check_size("limit", limit, least=1)
    checks.check_size("around", around)
    if order not in ("recent", "relevance"):
        raise InvalidInputError(f'order is "recent" or "relevance", not {order!r}')
    query = SearchQuery(
        query=parse_query(text, match),
        kinds=_kinds(kinds),
        user_id=user_id,
        session_id=session_id,
        roles=None if roles is None else (roles,) if isinstance(roles, str) else tuple(roles),
        created_from=created_from,
        created_to=created_to,
        where=where,
        limit=limit,
    )
    kind = f"search-{order}"
    after = checks.decode_cursor(kind, list[Any], cursor)
    page = _recent if order == "recent" else _relevant
    scored, following = yield from page(backend, query, after, on_error)
    hits = [_hit(query, candidate, score) for candidate, score in scored]
    for i in range(len(hits) if around else 0):
        view = yield from _around(backend, hits[i], around)
        hits[i] = msgspec.structs.replace(hits[i], around=view)
    return Page(hits, None if following is None else checks.encode_cursor(kind, tuple(following)))


def _kinds(kinds: Iterable[Kind]) -> tuple[Kind, ...]:
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    unknown = [kind for kind in wanted if kind not in KINDS]
    if unknown or not wanted:
        raise InvalidInputError(f"kinds are some of {', '.join(KINDS)}, not {kinds!r}")
    return tuple(kind for kind in KINDS if kind in wanted)


def _candidates(backend: Backend, query: SearchQuery) -> Steps[Candidates]:
    if isinstance(backend, Searchable):
        return (yield from backend.search(query))
    return (yield from scan(backend, query))


_Scored: TypeAlias = "tuple[list[tuple[Candidate, float]], Any]"


def _recent(
    backend: Backend, query: SearchQuery, after: list[Any] | None, on_error: str
) -> Steps[_Scored]:
    query = msgspec.structs.replace(query, after=after)
    try:
        found = yield from _candidates(backend, query)
    except (TypeError, ValueError) as error:
        if after is None or isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError("cursor is not from this search") from error
    readable = _readable(found.rows, on_error)
    return [(row, query.query.score(query.text(row.message))) for row in readable], found.next


def _relevant(
    backend: Backend, query: SearchQuery, after: list[Any] | None, on_error: str
) -> Steps[_Scored]:
    limit, place = query.limit, None
    rows: list[Any] = []
    while len(rows) < RANKED:
        portion = msgspec.structs.replace(query, limit=RANKED - len(rows), after=place)
        found = yield from _candidates(backend, portion)
        rows += _readable(found.rows, on_error)
        place = found.next
        if place is None:
            break
    ranked = sorted(
        ((-score, -(row.message.create_time or 0), *row.key, row.message.message_id), row)
        for row, score in zip(rows, _rank(query, rows), strict=True)
    )
    if after is not None:
        ranked = [(place, row) for place, row in ranked if list(place) > after]
    page = [(row, -place[0]) for place, row in ranked[:limit]]
    return page, list(ranked[limit - 1][0]) if len(ranked) > limit else None


def _rank(query: SearchQuery, rows: Sequence[Any]) -> list[float]:
    """The scores. Where any term may match, a rare one counts for more: rare among these hits, so
    nothing that another user stored bears on it."""
    texts = [query.text(row.message) for row in rows]
    if query.query.match == "all":
        return [query.query.score(text) for text in texts]
    scores = [0.0] * len(texts)
    for term in query.query.required:
        having = sum(term.needle in text for text in texts)
        weight = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        single = Query((term,))
        for i, text in enumerate(texts):
            scores[i] += weight * single.score(text)
    return scores


def _readable(rows: Sequence[Candidate], on_error: str) -> list[Any]:
    if on_error not in ("raise", "skip"):
        raise InvalidInputError(f'on_error is "raise" or "skip", not {on_error!r}')
    for row in rows:
        if isinstance(row.message, CorruptRecordError) and on_error == "raise":
            raise row.message
    return [row for row in rows if isinstance(row.message, Message)]


# -- a hit -------------------------------------------------------------------------------------


def _hit(query: SearchQuery, candidate: Any, score: float) -> SearchHit:
    message: Message = candidate.message
    texts = (text for kind in query.kinds for text in texts_of(message, kind))
    snippet, places = _snippet(texts, query.query)
    return SearchHit(
        user_id=candidate.key.user_id,
        session_id=candidate.key.session_id,
        message=message,
        score=score,
        snippet=snippet,
        spans=places,
    )


def _snippet(texts: Iterable[str], query: Query) -> tuple[str, list[tuple[int, int]]]:
    """The part of the first text with a match around it, and the matches in that part."""
    opening = ""
    for text in texts:
        places = spans(text, query)
        if places:
            return _excerpt(text, places)
        opening = opening or text
    return _excerpt(opening, [])


def _excerpt(text: str, places: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
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


def _around(backend: Backend, hit: SearchHit, n: int) -> Steps[MessageList]:
    """The hit among its neighbours, as a view that a chat API takes."""
    key = Key(hit.user_id, hit.session_id)
    place = Position(hit.message.create_time or 0, hit.message.message_id)
    sides: list[list[Message]] = []
    for descending in (True, False):
        query = MessageQuery(limit=n + _GROUP, descending=descending, after=place)
        rows = (yield from backend.read(key, query)).rows
        sides.append([row for row in rows if isinstance(row, Message)])
    before, behind = sides
    first, end = min(n, len(before)), min(n, len(behind))
    if hit.message.role == "tool" or any(row.role == "tool" for row in before[:first]):
        # the call that the first result answers
        while first < len(before) and ([hit.message, *before][first]).role == "tool":
            first += 1
    while end < len(behind) and behind[end].role == "tool":
        end += 1
    near = [*reversed(before[:first]), hit.message, *behind[:end]]
    view = cut(near, [], Window(start="any"), complete=True, explain=False)
    assert view is not None  # a complete conversation always gives one
    return view.messages


_GROUP = 16  # messages beside the n asked for, to find the rest of a call and its results


# -- sessions ----------------------------------------------------------------------------------


def search_sessions(
    backend: Backend,
    text: str,
    *,
    user_id: str | None,
    match: Literal["all", "any"],
    updated_from: int | None,
    updated_to: int | None,
    where: Filter | None,
    limit: int,
    cursor: str | None,
    on_error: Literal["raise", "skip"],
) -> Steps[Page[SessionHit]]:
    """A page of sessions whose title, summary or metadata texts match; see
    `Store.search_sessions`. Ids and times come checked."""
    checks.check_size("limit", limit, least=1)
    query = parse_query(text, match)
    place = checks.decode_cursor("search-sessions", tuple[int, str, str], cursor)
    hits: list[SessionHit] = []
    for _ in range(_SESSIONS_SCANNED // _PORTION):
        rows = yield from backend.list_sessions(
            SessionQuery(
                user_id=user_id,
                limit=_PORTION,
                after=place,
                updated_from=updated_from,
                updated_to=updated_to,
                where=where,
            )
        )
        for row in rows:
            if isinstance(row, CorruptRecordError):
                if on_error == "raise":
                    raise row
                place = (row.create_time, row.user_id, row.session_id)
                continue
            place = (row.update_time, row.user_id, row.session_id)
            texts = session_text(row)
            indexed = index_text(texts)
            if query.matches(indexed):
                snippet, places = _snippet(texts, query)
                score = query.score(indexed)
                hits.append(SessionHit(session=row, score=score, snippet=snippet, spans=places))
                if len(hits) >= limit:
                    return Page(hits, checks.encode_cursor("search-sessions", place))
        if len(rows) < _PORTION:
            return Page(hits)
    assert place is not None  # a full portion was read
    return Page(hits, checks.encode_cursor("search-sessions", place))
