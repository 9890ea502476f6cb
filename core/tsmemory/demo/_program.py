"""One conversation, two processes, two frameworks; no network, no key.

    python -m tsmemory.demo [--store URL] [--conversations FILE]

A LangChain chain holds the first half of a conversation and its process ends. Another process
goes on with a LlamaIndex chat engine, and answers what only the first half says. With
``--conversations`` it loads real conversations instead (JSON Lines: ``{"id", "messages"}``, the
messages in the OpenAI chat format) and walks through them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from tsmemory import Store, TSMemoryError, Window, from_openai, open_store
from tsmemory.demo import _show

__all__ = ["main"]

USER = "ada"
SESSION = "trip-to-bergen"


def two_frameworks(url: str) -> None:
    """The story: LangChain begins, LlamaIndex goes on."""
    with open_store(url) as store:
        # The demo's own session only: the store may be one that is in use.
        store.conversation(SESSION, user_id=USER).delete()
    _show.heading("1. A LangChain chain", "RunnableWithMessageHistory, in a process of its own")
    _run("_first", url)
    _show.heading(
        "2. That process has ended. A LlamaIndex chat engine goes on",
        "SimpleChatEngine with ChatMemoryBuffer, in another process",
    )
    _run("_second", url)
    with open_store(url) as store:
        chat = store.conversation(SESSION, user_id=USER)
        _show.heading("3. One transcript, whoever wrote it")
        _show.transcript(chat.iter_messages(), f"session {SESSION!r} of user {USER!r}")
        _show.heading(
            "4. What a model is shown with window(5)",
            "It begins at a user message and keeps the instructions. Nothing was deleted.",
        )
        _show.window(chat.window(5, explain=True), "window(5)")
        _show.heading("5. The sessions of the store")
        _show.sessions(store.list_sessions(user_id=USER), f"sessions of {USER!r}")


def _run(part: str, url: str) -> None:
    sys.stdout.flush()
    command = [sys.executable, "-m", "tsmemory.demo._part", part, url, USER, SESSION]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def real_conversations(url: str, path: Path, shown: int) -> None:
    """Load `path` into the store and walk through it."""
    with open_store(url) as store:
        names = _load(store, path)
        _show.heading(f"{len(names)} conversations", f"loaded from {path.name} into the store")
        # The most eventful first: those with the longest tool loops.
        for name in sorted(names, key=names.__getitem__, reverse=True)[:shown]:
            chat = store.conversation(name, user_id="conversations")
            _show.transcript(chat.iter_messages(), f"{name}: the transcript")
            policy = Window(last=8)
            _show.window(chat.window(policy, explain=True), f"{name}: window(8)")
        _show.heading("The sessions, the most recently active first")
        page = store.list_sessions(user_id="conversations", limit=10)
        _show.sessions(page, f"{len(page)} of {len(names)} sessions")
        stats = store.stats()
        size = f", {stats.bytes:,} bytes" if stats.bytes is not None else ""
        _show.console.print(f"{stats.sessions} sessions, {stats.messages:,} messages{size}")


def _load(store: Store, path: Path) -> dict[str, int]:
    """The sessions loaded, and how many tool calls each has."""
    names = {}
    with path.open(encoding="utf-8") as lines:
        for line in track(list(lines), "loading", console=_show.console, transient=True):
            record = json.loads(line)
            chat = store.conversation(record["id"], user_id="conversations")
            chat.delete()
            stored = chat.append(*map(from_openai, record["messages"]))
            names[record["id"]] = sum(len(m.tool_calls) for m in stored)
    return names


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tsmemory.demo",
        description="One conversation, two processes, two frameworks; no network, no key.",
    )
    parser.add_argument(
        "--store", metavar="URL", help="default: a SQLite file that goes afterwards"
    )
    parser.add_argument("--conversations", metavar="FILE", type=Path, help="JSON Lines to load")
    parser.add_argument("--show", type=int, default=1, help="how many of them to print whole")
    parsed = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        url = parsed.store or f"sqlite:///{Path(directory) / 'demo.db'}"
        try:
            if parsed.conversations:
                real_conversations(url, parsed.conversations, parsed.show)
            else:
                two_frameworks(url)
        except (OSError, ValueError, KeyError, TSMemoryError) as error:
            raise SystemExit(f"demo: {type(error).__name__}: {error}") from error
