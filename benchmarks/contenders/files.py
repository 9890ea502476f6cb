"""Files: JSON that a person can read."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders import (
    MARGIN,
    SESSION,
    SESSIONS,
    WORD,
    Contender,
    Place,
    bodies,
    new_id,
    view,
)
from benchmarks.contenders.shared import (
    bytes_of,
    langchain_history,
    langchain_messages,
    llamaindex_messages,
    llamaindex_store,
    tsmemory_store,
)

__all__ = ["floor", "langchain", "llamaindex", "ours"]


class ByHand:
    """A JSON line per message in a file per session, one write and one ``fdatasync`` per append,
    under a lock that other processes respect, with ids and times. A session's activity is its
    file's; it keeps no counts or titles, and is not safe from a torn write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT)
        self.ids: dict[str, set[str]] = {}
        self.rules: dict[str, list[dict[str, Any]]] = {}

    def path(self, session: str) -> Path:
        return self.root / f"{session}.jsonl"

    def append(self, session: str, messages: list[dict[str, Any]]) -> None:
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        try:
            ids = self._ids(session)
            lines = []
            for message in messages:
                message_id = new_id()
                if message_id not in ids:
                    ids.add(message_id)
                    created = time.time_ns() // 1000
                    lines.append(json.dumps({"created": created, "id": message_id, **message}))
            with open(self.path(session), "ab", buffering=0) as file:
                file.write("".join(line + "\n" for line in lines).encode())
                os.fdatasync(file.fileno())
        finally:
            fcntl.flock(self.lock, fcntl.LOCK_UN)

    def _ids(self, session: str) -> set[str]:
        if session not in self.ids:
            path = self.path(session)
            lines = path.read_bytes().splitlines() if path.exists() else []
            self.ids[session] = {json.loads(line)["id"] for line in lines}
        return self.ids[session]

    def window(self, session: str) -> list[dict[str, Any]]:
        with open(self.path(session), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 16 * 1024))
            lines = file.read().splitlines()[: -21 - MARGIN : -1]
        return view([json.loads(line) for line in lines], self.rules.get(session, []))

    def listing(self) -> list[dict[str, Any]]:
        with os.scandir(self.root) as entries:
            newest = sorted(
                ((entry.stat().st_mtime_ns, entry.name) for entry in entries), reverse=True
            )
        return [{"id": name, "updated": time} for time, name in newest[:20]]

    def search(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for path in sorted(self.root.glob("*.jsonl"), key=os.path.getmtime, reverse=True):
            for line in reversed(path.read_bytes().splitlines()):
                message = json.loads(line)
                if WORD in message["content"]:
                    found.append(message)
            if len(found) >= 20:
                break
        return found[:20]


def floor(stack: ExitStack, place: Place) -> Contender:
    store = ByHand(place.root / "floor")
    stack.callback(os.close, store.lock)
    return Contender(
        lambda count: store.append(SESSION, bodies(count)),
        lambda: store.window(SESSION),
        store.listing,
        store.search,
        begin=lambda: [store.append(f"s{i}", bodies(1)) for i in range(SESSIONS)],
        hold=lambda name: store.append(name, bodies(1)),
        size=partial(bytes_of, store.root),
    )


def ours(stack: ExitStack, place: Place) -> Contender:
    path = place.root / "ours"
    return tsmemory_store(stack, f"jsonl:///{path}", partial(bytes_of, path))


def langchain(stack: ExitStack, place: Place) -> Contender:
    from langchain_community.chat_message_histories import FileChatMessageHistory
    from langchain_core.messages import messages_to_dict

    path = place.root / f"{SESSION}.json"

    def fill(count: int) -> None:  # an append of its own reads and writes the whole file
        path.write_text(json.dumps(messages_to_dict(langchain_messages(count))))

    return langchain_history(
        lambda session: FileChatMessageHistory(str(place.root / f"{session}.json")),
        fill=fill,
        size=partial(bytes_of, path),
    )


def llamaindex(stack: ExitStack, place: Place) -> Contender:
    from llama_index.core.storage.chat_store import SimpleChatStore

    path = str(place.root / "chats.json")
    store = SimpleChatStore.from_persist_path(path)

    def append(count: int) -> None:
        for message in llamaindex_messages(count):
            store.add_message(SESSION, message)
        store.persist(path)

    kept = llamaindex_store(store)
    return Contender(append, kept.window, size=partial(bytes_of, Path(path)))
