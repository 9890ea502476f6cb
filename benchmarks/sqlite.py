"""SQLite: ours beside the same work by hand, in the same file format and durability.

The floor is what somebody would write who needs just this: a table, an index, JSON bodies, one
connection. It checks nothing, counts nothing and finds no repeated message.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage

from benchmarks._measure import Case, compare, console, show
from langchain_tsmemory import TSMemoryChatMessageHistory
from tsmemory import Message, Store, open_store

__all__ = ["main"]

TEXT = "The quick brown fox jumps over the lazy dog, and says so at some length. " * 3


class ByHand:
    """A chat history on `sqlite3`, as one writes it in an afternoon."""

    def __init__(self, path: Path, durability: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute(f"PRAGMA synchronous = {durability}")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS m (pk INTEGER PRIMARY KEY, s TEXT, t INTEGER, body BLOB)"
        )
        self.db.execute("CREATE INDEX IF NOT EXISTS i ON m (s, t)")

    def append(self, session: str, *bodies: dict[str, Any]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(
            "INSERT INTO m (s, t, body) VALUES (?, ?, ?)",
            [(session, time.time_ns() // 1000, json.dumps(body)) for body in bodies],
        )
        self.db.execute("COMMIT")

    def window(self, session: str, last: int) -> list[Any]:
        rows = self.db.execute(
            "SELECT body FROM m WHERE s = ? ORDER BY t DESC LIMIT ?", (session, last)
        ).fetchall()
        return [json.loads(body) for (body,) in reversed(rows)]


def _fill(store: Store, hand: ByHand, size: int) -> None:
    chat = store.conversation(str(size))
    for start in range(0, size, 5000):
        roles = [("user", "assistant")[i % 2] for i in range(start, min(start + 5000, size))]
        chat.append(*(Message(role, TEXT) for role in roles))
        hand.append(str(size), *({"role": role, "content": TEXT} for role in roles))


def _appends(store: Store, hand: ByHand, session: str, batch: int) -> dict[str, Case]:
    chat = store.conversation(session)
    roles = [("user", "assistant")[i % 2] for i in range(batch)]

    def floor() -> None:
        hand.append(session, *({"role": role, "content": TEXT} for role in roles))

    def ours() -> None:
        chat.append(*(Message(role, TEXT) for role in roles))

    return {"by hand": floor, "tsmemory": ours}


def _windows(store: Store, hand: ByHand, session: str) -> dict[str, Case]:
    chat = store.conversation(session)
    # Twenty-eight, because a window reads a margin to find the user message that opens it.
    return {
        "by hand, 20 rows": lambda: hand.window(session, 20),
        "tsmemory window(20)": lambda: chat.window(20),
    }


def _peer(path: Path) -> Any:
    """langchain-community's history on SQLite, as it comes; None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from langchain_community.chat_message_histories import SQLChatMessageHistory
    except ImportError:
        return None
    return SQLChatMessageHistory("s", connection=f"sqlite:///{path}")


def _beside_the_peer(store: Store, root: Path, rounds: int) -> None:
    """As LangChain sees it: messages in, messages out, at a history of 1,000."""
    peer = _peer(root / "peer.db")
    if peer is None:
        console.print("langchain-community is not installed: no peer to compare with")
        return
    ours = TSMemoryChatMessageHistory("peer", store=store, window=20)
    for history in (peer, ours):
        history.add_messages(
            [HumanMessage(TEXT) if i % 2 else AIMessage(TEXT) for i in range(1000)]
        )
    cases: dict[str, Case] = {
        "SQLChatMessageHistory": lambda: peer.add_messages([HumanMessage(TEXT)]),
        "TSMemoryChatMessageHistory": lambda: ours.add_messages([HumanMessage(TEXT)]),
    }
    show("LangChain: add one message, fsync at commit", compare(cases, rounds))
    cases = {
        "SQLChatMessageHistory, newest 20": lambda: peer.messages[-20:],
        "TSMemoryChatMessageHistory, window=20": lambda: ours.messages,
    }
    show("LangChain: the newest 20 of about 1,400", compare(cases, max(20, rounds // 20)))


def _traced(store: Store, work: Callable[[], object]) -> int:
    (db,) = store.backend._idle  # type: ignore[attr-defined]  # the SQLite backend's connection
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    work()
    db.set_trace_callback(None)
    return len(statements)


def main(rounds: int = 400) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as directory:
        for durability in ("normal", "full"):
            root = Path(directory) / durability
            root.mkdir()
            hand = ByHand(root / "hand.db", durability)
            url = f"sqlite:///{root / 'ours.db'}?durability={durability}"
            with open_store(url) as store:
                for size in (100, 100_000):
                    _fill(store, hand, size)
                medians = {}
                for size, batch in itertools.product((100, 100_000), (1, 4)):
                    cases = _appends(store, hand, str(size), batch)
                    title = f"append of {batch}, history of {size:,}, durability {durability}"
                    medians[size, batch] = compare(cases, rounds)
                    show(title, medians[size, batch])
                for size in (100, 100_000):
                    found = compare(_windows(store, hand, str(size)), rounds)
                    show(f"window, history of {size:,}, durability {durability}", found)
                    chat = store.conversation(str(size))
                    appended = _traced(store, lambda c=chat: c.append(Message.user("x")))
                    read = _traced(store, lambda c=chat: c.window(20))
                    console.print(f"statements: append {appended}, window(20) {read}\n")
                if durability == "full":
                    _beside_the_peer(store, root, rounds)
            hand.db.close()
