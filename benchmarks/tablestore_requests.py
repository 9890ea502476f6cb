"""What each operation costs on Tablestore: requests, rows and bytes, as the server counts them.

python benchmarks/tablestore_requests.py [--histories 100,12000,100000] [--sessions 1000]

*Warm* is the process that began the session, *cold* a store that has never seen it. The cold
store's clock is 10 seconds ahead, so that the session is older than the lag that an index is
granted; *cold at once* is the same within that lag.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from tsmemory import Message, Store, Window, where
from tsmemory.backends.tablestore import TablestoreBackend
from tsmemory.engine.contract import now_us
from tsmemory.testing.servers.tablestore import TablestoreProcess

_LATER_US = 10_000_000


def messages(n: int) -> list[Message]:
    return [Message.user(f"message {i} of a conversation about travel") for i in range(n)]


class Costs:
    """Measures calls against one server, and prints a row for each."""

    def __init__(self, server: TablestoreProcess, layout: str) -> None:
        self.server = server
        self.layout = layout
        self.rows: list[tuple[str, int, int, int, int]] = []
        """What, requests, rows read, bytes in, bytes out."""

    def open(self, ahead_us: int = 0) -> Store:
        """A store that knows nothing yet, its clock so far ahead."""
        names = ("session_table", "session_index", "message_table", "message_index")
        tables = {name: f"{name}_{self.layout[0]}" for name in names}
        return Store(
            TablestoreBackend(
                self.server.endpoint,
                instance_name=self.server.instance_name,
                access_key_id=self.server.access_key_id,
                access_key_secret=self.server.access_key_secret,
                layout=self.layout,  # type: ignore[arg-type]  # one of the two names
                clock=lambda: now_us() + ahead_us,
                **tables,
            )
        )

    def measure(self, what: str, call: Callable[[], Any]) -> None:
        with self.server.counting() as counted:
            call()
        total = counted.total
        names = ", ".join(
            f"{name} {count.requests}"
            for name, count in sorted(counted.operations.items())
            if count.requests
        )
        self.rows.append((what, total.requests, total.rows_read, total.bytes_in, total.bytes_out))
        print(
            f"{what:52} {total.requests:3} requests {total.rows_read:6} rows read "
            f"{total.bytes_in:8} B in {total.bytes_out:8} B out   {names}"
        )


def appends(costs: Costs, store: Store, histories: Sequence[int]) -> None:
    """Appends and windows, warm and cold, by the length of the history."""
    for size in histories:
        name = f"{size:,} messages"
        chat = store.conversation(f"h{size}", user_id="u")
        costs.measure(
            f"append {size:,} in one call", lambda chat=chat, n=size: chat.append(*messages(n))
        )
        with costs.open() as now:
            again = now.conversation(f"h{size}", user_id="u")
            costs.measure(f"append 1, cold at once, {name}", lambda c=again: c.append(*messages(1)))
        with costs.open(_LATER_US) as later:
            again = later.conversation(f"h{size}", user_id="u")
            costs.measure(f"append 1, cold, {name}", lambda c=again: c.append(*messages(1)))
            costs.measure(f"append 1, then, {name}", lambda c=again: c.append(*messages(1)))
        with costs.open() as now:
            again = now.conversation(f"h{size}", user_id="u")
            costs.measure(f"window(20), cold, {name}", lambda c=again: c.window(20))
        chat.append(*messages(1))
        for count in (1, 4):
            batch = messages(count)
            costs.measure(f"append {count}, warm, {name}", lambda c=chat, b=batch: c.append(*b))
        message_id = chat.window(1)[0].message_id
        costs.measure(f"get by id, {name}", lambda c=chat, m=message_id: c.get_message(m))


def operations(costs: Costs, store: Store) -> None:
    """The other operations, on short sessions."""
    chat = store.conversation("s", user_id="u")
    costs.measure("append 1, new session", lambda: chat.append(*messages(1)))
    batch = messages(200)
    costs.measure("append 200, warm", lambda: chat.append(*batch))
    chat.update_session(summary="x" * 100_000)
    costs.measure("append 1, warm, summary of 100 kB", lambda: chat.append(*messages(1)))
    short = store.conversation("100", user_id="u")
    short.append(Message.system("Be brief."), *messages(100))
    costs.measure("window(20), instructions outside", lambda: short.window(20))
    summed = Window(last=20, summary=True)
    costs.measure("window(20) with the summary", lambda: short.window(summed))
    message_id = short.list_messages(limit=1).items[0].message_id
    costs.measure("count", short.count)
    costs.measure("list_messages(100)", lambda: short.list_messages(limit=100))
    costs.measure("update_message", lambda: short.update_message(message_id, content="new"))
    costs.measure("delete_message", lambda: short.delete_message(message_id))
    costs.measure("update_session", lambda: short.update_session(title="t"))
    whole = store.conversation("1000", user_id="u")
    whole.append(*messages(1000))
    costs.measure("delete a session of 1,000 messages", whole.delete)


def listings(costs: Costs, store: Store, many: int) -> None:
    """Listings of one user, and that user's erasure."""
    for i in range(many):
        mine = store.conversation(f"s{i:05}", user_id="lister")
        mine.update_session(metadata={"topic": "a" if i % 10 == 3 else "b", "n": i})
    frequent, rare = where("topic") == "b", where("topic") == "a"
    name = f"5 most recent of {many:,} sessions"
    five = lambda **options: store.list_sessions(user_id="lister", limit=5, **options)  # noqa: E731  # a call, partly given
    costs.measure(name, five)
    costs.measure(f"{name}, filter", lambda: five(where=frequent))
    costs.measure(f"{name}, 1 in 10", lambda: five(where=rare))
    costs.measure(f"erase a user of {many:,} sessions", lambda: store.erase_user("lister"))


def main(
    histories: Sequence[int] = (100, 12_000, 100_000), many: int = 1_000
) -> list[tuple[str, int, int, int, int]]:
    """Prints a table for each layout and returns its rows."""
    rows = []
    with TablestoreProcess() as server:
        for layout in ("isolated", "agent-memory"):
            print(f"\nlayout {layout}")
            costs = Costs(server, layout)
            with costs.open() as store:
                store.setup()
                operations(costs, store)
                listings(costs, store, many)
                appends(costs, store, histories)
            rows += costs.rows
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", default="100,12000,100000")
    parser.add_argument("--sessions", type=int, default=1_000)
    options = parser.parse_args()
    main([int(size) for size in options.histories.split(",")], options.sessions)
