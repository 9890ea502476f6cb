"""A writer in a process of its own: ``python _writer.py JSON``; prints what it was told is stored.

Each batch is retried by this program until it returns, as an application would after an error.
With ``turns`` it waits for a line on standard input before each batch.
"""

from __future__ import annotations

import json
import sys

from tsmemory import Message, Store, TSMemoryError
from tsmemory.backends.tablestore import TablestoreBackend
from tsmemory.engine.contract import now_us


def main() -> None:
    task = json.loads(sys.argv[1])
    skew = task.get("skew_us", 0)
    backend = TablestoreBackend(**task["server"], clock=lambda: now_us() + skew, **task["options"])
    errors = 0
    with Store(backend) as store:
        chat = store.conversation(task["session"], user_id="user")
        for i in range(task["batches"]):
            if task.get("turns"):
                sys.stdin.readline()
            texts = [f"{task['name']}.{i}.{j}" for j in range(task["size"])]
            batch = [Message.user(text, message_id=text) for text in texts]
            while True:
                try:
                    stored = chat.append(*batch)
                    break
                except TSMemoryError as error:
                    errors += 1
                    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            print(json.dumps([[m.text, m.create_time] for m in stored]), flush=True)
    print(json.dumps({"errors": errors}), flush=True)


if __name__ == "__main__":
    main()
