"""A writer in its own process: ``python -m tests.backends.redis._writer URL PREFIX NAME COUNT``.

Appends COUNT messages, ``NAME.0`` and so on (ids too), to session ``s`` of user ``u``, and prints
each text once its append has returned.
"""

from __future__ import annotations

import sys

from tsmemory import Message, Store
from tsmemory.backends.redis import RedisBackend


def main(url: str, prefix: str, name: str, count: int) -> None:
    with Store(RedisBackend.from_url(url, prefix=prefix, retry_for=60)) as store:
        chat = store.conversation("s", user_id="u")
        for i in range(count):
            text = f"{name}.{i}"
            chat.append(Message.user(text, message_id=text))
            print(text, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))  # type: ignore[call-arg]  # three texts
