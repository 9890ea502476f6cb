"""A writer in a process of its own: it does each task that comes down its pipe.

It appends `batches` of `size` messages to `session`, and sends what it was told is stored: text and
time of each message. Each batch is retried until it returns, as an application would after an
error. With ``turns`` it waits for anything to come before each batch. With ``setup`` it sets up
first, in two threads at once. Each task is done over a backend of its own, so nothing but the
imports is carried from one to the next.
"""

from __future__ import annotations

import traceback
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from tsmemory import Message, Store, TSMemoryError
from tsmemory.backends.tablestore import TablestoreBackend
from tsmemory.engine.contract import now_us


def do(task: dict[str, Any], pipe: Connection) -> list[str]:
    skew = task.get("skew_us", 0)

    def opened() -> Store:
        clock = lambda: now_us() + skew  # noqa: E731  # an argument
        return Store(TablestoreBackend(**task["server"], clock=clock, **task["options"]))

    def set_up(_: int) -> None:
        with opened() as store:
            store.setup()

    if task.get("setup"):
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(set_up, range(2)))
    errors = []
    with opened() as store:
        chat = store.conversation(task["session"], user_id="user")
        for i in range(task["batches"]):
            if task.get("turns"):
                pipe.recv()
            texts = [f"{task['name']}.{i}.{j}" for j in range(task["size"])]
            batch = [Message.user(text, message_id=text) for text in texts]
            while True:
                try:
                    stored = chat.append(*batch)
                    break
                except TSMemoryError as error:
                    errors.append(f"{type(error).__name__}: {error}")
            pipe.send([[m.text, m.create_time] for m in stored])
    return errors


def serve(pipe: Connection) -> None:
    while True:
        task = pipe.recv()
        try:
            errors = do(task, pipe)
        except Exception:  # noqa: BLE001  # the test shows it
            errors = [traceback.format_exc()]
        pipe.send({"errors": errors})
