"""What every adapter needs: a store or a URL as an argument, and closing what was opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TypeVar

from tsmemory.engine.search import keywords
from tsmemory.engine.steps import Steps
from tsmemory.errors import InvalidInputError
from tsmemory.registry import open_store
from tsmemory.search import Kind, SearchHit
from tsmemory.store import Store

__all__ = ["ClosesStore", "connect", "recall"]

T = TypeVar("T")
S = TypeVar("S", bound="ClosesStore")


def connect(store: Store | str, check: Callable[[Store], T]) -> tuple[Store, Store | None, T]:
    """The store that an adapter's argument means.

    Args:
        store: a store, which stays its opener's to close, or a URL as `open_store` takes it.
        check: called with the store, to check the adapter's other arguments. If it raises, a store
            opened here is closed.

    Returns:
        The store; the same again if it was opened here, else None; and what `check` returned.

    Raises:
        InvalidInputError: neither a store nor a URL, or what `open_store` and `check` raise.
    """
    if isinstance(store, Store):
        return store, None, check(store)
    if not isinstance(store, str):
        raise InvalidInputError(
            f"store is a tsmemory.Store or a URL, not a {type(store).__name__}; "
            "open one with tsmemory.open_store"
        )
    opened = open_store(store)
    try:
        return opened, opened, check(opened)
    except BaseException:
        opened.close()
        raise


def recall(
    store: Store,
    question: str,
    *,
    user_id: str,
    session_id: str | None = None,
    limit: int,
    kinds: Kind | Iterable[Kind] = ("text",),
    around: int = 0,
) -> Steps[list[SearchHit]]:
    """What a user's sessions have to do with a text in natural language, the most relevant first.

    Any of its words may match, the rare ones count for more, and nothing in it is an operator. A
    text without a word finds nothing. Records that do not decode are left out.
    """
    text = keywords(question)
    if not text:
        return []
    page = yield from store.steps.search_messages(
        text,
        user_id=user_id,
        session_id=session_id,
        kinds=kinds,
        match="any",
        order="relevance",
        limit=limit,
        around=around,
        on_error="skip",
    )
    return page.items


class ClosesStore:
    """A mixin that closes the store it opened, and leaves open one that it was given.

    A context manager, sync and async.
    """

    _opened: Store | None
    """The store to close; None where it is somebody else's."""

    def close(self) -> None:
        """Close the store, if it was opened here, from a URL. Idempotent."""
        if self._opened is not None:
            self._opened.close()

    async def aclose(self) -> None:
        """Same as `close`, for asyncio; closes what both modes opened."""
        if self._opened is not None:
            await self._opened.aclose()

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self: S) -> S:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
