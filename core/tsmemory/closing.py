"""What is closed after use is a context manager, in one way: sync and async."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

__all__ = ["Closing"]

C = TypeVar("C", bound="Closing")


class Closing:
    """A mixin: a context manager, sync and async, that closes what it entered."""

    __slots__ = ()

    def close(self) -> None:
        """Release what this opened. Idempotent."""

    async def aclose(self) -> None:
        """Same as `close`, for asyncio."""

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
