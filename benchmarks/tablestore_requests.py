"""What each operation costs on Tablestore: requests, rows and bytes, as the server counts them.

python benchmarks/tablestore_requests.py [--messages 100000] [--sessions 10000]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from tsmemory import Message, Store, Window, where
from tsmemory.backends.tablestore import TablestoreBackend
from tsmemory.testing.servers.tablestore import TablestoreProcess


def messages(n: int) -> list[Message]:
    return [Message.user(f"message {i} of a conversation about travel") for i in range(n)]


def main(long: int = 100_000, many: int = 10_000) -> list[tuple[str, int, int, int, int]]:
    """Prints a table and returns its rows: what, requests, rows read, bytes in, bytes out."""
    found = []

    with TablestoreProcess() as server:

        def opened() -> Store:
            return Store(
                TablestoreBackend(
                    server.endpoint,
                    instance_name=server.instance_name,
                    access_key_id=server.access_key_id,
                    access_key_secret=server.access_key_secret,
                )
            )

        def measure(what: str, call: Callable[[], Any]) -> None:
            with server.counting() as counted:
                call()
            total = counted.total
            names = ", ".join(
                f"{name} {one.requests}" for name, one in sorted(counted.operations.items())
                if one.requests
            )  # fmt: skip
            found.append((what, total.requests, total.rows_read, total.bytes_in, total.bytes_out))
            print(
                f"{what:48} {total.requests:3} requests {total.rows_read:6} rows read "
                f"{total.bytes_in:8} B in {total.bytes_out:8} B out   {names}"
            )

        with opened() as store, opened() as cold:
            store.setup()
            chat = store.conversation("s", user_id="u")
            measure("append 1, new session", lambda: chat.append(*messages(1)))
            for n in (1, 4, 200):
                batch = messages(n)
                measure(f"append {n}, warm", lambda batch=batch: chat.append(*batch))
            measure(
                "append 1, another process",
                lambda: cold.conversation("s", user_id="u").append(*messages(1)),
            )
            measure("append 1, after another's", lambda: chat.append(*messages(1)))
            short = store.conversation("100", user_id="u")
            short.append(*messages(100))
            measure("window(20) of 100", lambda: short.window(20))
            measure(
                "window(20) of 100, cold", lambda: cold.conversation("100", user_id="u").window(20)
            )
            system = store.conversation("system", user_id="u")
            system.append(Message.system("Be brief."), *messages(200))
            measure("window(20), instructions outside", lambda: system.window(20))
            limited = store.conversation("ttl", user_id="u", ttl=3600)
            limited.append(*messages(100))
            measure("window(20), with a time to live", lambda: limited.window(20))
            limited.set_ttl(60)
            measure("window(20), after set_ttl", lambda: limited.window(20))
            limited.append(*messages(1))
            measure("window(20), after set_ttl and an append", lambda: limited.window(20))
            summed = Window(last=20, summary=True)
            measure("window(20) with the summary", lambda: short.window(summed))
            mid = short.list_messages(limit=1).items[0].message_id
            measure("get by id", lambda: short.get_message(mid))
            measure("count", short.count)
            measure("list_messages(100)", lambda: short.list_messages(limit=100))
            measure("update_message", lambda: short.update_message(mid, content="new"))
            measure("delete_message", lambda: short.delete_message(mid))
            measure("update_session", lambda: short.update_session(title="t"))
            whole = store.conversation("1000", user_id="u")
            whole.append(*messages(1000))
            measure("delete a session of 1,000 messages", whole.delete)
            for i in range(10):
                mine = store.conversation(f"s{i:05}", user_id="lister")
                mine.update_session(metadata={"topic": "a" if i % 10 == 3 else "b", "n": i})
            topic = where("topic") == "b"
            rare = where("topic") == "a"
            measure(
                "5 most recent of 10 sessions",
                lambda: store.list_sessions(user_id="lister", limit=5),
            )
            measure(
                "5 most recent of 10 sessions, filter",
                lambda: store.list_sessions(user_id="lister", limit=5, where=topic),
            )
            for i in range(10, many):
                mine = store.conversation(f"s{i:05}", user_id="lister")
                mine.update_session(metadata={"topic": "a" if i % 10 == 3 else "b", "n": i})
            measure(
                f"5 most recent of {many} sessions",
                lambda: store.list_sessions(user_id="lister", limit=5),
            )
            measure(
                f"5 most recent of {many} sessions, filter",
                lambda: store.list_sessions(user_id="lister", limit=5, where=topic),
            )
            measure(
                f"5 most recent of {many} sessions, 1 in 10",
                lambda: store.list_sessions(user_id="lister", limit=5, where=rare),
            )
            huge = store.conversation("huge", user_id="u")
            measure(f"append {long} in one call", lambda: huge.append(*messages(long)))
            measure(f"window(20) of {long}", lambda: huge.window(20))
            measure(f"append 4, warm, {long} there", lambda: huge.append(*messages(4)))
            mid = huge.window(1)[0].message_id
            measure(f"get by id, {long} there", lambda: huge.get_message(mid))
            again = cold.conversation("huge", user_id="u")
            measure(f"append 1, another process, {long} there", lambda: again.append(*messages(1)))
            measure("the same process again", lambda: again.append(*messages(1)))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--sessions", type=int, default=10_000)
    options = parser.parse_args()
    main(options.messages, options.sessions)
