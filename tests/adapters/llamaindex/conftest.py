"""Stores of both embedded engines; calls of the chat store, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llamaindex_tsmemory import TSMemoryChatStore
from tsmemory import Store, open_store

Call = Callable[..., Any]

_TWINS = {  # the names that are not "a" + name
    "add_message": "async_add_message",
    "add_messages": "async_add_messages",
}


def call_sync(target: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(target, method)(*args, **kwargs)


def call_async(target: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    return asyncio.run(getattr(target, _TWINS.get(method, f"a{method}"))(*args, **kwargs))


@pytest.fixture(params=[call_sync, call_async], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Calls a method by its plain name, sync or async."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/chat.db"
    with open_store(url) as opened:
        yield opened


@pytest.fixture
def chats(store: Store) -> TSMemoryChatStore:
    return TSMemoryChatStore(store)
