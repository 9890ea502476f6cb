"""The search operations, as steps: pages, ranking, snippets and the messages around a hit.

What a query means is `engine.search`'s; candidates come from the backend's index where it has one
(`Searchable`), from a scan otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

from tsmemory import checks
from tsmemory.engine.contract import Backend
from tsmemory.engine.records import UNSET, Key, MessageQuery, Position, SessionQuery, Unset
from tsmemory.engine.scan import scan
from tsmemory.engine.search import (
    KINDS,
    Candidate,
    Candidates,
    Kind,
    Searchable,
    SearchQuery,
    Text,
    parse_query,
    score,
    session_text,
    texts_of,
)
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError, InvalidInputError, shown
from tsmemory.filters import as_filter
from tsmemory.model import Id, Message, MessageList, Page
from tsmemory.search import Match, SearchHit, SearchOrder, SessionHit, excerpt
from tsmemory.times import Time, micros
from tsmemory.usecases.arguments import OnError, Where
from tsmemory.window import Window, cut

__all__ = ["ConversationSearchSteps", "SearchSteps"]

RANKED = 1_000
"""Hits among which ``order="relevance"`` ranks, the most recent ones: ours. A ranking has to see
every hit before it can give the first. Where any term may match and there are more hits, so many
older ones with one of the rarer terms are ranked with them."""
_COMMON = math.log(1 + (RANKED * 7 / 8) / (RANKED / 8))  # the weight of a term in one hit of eight
_SESSIONS_SCANNED = 5_000  # session records that one page of search_sessions looks at, at most
_PORTION = 200  # session records per read
_GROUP = 16  # messages beside those asked for, to find the rest of a call and its results


class SearchSteps:
    """Same as the search operations of `Store`, as steps to compose and run."""

    __slots__ = ()

    if TYPE_CHECKING:
        backend: Backend

    def search_messages(
        self,
        text: str,
        *,
        user_id: Id | Unset = UNSET,
        session_id: Id | None = None,
        kinds: Kind | Iterable[Kind] = ("text",),
        match: Match = "all",
        role: str | Iterable[str] | None = None,
        created_from: Time | None = None,
        created_to: Time | None = None,
        where: Where = None,
        order: SearchOrder = "recent",
        limit: int = 20,
        cursor: str | None = None,
        around: int = 0,
        on_error: OnError = "raise",
    ) -> Steps[Page[SearchHit]]:
        """Same as `Store.search_messages`."""
        checks.check_size("limit", limit, least=1)
        checks.check_size("around", around)
        if order not in ("recent", "relevance"):
            raise InvalidInputError(f'order is "recent" or "relevance", not {shown(order)}')
        query = SearchQuery(
            query=parse_query(text, match),
            kinds=_kinds(kinds),
            user_id=None if user_id is UNSET else checks.check_id("user_id", user_id),
            session_id=None if session_id is None else checks.check_id("session_id", session_id),
            roles=None if role is None else _roles(role),
            created_from=micros("created_from", created_from),
            created_to=micros("created_to", created_to),
            where=as_filter(where),
            limit=limit,
        )
        kind = f"search-{order}"
        position = checks.decode_cursor(kind, tuple[Any], cursor)
        after = position[0] if position else None
        page = _recent if order == "recent" else _relevant
        scored, following = yield from page(self.backend, query, after, on_error)
        hits = [_hit(query, candidate, points) for candidate, points in scored]
        for i in range(len(hits) if around else 0):
            view = yield from _around(self.backend, hits[i], around)
            hits[i] = msgspec.structs.replace(hits[i], around=view)
        if following is None:
            return Page(hits)
        return Page(hits, checks.encode_cursor(kind, (following,)))

    def search_sessions(
        self,
        text: str,
        *,
        user_id: Id | Unset = UNSET,
        match: Match = "all",
        updated_from: Time | None = None,
        updated_to: Time | None = None,
        where: Where = None,
        limit: int = 20,
        cursor: str | None = None,
        on_error: OnError = "raise",
    ) -> Steps[Page[SessionHit]]:
        """Same as `Store.search_sessions`."""
        checks.check_size("limit", limit, least=1)
        query = parse_query(text, match)
        position = checks.decode_cursor("search-sessions", tuple[int, str, str], cursor)
        session_query = SessionQuery(
            user_id=None if user_id is UNSET else checks.check_id("user_id", user_id),
            limit=_PORTION,
            updated_from=micros("updated_from", updated_from),
            updated_to=micros("updated_to", updated_to),
            where=as_filter(where),
        )
        hits: list[SessionHit] = []
        for _ in range(_SESSIONS_SCANNED // _PORTION):
            rows = yield from self.backend.list_sessions(
                msgspec.structs.replace(session_query, after=position)
            )
            for row in rows:
                if isinstance(row, CorruptRecordError):
                    if on_error == "raise":
                        raise row
                    position = (row.create_time, row.user_id, row.session_id)
                    continue
                position = (row.update_time, row.user_id, row.session_id)
                texts = session_text(row)
                ready = list(map(Text, texts))
                counts = query.counts(ready)
                if counts is not None:
                    snippet, spans = excerpt(texts, query)
                    points = score(counts, ready)
                    hits.append(SessionHit(session=row, score=points, snippet=snippet, spans=spans))
                    if len(hits) >= limit:
                        return Page(hits, checks.encode_cursor("search-sessions", position))
            if len(rows) < _PORTION:
                return Page(hits)
        assert position is not None  # a full portion was read
        return Page(hits, checks.encode_cursor("search-sessions", position))


class _Scope(SearchSteps):
    __slots__ = ("backend",)

    def __init__(self, backend: Backend) -> None:
        self.backend = backend


class ConversationSearchSteps:
    """Same as the search operations of `Conversation`, as steps to compose and run."""

    __slots__ = ()

    if TYPE_CHECKING:
        backend: Backend
        key: Key

    def search(
        self,
        text: str,
        *,
        kinds: Kind | Iterable[Kind] = ("text",),
        match: Match = "all",
        role: str | Iterable[str] | None = None,
        created_from: Time | None = None,
        created_to: Time | None = None,
        where: Where = None,
        order: SearchOrder = "recent",
        limit: int = 20,
        cursor: str | None = None,
        around: int = 0,
        on_error: OnError = "raise",
    ) -> Steps[Page[SearchHit]]:
        """Same as `Conversation.search`."""
        return _Scope(self.backend).search_messages(
            text,
            user_id=self.key.user_id,
            session_id=self.key.session_id,
            kinds=kinds,
            match=match,
            role=role,
            created_from=created_from,
            created_to=created_to,
            where=where,
            order=order,
            limit=limit,
            cursor=cursor,
            around=around,
            on_error=on_error,
        )


def _roles(role: str | Iterable[str]) -> tuple[str, ...]:
    return (role,) if isinstance(role, str) else tuple(checks.check_texts("role", role))


def _kinds(kinds: Kind | Iterable[Kind]) -> tuple[Kind, ...]:
    names = (kinds,) if isinstance(kinds, str) else tuple(checks.check_texts("kinds", kinds))
    unknown = [kind for kind in names if kind not in KINDS]
    if unknown or not names:
        raise InvalidInputError(f"kinds are some of {', '.join(KINDS)}, not {shown(kinds)}")
    return tuple(kind for kind in KINDS if kind in names)


@lru_cache(maxsize=32)
def _has_index(kind: type[Backend]) -> bool:
    """`isinstance(backend, Searchable)`, which asks about every attribute each time."""
    return issubclass(kind, Searchable)


def _candidates(backend: Backend, query: SearchQuery) -> Steps[Candidates]:
    if _has_index(type(backend)):
        return (yield from cast("Searchable", backend).search(query))
    return (yield from scan(backend, query))


_Scored: TypeAlias = "tuple[list[tuple[Candidate, float]], Any]"


def _recent(backend: Backend, query: SearchQuery, after: Any, on_error: str) -> Steps[_Scored]:
    query = msgspec.structs.replace(query, after=after)
    try:
        candidates = yield from _candidates(backend, query)
    except (TypeError, ValueError) as error:
        if after is None or isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError("cursor is not from this search") from error
    scored = []
    for row in _readable(candidates.rows, on_error):
        texts = query.texts(row.message)
        scored.append((row, score(query.query.counts(texts) or (), texts)))
    return scored, candidates.next


def _relevant(backend: Backend, query: SearchQuery, after: Any, on_error: str) -> Steps[_Scored]:
    rows, position = yield from _portion_of_hits(backend, query, None, on_error)
    weights = _weights(query, rows)
    if position is not None and weights is not None:
        # Hits on common words alone filled the portion: behind it, only the rarer words count.
        rarer = [term for term, weight in zip(query.query.required, weights, strict=True)
                 if weight > _COMMON]  # fmt: skip
        if rarer:
            narrowed = query.query._replace(required=tuple(rarer))
            older, _ = yield from _portion_of_hits(
                backend, msgspec.structs.replace(query, query=narrowed), position, on_error
            )
            rows += older
    ranked = sorted(
        ((-score, -(row.message.create_time or 0), *row.key, row.message.message_id), row)
        for row, score in zip(rows, _scores(query, rows, weights), strict=True)
    )
    limit = query.limit
    if after is not None:
        if type(after) is not list or list(map(type, after)) != [float, int, str, str, str]:
            raise InvalidInputError("cursor is not from this search")
        ranked = [(position, row) for position, row in ranked if list(position) > after]
    page = [(row, -position[0]) for position, row in ranked[:limit]]
    return page, list(ranked[limit - 1][0]) if len(ranked) > limit else None


def _portion_of_hits(
    backend: Backend, query: SearchQuery, position: Any, on_error: str
) -> Steps[tuple[list[Any], Any]]:
    """The next `RANKED` hits, and where the search goes on."""
    rows: list[Any] = []
    while len(rows) < RANKED:
        portion = msgspec.structs.replace(query, limit=RANKED - len(rows), after=position)
        candidates = yield from _candidates(backend, portion)
        rows += _readable(candidates.rows, on_error)
        position = candidates.next
        if position is None:
            break
    return rows, position


def _weights(query: SearchQuery, rows: Sequence[Any]) -> list[float] | None:
    """What each term counts, where any may match: a rare one more. Rare among these hits, so that
    nothing that another user stored bears on it. None where all must match."""
    if query.query.match == "all":
        return None
    counts = [query.query.counts(query.texts(row.message)) for row in rows]
    having = [sum(map(bool, column)) for column in zip(*filter(None, counts), strict=True)]
    having = having or [0] * len(query.query.required)
    return [math.log(1 + (len(rows) - n + 0.5) / (n + 0.5)) for n in having]


def _scores(
    query: SearchQuery, rows: Sequence[Any], weights: Sequence[float] | None
) -> list[float]:
    scores = []
    for row in rows:
        texts = query.texts(row.message)
        counts = query.query.counts(texts) or []
        if weights is None:
            scores.append(score(counts, texts))
        else:
            parts = zip(counts, weights, strict=True)
            scores.append(sum(weight * score((n,), texts) for n, weight in parts))
    return scores


def _readable(rows: Sequence[Candidate], on_error: str) -> list[Any]:
    if on_error not in ("raise", "skip"):
        raise InvalidInputError(f'on_error is "raise" or "skip", not {shown(on_error)}')
    for row in rows:
        if isinstance(row.message, CorruptRecordError) and on_error == "raise":
            raise row.message
    return [row for row in rows if isinstance(row.message, Message)]


def _hit(query: SearchQuery, candidate: Any, points: float) -> SearchHit:
    message: Message = candidate.message
    texts = (text for kind in query.kinds for text in texts_of(message, kind))
    snippet, spans = excerpt(texts, query.query)
    return SearchHit(
        user_id=candidate.key.user_id,
        session_id=candidate.key.session_id,
        message=message,
        score=points,
        snippet=snippet,
        spans=spans,
    )


def _around(backend: Backend, hit: SearchHit, n: int) -> Steps[MessageList]:
    """The hit among its neighbours, as a view that a chat API takes."""
    key = Key(hit.user_id, hit.session_id)
    position = Position(hit.message.create_time or 0, hit.message.message_id)
    sides: list[list[Message]] = []
    for descending in (True, False):
        query = MessageQuery(limit=n + _GROUP, descending=descending, after=position)
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
