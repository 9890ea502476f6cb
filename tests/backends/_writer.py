"""A process that appends; run by the tests of several engines.

    python -m tests.backends._writer URL SESSION NAME COUNT

Waits for a line on standard input, so that several begin together. Prints the number of each
append once it has returned.
"""

from __future__ import annotations

import sys

from tsmemory import Message, open_store


def main(url: str, session: str, name: str, count: str) -> None:
    sys.stdin.readline()
    with open_store(url) as store:
        chat = store.conversation(session)
        for i in range(int(count)):
            chat.append(Message.user(f"{name}.{i}", message_id=f"{name}.{i}"))
            sys.stdout.write(f"{i}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
