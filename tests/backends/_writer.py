"""Processes that append; run by the tests of several engines.

    python -m tests.backends._writer URL SESSION COUNT NAME…

It imports what it needs, forks a writer for each name, waits for a line on standard input, and lets
them begin together. A writer prints ``NAME.NUMBER`` once that append has returned. Forking is some
hundred times quicker than starting Python. A writer alone is this process itself.
"""

from __future__ import annotations

import os
import sys

from tsmemory import Message, open_store


def write(url: str, session: str, count: int, name: str) -> None:
    with open_store(url) as store:
        chat = store.conversation(session)
        for i in range(count):
            text = f"{name}.{i}"
            chat.append(Message.user(text, message_id=text))
            os.write(1, f"{text}\n".encode())  # in one piece, whoever else writes


def main(url: str, session: str, count: str, *names: str) -> None:
    if len(names) == 1:
        sys.stdin.readline()
        write(url, session, int(count), names[0])
        return
    with open_store(url):
        pass  # its modules are imported before the forks; nothing is opened yet
    begin, hold = os.pipe()
    children = []
    for name in names:
        child = os.fork()
        if child == 0:
            os.close(hold)
            os.read(begin, 1)  # until nobody holds the other end
            write(url, session, int(count), name)
            return
        children.append(child)
    sys.stdin.readline()
    os.close(hold)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(*sys.argv[1:])
