"""A process that starts writers to be killed; run by the tests.

    python -m tests.backends.jsonl._crasher URL SESSION

For each line ``KIND NAME`` on standard input it forks a writer, prints ``pid NUMBER``, and, once
that was killed, ``dead``. In between the writer prints the number of each append that returned.
``append`` does nothing else; ``compact`` appends two messages, deletes one of them and compacts.
Forking is some hundred times quicker than starting Python.
"""

from __future__ import annotations

import itertools
import os
import sys

from tsmemory import Message, open_store


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def append(url: str, session: str, name: str) -> None:
    with open_store(url) as store:
        chat = store.conversation(session)
        for i in itertools.count():
            chat.append(Message.user(f"{name}.{i}", message_id=f"{name}.{i}"))
            say(str(i))


def compact(url: str, session: str, name: str) -> None:
    with open_store(url) as store:
        chat = store.conversation(session)
        for i in itertools.count():
            gone = Message.user("gone " * 20, message_id=f"{name}.{i}.gone")
            chat.append(gone, Message.user(f"{name}.{i}", message_id=f"{name}.{i}"))
            say(str(i))
            chat.delete_message(gone.message_id)
            chat.compact()


def main(url: str, session: str) -> None:
    for line in sys.stdin:
        kind, name = line.split()
        child = os.fork()
        if child == 0:
            {"append": append, "compact": compact}[kind](url, session, name)
        say(f"pid {child}")
        os.waitpid(child, 0)
        say("dead")


if __name__ == "__main__":
    main(*sys.argv[1:])
