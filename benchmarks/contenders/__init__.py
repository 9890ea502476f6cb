"""Who is compared: for each engine the same work by hand (the floor), tsmemory, and the packages
people use there.

A contender is opened in a process of its own (`benchmarks.worker`), which imports nothing of the
others. It appends user and assistant messages of `TEXTS` to one session and reads its last 20. What
a package does not offer (a listing, a search, an async interface) is left out; where it has no
window, reading the whole history and cutting it is what its users do, and so it is measured.

A floor has the duties of the package on that engine, as one writes them in a day with the engine's
own client: sessions with counts and times, message ids that are unique, windows that begin at a
user message and keep the instructions, an index for searches where ours has one. Each says what it
leaves out.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "ENGINES", "FLOOR", "OURS", "SESSION", "SESSIONS", "WORD", "Contender", "Place", "bodies",
    "new_id", "open_contender", "text", "view",
]  # fmt: skip


def _texts() -> Iterator[str]:
    """64 texts of 290 bytes, of words made of syllables."""
    dice = random.Random(7)
    syllables = [a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er")]
    words = ["".join(dice.choices(syllables, k=dice.randrange(1, 4))) for _ in range(800)]
    for _ in range(64):
        chosen = [WORD]
        while len(" ".join(chosen)) < 290:
            chosen.append(dice.choice(words))
        dice.shuffle(chosen)
        yield " ".join(chosen)


WORD = "quick"
"""What is searched for: a word of every message, so that the newest 20 are hits."""
TEXTS = tuple(_texts())
"""What messages say: so different that a page of a database does not compress to nothing."""
_next_text = itertools.cycle(TEXTS)
SESSION = "measured"
SESSIONS = 200
"""Sessions beside the measured one, with one message each, where a listing is measured."""
MARGIN = 8
"""Messages that a floor reads beyond a window, to find the user message that opens it."""

FLOOR = "by hand"
OURS = "tsmemory"

Append = Callable[[int], Awaitable[object]]


class Place(NamedTuple):
    """Where a contender keeps its data."""

    root: Path
    """A directory of its own."""
    url: str
    """Its server; empty where there is none."""


@dataclass(frozen=True)
class Contender:
    """One way to keep a conversation."""

    append: Callable[[int], object]
    """Appends so many messages."""
    window: Callable[[], object]
    """The last 20."""
    listing: Callable[[], object] | None = None
    """The 20 sessions of the latest activity."""
    search: Callable[[], object] | None = None
    """The newest 20 messages that contain `WORD`."""
    fill: Callable[[int], object] | None = None
    """Appends many at once, where `append` would take minutes."""
    begin: Callable[[], object] | None = None
    """Makes the `SESSIONS` that a listing finds."""
    hold: Callable[[str], object] | None = None
    """Opens the session of a name, appends one message, and returns what stays open."""
    size: Callable[[], float] | None = None
    """Bytes stored."""
    appender: Callable[[int], AbstractAsyncContextManager[Append]] | None = None
    """For so many tasks at once: what appends a message to the session of a number."""


def text() -> str:
    """What the next message says."""
    return next(_next_text)


def bodies(count: int) -> list[dict[str, Any]]:
    """Messages, as a floor stores them."""
    return [{"role": ("user", "assistant")[i % 2], "content": text()} for i in range(count)]


def new_id() -> str:
    """An id for a message."""
    return str(uuid.uuid4())


def view(newest: list[dict[str, Any]], rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The window of a floor.

    Args:
        newest: messages from the newest on, `MARGIN` more than the window.
        rules: the session's instructions.
    """
    shown: list[dict[str, Any]] = []
    for message in newest:
        shown.append(message)
        if len(shown) >= 20 and message["role"] == "user":
            break
    return rules + shown[::-1]


ENGINES: dict[str, dict[str, str]] = {
    "memory": {
        FLOOR: "memory:floor",
        OURS: "memory:ours",
        "langchain-core InMemoryChatMessageHistory": "memory:langchain",
        "LlamaIndex SimpleChatStore": "memory:llamaindex",
        "langgraph InMemorySaver, whole state": "memory:saver_in_memory",
    },
    "sqlite": {
        FLOOR: "sqlite:floor",
        OURS: "sqlite:ours",
        "langchain-community SQLChatMessageHistory": "sqlite:langchain",
        "LlamaIndex SQLAlchemyChatStore": "sqlite:llamaindex",
        "OpenAI Agents SQLiteSession": "sqlite:agents",
        "langgraph SqliteSaver, whole state": "sqlite:saver_in_a_file",
    },
    "jsonl": {
        FLOOR: "files:floor",
        OURS: "files:ours",
        "langchain-community FileChatMessageHistory": "files:langchain",
        "LlamaIndex SimpleChatStore, persisted": "files:llamaindex",
    },
    "redis": {
        FLOOR: "redis:floor",
        OURS: "redis:ours",
        "langchain-community RedisChatMessageHistory": "redis:community",
        "langchain-redis RedisChatMessageHistory": "redis:langchain",
        "LlamaIndex RedisChatStore": "redis:llamaindex",
    },
    "postgres": {
        FLOOR: "postgres:floor",
        OURS: "postgres:ours",
        "langchain-postgres PostgresChatMessageHistory": "postgres:langchain",
        "LlamaIndex PostgresChatStore": "postgres:llamaindex",
        "langgraph PostgresSaver, whole state": "postgres:saver_in_a_database",
    },
    "tablestore": {
        FLOOR: "tablestore:floor",
        OURS: "tablestore:ours",
        "tablestore-for-agent-memory": "tablestore:agent_memory",
        "LlamaIndex TablestoreChatStore": "tablestore:llamaindex",
    },
}
"""Per engine the contenders: the name, and the function that opens it."""


def open_contender(engine: str, name: str, stack: ExitStack, place: Place) -> Contender:
    """Open a contender; `stack` closes it."""
    module, _, function = ENGINES[engine][name].partition(":")
    opened: Contender = getattr(import_module(f"benchmarks.contenders.{module}"), function)(
        stack, place
    )
    return opened
