"""The primitives of a backend, asked through `Store.run`: what the operations rely on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tsmemory import (
    ConflictError,
    CorruptRecordError,
    Message,
    MessageTooLargeError,
    Session,
    Store,
    where,
)
from tsmemory.engine.records import Change, Key, MessageQuery, Position, SessionPatch, Snapshot
from tsmemory.testing._harness import Engine

__all__ = ["PrimitiveConformance"]

_KEY = Key("user", "session")
_YEAR_US = 366 * 86_400 * 1_000_000


def _ids(rows: Any) -> list[str]:
    return [row.message_id for row in rows]


class PrimitiveConformance:
    """A part of `BackendConformance`."""

    # -- reads ---------------------------------------------------------------------------------

    def test_a_read_gives_total_and_record(self, store: Any, raw: Store, chat: Any) -> None:
        def read(**query: Any) -> Any:
            return store.run(
                raw.backend.read(_KEY, MessageQuery(total=True, session=True, **query))
            )

        missing = read(limit=5)
        assert (list(missing.rows), missing.total, missing.session) == ([], 0, None)
        chat.append(Message.system("0", message_id="0", metadata={"n": 0}))
        chat.append(*(Message.user(f"{i}", message_id=f"{i}") for i in range(1, 7)))
        chat.update_session(title="t", summary="s", metadata={"k": [1]})
        for query, rows in (
            ({"limit": 2, "descending": True, "pinned": True}, ["6", "5"]),
            ({"limit": 2}, ["0", "1"]),
            ({"limit": None}, [f"{i}" for i in range(7)]),
            ({"limit": 9, "where": where("n") == 0}, ["0"]),
            ({"limit": 3, "created_from": 1, "created_to": 2}, []),
        ):
            result = read(**query)
            assert (_ids(result.rows), result.total) == (rows, 7), query
            assert result.session == chat.session(), query
        last = read(limit=1, descending=True).rows[0]
        after = read(limit=2, descending=True, after=Position(last.create_time, "6"))
        assert (_ids(after.rows), after.total) == (["5", "4"], 7)
        plain = store.run(raw.backend.read(_KEY, MessageQuery(limit=1)))
        assert len(plain.rows) == 1

    def test_several_sessions_are_read_as_each(self, store: Any, raw: Store, chat: Any) -> None:
        keys = [Key("user", f"s{i}") for i in range(3)]
        for key in keys[1:]:
            other = store.conversation(key.session_id, user_id=key.user_id)
            other.append(*(Message.user(f"{key.session_id}, {n}") for n in range(4)))
        query = MessageQuery(limit=2, descending=True, total=True)
        several = store.run(raw.backend.read_many(keys, query))
        assert several == [store.run(raw.backend.read(key, query)) for key in keys]
        assert [read.total for read in several] == [0, 4, 4]
        assert store.run(raw.backend.read_many([], query)) == []

    def test_commit_and_read_is_both(self, store: Any, raw: Store, chat: Any) -> None:
        query = MessageQuery(limit=3, descending=True, pinned=True, total=True)
        first = Change(append=(Message.system("be kind", message_id="p"),))
        outcome, read = store.run(raw.backend.commit_and_read(_KEY, first, query))
        assert (_ids(outcome.stored), _ids(read.rows), read.total) == (["p"], ["p"], 1)
        batch = tuple(Message.user(f"{i}", message_id=f"{i}") for i in range(5))
        outcome, read = store.run(raw.backend.commit_and_read(_KEY, Change(append=batch), query))
        assert _ids(read.rows) == ["4", "3", "2"]
        assert (_ids(read.pinned), read.total) == (["p"], 6)
        assert [*reversed(read.rows)] == outcome.stored[2:]
        again, read = store.run(raw.backend.commit_and_read(_KEY, Change(append=batch), query))
        assert (again.stored, read.total) == (outcome.stored, 6)
        other = Change(append=(Message.user("other", message_id="4"),))
        with pytest.raises(ConflictError):
            store.run(raw.backend.commit_and_read(_KEY, other, query))
        removing = Change(delete=("4",), session=SessionPatch(title="t"))
        outcome, read = store.run(raw.backend.commit_and_read(_KEY, removing, query))
        assert (outcome.deleted, _ids(read.rows), read.total) == (1, ["3", "2", "1"], 5)

    # -- read, decide, write -------------------------------------------------------------------

    def test_rewrite_decides_on_what_is_stored(self, store: Any, raw: Store, chat: Any) -> None:
        seen: list[Snapshot] = []

        def decide(change: Change | None) -> Any:
            def decide_now(snapshot: Snapshot) -> Change | None:
                seen.append(snapshot)
                return change

            return decide_now

        first_append = Change(append=(Message.user("a", message_id="a"),))
        outcome = store.run(raw.backend.rewrite(_KEY, decide(first_append)))
        assert (seen[-1].session, list(seen[-1].messages)) == (None, [])
        assert _ids(outcome.stored) == ["a"]
        chat.append(Message.user("b", message_id="b"), Message.user("c", message_id="c"))
        before = chat.session()
        outcome = store.run(raw.backend.rewrite(_KEY, decide(None)))
        assert (outcome.session, outcome.deleted) == (before, 0)
        assert chat.session() == before == seen[-1].session
        assert _ids(seen[-1].messages) == ["a", "b", "c"]
        outcome = store.run(raw.backend.rewrite(_KEY, decide(Change(delete=("b",))), ["b", "x"]))
        assert (_ids(seen[-1].messages), outcome.deleted) == (["b"], 1)
        assert _ids(chat.list_messages()) == ["a", "c"]

    def test_a_rewrite_that_fails_leaves_nothing(self, store: Any, raw: Store, chat: Any) -> None:
        chat.append(Message.user("a", message_id="a"))
        before = chat.session()

        def decide(_: Snapshot) -> Change:
            raise MessageTooLargeError("decided against it")

        with pytest.raises(MessageTooLargeError, match="decided against it"):
            store.run(raw.backend.rewrite(_KEY, decide))
        assert chat.session() == before
        chat.append(Message.user("b", message_id="b"))  # nothing is locked
        assert _ids(chat.list_messages()) == ["a", "b"]

    def test_rewrites_make_progress_beside_appenders(
        self, engine: Engine, raw: Store, chat: Any
    ) -> None:
        chat.append(*(Message.user(f"{i}", message_id=f"{i}") for i in range(60)))
        done, ready = threading.Event(), threading.Barrier(3)
        appended: list[list[str]] = [[], []]

        def append(writer: int) -> None:
            with Store(engine.open()) as store:
                session = store.conversation("session", user_id="user")
                ready.wait()
                while not done.is_set():
                    name = f"w{writer}.{len(appended[writer])}"
                    session.append(Message.user(name, message_id=name))
                    appended[writer].append(name)

        writers = [threading.Thread(target=append, args=(i,)) for i in range(2)]
        for writer in writers:
            writer.start()
        try:
            ready.wait()
            for i in range(5):
                chat.update_message(f"{i}", metadata={"seen": i})
            stored = chat.replace([Message.user(f"new {i}", message_id=f"n{i}") for i in range(60)])
        finally:
            done.set()
            for writer in writers:
                writer.join()
        ids = _ids(chat.iter_messages())
        assert [mid for mid in ids if mid.startswith("n")] == _ids(stored)
        assert not [mid for mid in ids if mid.isdigit()]
        # What was appended after the replacement is there, whole and in order.
        for number in range(2):
            own = appended[number]
            mine = [mid for mid in ids if mid.startswith(f"w{number}.")]
            assert mine == own[len(own) - len(mine) :]
        assert chat.session().message_count == len(ids)

    # -- records that are broken, clocks that are wrong ------------------------------------------

    def test_a_write_to_a_broken_session_changes_nothing(
        self, engine: Engine, store: Any, chat: Any
    ) -> None:
        if engine.damage is None:
            pytest.skip("the engine gives no way to damage a record")
        chat.append(Message.user("a", message_id="a"))
        store.conversation("other", user_id="user").append(Message.user("b"))
        engine.damage("user", "session", None)
        writes: list[Callable[[], Any]] = [
            lambda: chat.append(Message.user("x")),
            lambda: chat.put_message(Message.user("x")),
            lambda: chat.replace([Message.user("x")]),
            lambda: chat.update_session(title="x"),
            lambda: chat.update_message("a", content="x"),
        ]
        for write in writes:
            with pytest.raises(CorruptRecordError):
                write()
        assert _ids(chat.list_messages()) == ["a"]
        assert store.verify()
        listed = store.list_sessions(user_id="user", on_error="skip")
        assert [session.session_id for session in listed] == ["other"]
        assert chat.delete()
        assert store.verify() == []

    def test_a_clock_that_was_years_ahead(self, engine: Engine, store: Any, raw: Store) -> None:
        if not engine.client_clock:
            pytest.skip("this engine's times are its server's")
        now = [raw.backend.clock() + 10 * _YEAR_US]
        raw.backend.clock = lambda: now[0]
        old = store.conversation("old", user_id="user")
        old.append(Message.user("from the future"))
        now[0] -= 10 * _YEAR_US
        for name in ("a", "b", "old", "a"):
            now[0] += 60_000_000
            store.conversation(name, user_id="user").append(Message.user("now"))
        listed: list[Session] = list(store.list_sessions(user_id="user"))
        assert [session.session_id for session in listed] == ["a", "old", "b"]
        first, second = old.list_messages()
        assert first.create_time < second.create_time
