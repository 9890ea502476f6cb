"""The contract (`engine.contract`) and the public API, as tests: one or more for each rule.

Subclass `BackendConformance`, give it an ``engine`` fixture, and every test runs over your backend
sync and async. The bodies are written once; `Mode` makes the calls.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import pytest

from tsmemory import (
    ConflictError,
    CorruptRecordError,
    Erased,
    InvalidInputError,
    Message,
    NotFoundError,
    Store,
    ToolCall,
    Window,
    where,
)
from tsmemory.testing._harness import Engine, Mode
from tsmemory.testing.primitive_conformance import PrimitiveConformance
from tsmemory.testing.search_conformance import SearchConformance

__all__ = ["HOSTILE_IDS", "BackendConformance"]

HOSTILE_IDS = (
    "a",
    "a:b",
    "a/b",
    "a_b",
    "a%2Fb",
    "a%",
    "A",
    "../../etc/passwd",
    "..",
    ".",
    "/",
    "\\",
    "NUL",
    "con.txt",
    "a\0b",
    "\0",
    "a b",
    " a",
    "a ",
    "\n",
    "*",
    "?",
    "{a}",
    "{}",
    "{a",
    "a}b",
    "'",
    '"',
    "'; DROP TABLE messages; --",
    "$where",
    "__proto__",
    "é",
    "e\u0301",
    "ß",
    "SS",
    "日本語",
    "\U0001f600",
    "\uffff",
    "\U0010ffff",
    "x" * 255,
    "x" * 254,
    "字" * 85,
    "-1",
    "0",
    "default",
)
"""Ids that have broken somebody's keys, paths, patterns or queries."""

_MICROSECOND = dt.timedelta(microseconds=1)
TEXTS = (
    "",
    "plain",
    "a\0b",
    "\ud800",
    "\udfff\ud800",
    "\ud83d\ude00",
    "😀",
    "\\ud800",
    "\\",
    "\r\n",
)


BAD_IDS: tuple[Any, ...] = (
    "", "x" * 256, "字" * 86, "\ud800", "a\udfff", 7.0, True, None, b"a",
)  # fmt: skip
BAD_MESSAGES: tuple[Any, ...] = (
    Message("", "x"),
    Message(7, "x"),  # type: ignore[arg-type]
    Message("user", None),  # type: ignore[arg-type]
    Message("user", [7]),  # type: ignore[list-item]
    Message("user", [{"text": "no type"}]),
    Message("user", "x", name=7),  # type: ignore[arg-type]
    Message("user", "x", create_time=-1),
    Message("user", "x", create_time=2**63 - 1),
    Message("user", "x", metadata={"x": object()}),
    Message("user", "x", metadata={7: "x"}),  # type: ignore[dict-item]
    Message("user", "x", metadata={"x": (1,)}),
    Message("user", "x", metadata={"x": dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)}),
    Message("user", "x", extensions={"x": object()}),
    Message("assistant", "x", tool_calls=[]),  # type: ignore[arg-type]
    Message("assistant", "x", tool_calls=(ToolCall("a", "f", 7),)),  # type: ignore[arg-type]
    "hello",
    {"content": "no role"},
    [[Message("user", "x")]],
    None,
)


def _texts(messages: Any) -> list[str]:
    return [m.text for m in messages]


def _refused(*calls: Callable[[], Any]) -> None:
    for call in calls:
        with pytest.raises(InvalidInputError):
            call()


def _refuse(value: Any, *calls: Callable[[Any], Any]) -> None:
    for call in calls:
        try:
            call(value)
        except InvalidInputError:
            continue
        pytest.fail(f"{value!r} was taken")


def _say(*texts: str, **fields: Any) -> list[Message]:
    return [Message.user(text, **fields) for text in texts]


class BackendConformance(PrimitiveConformance, SearchConformance):
    """Subclass, and define the fixture ``engine`` (an `Engine` on fresh, empty storage)."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Test → why it fails over this backend. Such a test must fail: one that passes is an error."""

    @pytest.fixture(autouse=True)
    def _expect(self, request: pytest.FixtureRequest) -> None:
        reason = self.expected_failures.get(request.node.originalname)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture
    def engine(self) -> Engine:
        raise TypeError("define the fixture 'engine' in the subclass")

    @pytest.fixture(params=["sync", "async"])
    def mode(self, request: pytest.FixtureRequest) -> Mode:
        return Mode(request.param)

    @pytest.fixture
    def raw(self, engine: Engine, mode: Mode) -> Iterator[Store]:
        store = Store(engine.open())
        mode.run(store, "setup", (), {})
        yield store
        mode.close(store)

    @pytest.fixture
    def store(self, raw: Store, mode: Mode) -> Any:
        return mode.store(raw)

    @pytest.fixture
    def chat(self, store: Any) -> Any:
        return store.conversation("session", user_id="user")

    # -- 1. Identity -------------------------------------------------------------------------

    def test_hostile_ids_do_not_meet(self, store: Any) -> None:
        pairs = [(u, "a") for u in HOSTILE_IDS] + [("a", s) for s in HOSTILE_IDS[1:]]
        for user, session in pairs:
            chat = store.conversation(session, user_id=user)
            chat.append(Message.user(f"{user}|{session}", message_id="m"))
            chat.update_session(title=f"{user}|{session}")
        for user, session in pairs:
            chat = store.conversation(session, user_id=user)
            assert _texts(chat.list_messages()) == [f"{user}|{session}"]
            record = chat.session()
            assert (record.title, record.message_count) == (f"{user}|{session}", 1)
            assert (record.user_id, record.session_id) == (user, session)
            assert chat.get_message("m").text == f"{user}|{session}"
        listed = store.iter_sessions()
        assert sorted((s.user_id, s.session_id) for s in listed) == sorted(pairs)
        for user in HOSTILE_IDS:
            mine = [s.session_id for s in store.iter_sessions(user_id=user)]
            assert sorted(mine) == sorted(s for u, s in pairs if u == user)

    def test_a_write_to_one_changes_no_other(self, store: Any) -> None:
        chats = {
            (u, s): store.conversation(s, user_id=u)
            for u in ("a", "a:", "a:b", "ab")
            for s in ("b", "b:c", ":b:c", "c")
        }
        for (u, s), chat in chats.items():
            chat.append(Message.user(u + s, message_id="m"), Message.user("2", message_id="n"))
        chats["a", "b:c"].update_message("m", content="changed")
        chats["a:b", "c"].delete_message("m")
        chats["a:", "b:c"].clear()
        chats["a", ":b:c"].delete()
        chats["ab", "c"].truncate(1)
        for (u, s), chat in chats.items():
            expected = {
                ("a", "b:c"): ["changed", "2"],
                ("a:b", "c"): ["2"],
                ("a:", "b:c"): [],
                ("a", ":b:c"): [],
                ("ab", "c"): ["2"],
            }.get((u, s), [u + s, "2"])
            assert _texts(chat.list_messages()) == expected, (u, s)

    def test_erase_user_takes_exactly_one(self, store: Any) -> None:
        erased = HOSTILE_IDS[::3]
        for user in HOSTILE_IDS:
            for session in ("one", "two") if user in erased else ("two",):
                store.conversation(session, user_id=user).append(*_say("hello", "there"))
        remaining = list(HOSTILE_IDS)
        for user in erased:
            assert store.erase_user(user) == Erased(sessions=2, messages=4)
            assert store.erase_user(user) == Erased()
            remaining.remove(user)
            users = {s.user_id for s in store.iter_sessions()}
            assert users == set(remaining)
        for user in remaining:
            assert store.conversation("two", user_id=user).count() == 2

    def test_the_user_is_default_by_default(self, store: Any) -> None:
        store.conversation("s").append(*_say("hi"))
        assert store.conversation("s", user_id="default").count() == 1

    def test_invalid_ids_are_refused(self, store: Any) -> None:
        chat = store.conversation("s")
        for bad in BAD_IDS:
            _refuse(
                bad,
                store.conversation,
                lambda bad: store.conversation("s", user_id=bad),
                lambda bad: store.list_sessions(user_id=bad),
                store.erase_user,
                chat.get_message,
                lambda bad: chat.append(Message("user", "x", message_id=bad)),
            )
        assert store.list_sessions().items == []

    @pytest.mark.parametrize("number", [7, uuid.UUID(int=7)], ids=["int", "uuid"])
    def test_numbers_as_ids_are_taken_as_text(self, store: Any, number: Any) -> None:
        text = str(number)
        chat = store.conversation(number, user_id=number)
        chat.append(Message.user("x", message_id=number), Message("user", "y", message_id="m"))
        assert (chat.session_id, chat.user_id) == (text, text)
        chat.put_message(Message("user", "z", message_id=number))
        same = store.conversation(text, user_id=text)
        assert [m.message_id for m in same.list_messages()] == [text, "m"]
        assert chat.get_message(number).text == "z"
        assert chat.update_message(number, content="w").message_id == text
        assert [s.session_id for s in store.list_sessions(user_id=number)] == [text]
        assert chat.rewind(until=number) == chat.delete_message(number) == 1
        assert chat.fork(8).session_id == "8"
        assert store.erase_user(number).sessions == 2

    def test_hostile_message_ids(self, chat: Any) -> None:
        chat.append(*(Message.user(mid, message_id=mid) for mid in HOSTILE_IDS))
        assert _texts(chat.list_messages()) == list(HOSTILE_IDS)
        for mid in HOSTILE_IDS:
            assert chat.get_message(mid).text == mid
        assert chat.delete_message(*HOSTILE_IDS[::2]) == len(HOSTILE_IDS[::2])
        assert _texts(chat.list_messages()) == list(HOSTILE_IDS[1::2])

    # -- 2. Order ----------------------------------------------------------------------------

    def test_a_batch_keeps_its_order(self, chat: Any) -> None:
        texts = [str(i) for i in range(300)]
        stored = chat.append(*_say(*texts))
        times = [m.create_time for m in stored]
        assert times == sorted(set(times))
        assert _texts(chat.iter_messages()) == texts
        assert [m.create_time for m in chat.iter_messages()] == times

    def test_later_appends_sort_later(self, chat: Any) -> None:
        for i in range(30):
            chat.append(*_say(f"{i}a", f"{i}b"))
        assert _texts(chat.list_messages()) == [f"{i}{c}" for i in range(30) for c in "ab"]
        times = [m.create_time for m in chat.list_messages()]
        assert times == sorted(set(times))

    def test_times_are_about_now(self, chat: Any) -> None:
        (stored,) = chat.append(*_say("now"))
        assert abs(stored.create_time / 1e6 - time.time()) < 60

    def test_a_clock_that_steps_back(self, engine: Engine, raw: Store, chat: Any) -> None:
        if not engine.client_clock:
            pytest.skip("this engine's times are its server's")
        hour = 3_600_000_000
        now = raw.backend.clock()
        for i, clock in enumerate((now, now - hour, now, now - 2 * hour, now + 1)):
            raw.backend.clock = lambda clock=clock: clock  # type: ignore[misc]
            chat.append(*_say(f"{i}a", f"{i}b"))
        messages = chat.list_messages().items
        assert _texts(messages) == [f"{i}{c}" for i in range(5) for c in "ab"]
        times = [m.create_time for m in messages]
        assert times == sorted(set(times))

    def test_append_goes_behind_the_future(self, chat: Any) -> None:
        (first,) = chat.append(*_say("first"))
        later = first.create_time + 3_600_000_000
        chat.put_message(Message.user("future", create_time=later))
        chat.append(*_say("a", "b"))
        assert _texts(chat.list_messages()) == ["first", "future", "a", "b"]
        assert [m.create_time for m in chat.list_messages()][1:] == [later, later + 1, later + 2]

    def test_append_goes_behind_what_was_removed(self, chat: Any) -> None:
        (a,) = chat.append(*_say("a"))
        later = a.create_time + 3_600_000_000
        chat.put_message(Message.user("b", message_id="b", create_time=later))
        chat.delete_message("b")
        (c,) = chat.append(*_say("c"))
        assert c.create_time > later

    def test_ties_sort_by_id(self, chat: Any) -> None:
        ids = ["b", "a", "é", "Z", "\U0001f600", "\uffff", "a\0", "aa"]
        chat.put_messages([Message.user(mid, message_id=mid, create_time=5) for mid in ids])
        assert _texts(chat.list_messages()) == sorted(ids)
        assert _texts(chat.list_messages(order="desc")) == sorted(ids, reverse=True)
        paged, cursor = [], None
        while True:
            page = chat.list_messages(limit=3, cursor=cursor)
            paged += _texts(page)
            cursor = page.next_cursor
            if cursor is None:
                break
        assert paged == sorted(ids)

    def test_times_at_the_edges(self, chat: Any) -> None:
        times = [0, 1, 999, 2**31, 2**32 + 1, 2**53 - 1]
        chat.put_messages([Message.user(str(t), create_time=t) for t in reversed(times)])
        assert [m.create_time for m in chat.list_messages()] == times

    def test_writers_at_once(self, engine: Engine, mode: Mode, chat: Any, raw: Store) -> None:
        def write(name: str) -> None:
            backend = engine.open()
            mine = Store(backend).conversation("session", user_id="user")
            for i in range(15):
                mine.append(*_say(f"{name}.{i}.0", f"{name}.{i}.1"))
            if backend is not raw.backend:
                backend.close()

        threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        messages = list(chat.iter_messages())
        assert len(messages) == chat.count() == 4 * 15 * 2
        times = [m.create_time for m in messages]
        assert times == sorted(set(times))
        for name in "abcd":
            mine = [m.text for m in messages if m.text.startswith(name)]
            assert mine == [f"{name}.{i}.{j}" for i in range(15) for j in range(2)]

    # -- 3. Atomic ---------------------------------------------------------------------------

    def test_a_batch_with_a_bad_message_leaves_nothing(self, chat: Any) -> None:
        with pytest.raises(InvalidInputError):
            chat.append(Message.user("good"), Message.user("bad", metadata={"x": object()}))
        assert chat.list_messages().items == []
        assert chat.session() is None

    def test_the_record_moves_with_the_messages(self, chat: Any) -> None:
        chat.append(*_say("a", "b"))
        session = chat.session()
        assert (session.message_count, session.version) == (2, 1)
        assert session.create_time <= session.update_time
        stored = chat.append(*_say("c"))
        two = chat.session()
        assert (two.message_count, two.version) == (3, 2)
        assert two.update_time >= stored[0].create_time > session.update_time
        assert two.create_time == session.create_time
        chat.delete_message(stored[0].message_id)
        three = chat.session()
        assert (three.message_count, three.version) == (2, 3)

    def test_readers_see_whole_batches(self, engine: Engine, raw: Store, chat: Any) -> None:
        if not raw.backend.capabilities.atomic:
            pytest.skip("this engine's capabilities say so")
        done = threading.Event()

        def write() -> None:
            backend = engine.open()
            mine = Store(backend).conversation("session", user_id="user")
            for i in range(20):
                mine.append(*_say(*(f"{i}.{j}" for j in range(7))))
            if backend is not raw.backend:
                backend.close()
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        while True:
            finished = done.is_set()
            seen = chat.list_messages(limit=500).items
            assert len(seen) % 7 == 0
            if finished:
                break
        writer.join()
        assert len(seen) == 140

    # -- 4. Exactly once ---------------------------------------------------------------------

    def test_the_same_message_again_is_a_no_op(self, chat: Any) -> None:
        message = Message.user("once", metadata={"n": 1})
        (first,) = chat.append(message)
        before = chat.session()
        (again,) = chat.append(message)
        assert again == first
        assert chat.count() == 1
        assert chat.session() == before

    def test_other_content_under_a_stored_id_is_a_conflict(self, chat: Any) -> None:
        (first,) = chat.append(Message.user("once", message_id="m"))
        before = chat.session()
        for other in (
            Message.user("other text", message_id="m"),
            Message.user("once", message_id="m", metadata={"n": 1}),
            Message.assistant("once", message_id="m"),
        ):
            with pytest.raises(ConflictError, match="'m'"):
                chat.append(Message.user("before it"), other, Message.user("behind it"))
        assert list(chat.list_messages()) == [first]
        assert chat.session() == before

    def test_a_retry_finishes_a_batch(self, chat: Any) -> None:
        a, b, c = _say("a", "b", "c")
        stored = chat.append(a, b)
        assert chat.append(a, b, c)[:2] == stored
        assert _texts(chat.list_messages()) == ["a", "b", "c"]
        assert chat.session().message_count == 3

    def test_one_id_twice_in_a_batch(self, chat: Any) -> None:
        a = Message.user("a")
        stored = chat.append(a, a, Message.user("b"))
        assert _texts(stored) == ["a", "a", "b"]
        assert _texts(chat.list_messages()) == ["a", "b"]
        other = Message.user("other text", message_id="c")
        with pytest.raises(InvalidInputError, match="duplicate message id 'c'"):
            chat.append(Message.user("c", message_id="c"), other)
        assert _texts(chat.list_messages()) == ["a", "b"]

    def test_equal_content_is_kept(self, chat: Any) -> None:
        chat.append(*_say("yes"))
        chat.append(*_say("yes", "yes"))
        assert _texts(chat.list_messages()) == ["yes"] * 3

    def test_one_message_from_many_writers(self, engine: Engine, raw: Store, chat: Any) -> None:
        message = Message.user("once")

        def write() -> None:
            backend = engine.open()
            Store(backend).conversation("session", user_id="user").append(message)
            if backend is not raw.backend:
                backend.close()

        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert _texts(chat.list_messages()) == ["once"]
        assert chat.count() == 1

    def test_ids_are_the_session_s_own(self, store: Any) -> None:
        message = Message.user("shared")
        for session in ("a", "b"):
            store.conversation(session).append(message)
            assert store.conversation(session).count() == 1

    # -- 5. Conflicts ------------------------------------------------------------------------

    def test_if_version(self, chat: Any) -> None:
        chat.append(*_say("a"), if_version=0)
        with pytest.raises(ConflictError) as caught:
            chat.append(*_say("b"), if_version=0)
        assert (caught.value.expected, caught.value.actual) == (0, 1)
        version = chat.session().version
        chat.append(*_say("c"), if_version=version)
        with pytest.raises(ConflictError):
            chat.append(*_say("d"), if_version=version)
        assert _texts(chat.list_messages()) == ["a", "c"]

    def test_if_version_without_a_session(self, chat: Any) -> None:
        with pytest.raises(ConflictError):
            chat.append(*_say("a"), if_version=3)
        assert chat.session() is None

    def test_the_retry_of_a_success_is_no_conflict(self, chat: Any) -> None:
        batch = _say("a", "b")
        stored = chat.append(*batch, if_version=0)
        assert chat.append(*batch, if_version=0) == stored
        assert chat.count() == 2

    def test_if_version_on_the_record(self, chat: Any) -> None:
        chat.update_session(title="one", if_version=0)
        with pytest.raises(ConflictError):
            chat.update_session(title="two", if_version=0)
        assert chat.session().title == "one"

    # -- 6. Windows read, never write --------------------------------------------------------

    def test_windows_change_nothing(self, chat: Any) -> None:
        chat.append(Message.system("rules"), *_say(*map(str, range(20))))
        before = (chat.session(), chat.list_messages().items)
        for last in (0, 1, 5, 100, None):
            chat.window(last)
            chat.window(Window(last=last, max_tokens=10, summary=True), explain=True)
        assert (chat.session(), chat.list_messages().items) == before

    def test_windows(self, chat: Any) -> None:
        chat.append(
            Message.system("rules"),
            *(m for i in range(40) for m in (Message.user(f"u{i}"), Message.assistant(f"a{i}"))),
        )
        assert _texts(chat.window(4)) == ["rules", "u38", "a38", "u39", "a39"]
        assert _texts(chat.window(3)) == ["rules", "u38", "a38", "u39", "a39"]
        assert _texts(chat.window(1)) == ["rules", "u39", "a39"]
        assert chat.window(0) == []
        assert len(chat.window(None)) == len(chat.window(1000)) == 81
        assert _texts(chat.window(Window(last=2, system="drop"))) == ["u39", "a39"]
        with pytest.raises(InvalidInputError):
            chat.window(-1)

    def test_a_window_keeps_instructions_wherever_they_stand(self, chat: Any) -> None:
        chat.append(Message.system("s1"), *_say("u1"), Message.developer("d1"))
        chat.append(*_say(*(f"u{i}" for i in range(2, 60))))
        chat.append(Message.system("s2"), *_say("last"))
        assert _texts(chat.window(2)) == ["s1", "d1", "s2", "u59", "last"]
        chat.delete_message(chat.list_messages().items[0].message_id)
        assert _texts(chat.window(2)) == ["d1", "s2", "u59", "last"]

    def test_a_window_moves_in_steps(self, chat: Any) -> None:
        chat.append(Message.system("s"), *_say(*(f"u{i}" for i in range(1, 60))))
        for i in range(60, 76):
            chat.append(*_say(f"u{i}"))
            first = (i + 1 - 10) // 8 * 8  # of i + 1 messages, on every eighth
            messages = chat.window(Window(last=10, step=8))
            assert _texts(messages) == ["s", *(f"u{k}" for k in range(first, i + 1))]

    def test_a_window_walks_back_through_a_tool_loop(self, chat: Any) -> None:
        loop = [Message.user("go")]
        for i in range(120):
            call = ToolCall(f"c{i}", "step", {"i": i})
            loop += [Message.assistant(tool_calls=[call]), Message.tool("ok", tool_call_id=f"c{i}")]
        chat.append(*_say("before"), Message.assistant("old"), *loop)
        window = chat.window(4)
        assert window[0].text == "go"
        assert len(window) == len(loop)

    def test_a_window_with_the_summary(self, chat: Any) -> None:
        chat.append(Message.system("rules"), *_say(*map(str, range(30))))
        chat.update_session(summary="They counted.")
        messages = chat.window(Window(last=2, summary=True))
        assert [m.role for m in messages] == ["system", "system", "user", "user"]
        assert "They counted." in messages[1].text

    # -- 7. Missing --------------------------------------------------------------------------

    def test_missing_is_empty(self, store: Any, chat: Any) -> None:
        assert chat.list_messages().items == []
        assert chat.list_messages().next_cursor is None
        assert chat.iter_messages() == []
        assert chat.window(20) == []
        assert chat.window(None) == []
        assert chat.get_message("m") is None
        assert chat.count() == 0
        assert chat.count(where=where("a").exists()) == 0
        assert chat.session() is None
        assert chat.get_ttl() is None
        assert chat.set_ttl(5) is False
        assert chat.truncate(3) == chat.truncate(0) == 0
        assert chat.clear() == 0
        assert chat.delete_message("m") == 0
        assert chat.delete() == Erased()
        assert chat.compact() == 0
        assert store.list_sessions().items == []
        assert store.list_sessions(user_id="user").items == []
        assert store.erase_user("user") == Erased()
        assert store.clear() == Erased()
        assert store.purge_expired() == Erased()
        assert store.stats().sessions == 0
        assert store.verify() == []
        assert chat.append() == []
        assert chat.session() is None

    def test_updating_what_is_missing(self, chat: Any) -> None:
        with pytest.raises(NotFoundError):
            chat.update_message("m", content="x")
        chat.append(*_say("a"))
        with pytest.raises(NotFoundError):
            chat.update_message("m", content="x")
        with pytest.raises(NotFoundError):
            chat.fork("other", until="m")
        with pytest.raises(LookupError):
            chat.update_message("m", content="x")

    def test_deletes_are_idempotent_and_counted(self, chat: Any) -> None:
        a, b = chat.append(*_say("a", "b"))
        assert chat.delete_message(a.message_id, a.message_id, "none") == 1
        assert chat.delete_message(a.message_id) == 0
        assert chat.delete_message() == 0
        assert chat.clear() == 1
        assert chat.clear() == 0
        assert chat.session().message_count == 0
        assert chat.delete() == Erased(sessions=1, messages=0)
        assert not chat.delete()
        assert b.text == "b"

    # -- 8. Broken records -------------------------------------------------------------------

    def test_a_broken_message(self, engine: Engine, store: Any, chat: Any) -> None:
        if engine.damage is None:
            pytest.skip("the engine gives no way to damage a record")
        chat.append(*(Message.user(t, message_id=t) for t in "abc"))
        engine.damage("user", "session", "b")
        for read in (
            lambda: chat.list_messages(),
            lambda: list(chat.iter_messages()),
            lambda: chat.window(3),
            lambda: chat.get_message("b"),
            lambda: chat.list_messages(where=where("x") == 1),
        ):
            with pytest.raises(CorruptRecordError) as caught:
                read()
            assert caught.value.message_id == "b"
            assert (caught.value.user_id, caught.value.session_id) == ("user", "session")
        assert _texts(chat.iter_messages(on_error="skip")) == ["a", "c"]
        assert _texts(chat.list_messages(on_error="skip")) == ["a", "c"]
        assert chat.get_message("a").text == "a"
        assert chat.count() == 3
        (problem,) = store.verify()
        assert problem[:3] == ("user", "session", "b")
        chat.append(*_say("d"))
        assert _texts(m for _, m in store.iter_messages(on_error="skip")) == ["a", "c", "d"]
        assert chat.delete_message("b") == 1
        assert store.verify() == []

    def test_a_broken_session(self, engine: Engine, store: Any, chat: Any) -> None:
        if engine.damage is None:
            pytest.skip("the engine gives no way to damage a record")
        chat.append(*_say("a"))
        other = store.conversation("other", user_id="user")
        other.append(*_say("b"))
        engine.damage("user", "session", None)
        with pytest.raises(CorruptRecordError) as caught:
            chat.session()
        assert caught.value.message_id is None
        with pytest.raises(CorruptRecordError):
            store.list_sessions(user_id="user")
        listed = store.list_sessions(user_id="user", on_error="skip")
        assert [s.session_id for s in listed] == ["other"]
        assert [p[:3] for p in store.verify()] == [("user", "session", None)]
        assert _texts(chat.list_messages()) == ["a"]
        assert chat.delete() == Erased(1, 1)
        assert store.verify() == []

    # -- 9. Time to live ---------------------------------------------------------------------

    def test_an_expired_session_is_gone_at_once(self, store: Any, chat: Any) -> None:
        chat.append(Message.user("a", message_id="a"))
        other = store.conversation("other", user_id="user")
        other.append(*_say("stays"))
        assert chat.get_ttl() == math.inf
        assert chat.set_ttl(600) is True
        assert 0 < chat.get_ttl() <= 600
        assert chat.session().ttl == 600
        assert chat.set_ttl(0.05) is True
        time.sleep(0.1)  # nothing announces an expiry; this is longer, by any clock
        assert chat.list_messages().items == []
        assert chat.window(5) == []
        assert chat.get_message("a") is None
        assert chat.session() is None
        assert chat.count() == 0
        assert chat.get_ttl() is None
        assert chat.set_ttl(9) is False
        with pytest.raises(NotFoundError):
            chat.update_message("a", content="b")
        assert chat.delete_message("a") == 0
        assert [s.session_id for s in store.list_sessions(user_id="user")] == ["other"]
        assert [s.session_id for s in store.iter_sessions()] == ["other"]
        assert (store.stats().sessions, store.stats().messages) == (1, 1)
        assert store.verify() == []

    def test_a_write_begins_an_expired_session_anew(self, store: Any, chat: Any) -> None:
        chat.append(Message.user("old", message_id="m"))
        chat.update_session(title="old", ttl=0.05)
        time.sleep(0.1)  # until it has expired
        chat.append(Message.user("new", message_id="m"), if_version=0)
        assert _texts(chat.list_messages()) == ["new"]
        session = chat.session()
        assert (session.version, session.title, session.ttl) == (1, None, None)
        assert session.message_count == 1

    def test_it_slides_on_write_and_not_on_read(self, chat: Any) -> None:
        chat.append(*_say("a"))
        chat.set_ttl(60)
        first = chat.session().expires_at
        chat.window(5)
        assert chat.session().expires_at == first
        time.sleep(0.02)  # so that the coarsest of the clocks has moved
        chat.append(*_say("b"))
        assert chat.session().expires_at > first
        assert chat.set_ttl(None) is True
        assert chat.session().expires_at is None
        chat.append(*_say("c"))
        assert chat.get_ttl() == math.inf

    def test_default_and_handle_ttl(self, engine: Engine, mode: Mode, raw: Store) -> None:
        store = mode.store(Store(raw.backend, ttl=100))
        first_chat = store.conversation("one")
        first_chat.append(*_say("a"))
        assert first_chat.session().ttl == 100
        first_chat.set_ttl(None)
        first_chat.append(*_say("b"))
        assert first_chat.session().ttl is None
        two = store.conversation("two", ttl=50)
        two.update_session(title="t")
        assert two.session().ttl == 50
        store.conversation("two", ttl=7).append(*_say("a"))
        assert two.session().ttl == 7

    def test_purge(self, store: Any) -> None:
        for i in range(3):
            chat = store.conversation(str(i))
            chat.append(*_say("a", "b"))
            if i:
                chat.set_ttl(0.05)
        time.sleep(0.1)  # until it has expired
        purged = store.purge_expired()
        # An engine whose server expires by itself may have nothing left to purge.
        assert purged in (Erased(2, 4), Erased())
        assert store.purge_expired() == Erased()
        assert (store.stats().sessions, store.stats().expired_sessions) == (1, 0)
        assert store.verify() == []

    def test_a_user_s_expired_sessions_are_erased_too(self, store: Any) -> None:
        chat = store.conversation("s", user_id="u")
        chat.append(*_say("a"))
        chat.set_ttl(0.05)
        time.sleep(0.1)  # until it has expired
        store.erase_user("u")
        assert store.purge_expired() == Erased()

    def test_times_to_live_that_are_none(self, store: Any, chat: Any) -> None:
        chat.append(*_say("a"))
        for bad in (0, -1, math.nan, math.inf, True, "5", 1e300):
            _refuse(
                bad,
                chat.set_ttl,
                lambda bad: store.conversation("s", ttl=bad),
                lambda bad: chat.update_session(ttl=bad),
            )
        assert chat.get_ttl() == math.inf

    # -- 10. Text and values -----------------------------------------------------------------

    def test_text_is_kept_exactly(self, store: Any) -> None:
        for i, text in enumerate(TEXTS):
            self._keeps(store.conversation(str(i), user_id="user"), text)

    def _keeps(self, chat: Any, text: str) -> None:
        message = Message(
            "user",
            text,
            name=text,
            tool_calls=(ToolCall(text, text, {text: text}), ToolCall(None, "f", text, text)),
            metadata={text: text, "list": [text, {text: text}]},
            extensions={"x": {text: text}},
        )
        blocks = Message("user", [{"type": "text", "text": text}, {"type": "x", text: [text]}])
        stored = chat.append(message, blocks)
        assert chat.list_messages().items == stored
        for sent, got in zip((message, blocks), stored, strict=True):
            assert got.content == sent.content
            assert (got.name, got.tool_calls) == (sent.name, sent.tool_calls)
            assert (got.metadata, got.extensions) == (sent.metadata, sent.extensions)
        chat.update_session(title=text, summary=text, metadata={text: text})
        session = chat.session()
        assert (session.title, session.summary) == (text, text)
        assert session.metadata == {text: text}

    def test_values_are_kept_exactly(self, store: Any, chat: Any) -> None:
        values: dict[str, Any] = {
            "int": 1,
            "float": 1.0,
            "zero": -0.0,
            "inf": math.inf,
            "big": 2**200,
            "int64": [2**63 - 1, -(2**63)],
            "true": True,
            "none": None,
            "bytes": bytes(range(256)),
            "nested": [{"$bytes": "no"}, [], {}, [[1.5, b"", None]], {"a": {"$x": 1, "y": 2}}],
            "$dict": {"$float": "nan"},
            "": "empty key",
            "constructor": {"lc": 1, "type": "constructor", "id": ["os", "system"]},
        }
        chat.append(Message.user("m", message_id="m", metadata=values))
        chat.update_session(metadata=values)
        stored = chat.get_message("m").metadata
        for metadata in (
            stored,
            chat.session().metadata,
            store.list_sessions().items[0].metadata,
        ):
            assert metadata == values
            assert _types(metadata) == _types(values)
        assert math.copysign(1, stored["zero"]) == -1
        nan = chat.append(Message.user("nan", metadata={"nan": math.nan}))[0]
        assert math.isnan(chat.get_message(nan.message_id).metadata["nan"])

    def test_extensions_keep_more(self, chat: Any) -> None:
        when = dt.datetime(2026, 11, 21, 12, tzinfo=dt.timezone.utc)
        values = {"t": (1, (2,)), "when": when, "day": when.date(), "s": {1, 2}, "d": _MICROSECOND}
        chat.append(Message.user("m", message_id="m", extensions={"x": values}))
        assert chat.get_message("m").extensions == {"x": values}

    def test_nothing_is_shared_with_the_caller(self, chat: Any) -> None:
        metadata = {"list": [1]}
        content = [{"type": "text", "text": "a"}]
        chat.append(Message.user(content, message_id="m", metadata=metadata))
        metadata["list"].append(2)
        content[0]["text"] = "b"
        stored = chat.get_message("m")
        assert stored.metadata == {"list": [1]}
        assert stored.text == "a"
        stored.metadata["list"].append(3)
        assert chat.get_message("m").metadata == {"list": [1]}
        nested: dict[str, Any] = {"k": []}
        chat.update_session(metadata=nested)
        nested["k"].append(1)
        assert chat.session().metadata == {"k": []}

    def test_a_large_message(self, chat: Any) -> None:
        text = "0123456789abcdef" * (200_000 // 16)
        chat.append(Message.user(text, message_id="m"))
        assert chat.get_message("m").text == text

    # -- 11. Bad input -----------------------------------------------------------------------

    def test_invalid_messages_are_refused(self, chat: Any) -> None:
        chat.append(*_say("before"))
        before = chat.session()
        for bad in BAD_MESSAGES:
            _refuse(
                bad,
                lambda bad: chat.append(Message.user("good"), bad),
                chat.put_message,
                lambda bad: chat.replace([bad]),
            )
        assert _texts(chat.list_messages()) == ["before"]
        assert chat.session() == before

    def test_a_value_in_itself_is_refused(self, chat: Any) -> None:
        loop: list[Any] = []
        loop.append(loop)
        with pytest.raises(InvalidInputError):
            chat.append(Message.user("x", metadata={"loop": loop}))
        assert chat.session() is None

    def test_arguments_that_are_none(self, store: Any, chat: Any) -> None:
        chat.append(*_say("a"))
        _refused(
            lambda: chat.list_messages(limit=0),
            lambda: chat.list_messages(limit=True),
            lambda: chat.list_messages(order="up"),
            lambda: chat.list_messages(cursor="nonsense"),
            lambda: chat.list_messages(cursor=store.list_sessions(limit=1).next_cursor or "AA"),
            lambda: chat.list_messages(where="a = 1"),
            lambda: chat.list_messages(where=where("a")),
            lambda: chat.list_messages(on_error="ignore"),
            lambda: chat.list_messages(created_from=1.5),
            lambda: chat.list_messages(created_from=dt.datetime(2026, 1, 1)),  # noqa: DTZ001
            lambda: chat.window("20"),
            lambda: chat.window(1.5),
            lambda: chat.window(True),
            lambda: chat.truncate(-1),
            lambda: chat.append(*_say("b"), if_version=-1),
            lambda: chat.update_session(metadata=[1]),
            lambda: chat.update_session(title=7),
            lambda: chat.update_session(metadata={"x": object()}),
            lambda: chat.replace([Message.user("x", message_id="m")] * 2),
            lambda: chat.fork("session"),
            lambda: store.list_sessions(limit=-1),
            lambda: store.list_sessions(user_id=None),
        )
        assert _texts(chat.list_messages()) == ["a"]
        assert chat.session().version == 1

    # -- 12. Safe decoding: filters and keys are data ----------------------------------------

    def test_filters(self, chat: Any) -> None:
        rows: dict[str, dict[str, Any]] = {
            "none": {},
            "null": {"k": None},
            "one": {"k": 1},
            "onef": {"k": 1.0},
            "two": {"k": 2.5, "other": "x"},
            "big": {"k": 2**60 + 1},
            "bigf": {"k": float(2**60)},
            "true": {"k": True},
            "text": {"k": "1"},
            "word": {"k": "Hello, World"},
            "bytes": {"k": b"1"},
            "list": {"k": [1, True, {"a": 1.0}]},
            "dict": {"k": {"a": [1]}},
        }
        chat.append(*(Message.user(n, message_id=n, metadata=m) for n, m in rows.items()))
        k = where("k")
        for condition in (
            k == 1,
            k != 1,
            k == True,  # noqa: E712  # builds a filter
            k == None,  # noqa: E711  # builds a filter
            k == "1",
            k == b"1",
            k == [1, True, {"a": 1}],
            k == [1, 1, {"a": 1}],
            k == {"a": [1]},
            k > 1,
            k >= 1,
            k < 2.5,
            k <= 2**60,
            k > 2**60,
            k > "1",
            k <= "Z",
            k >= b"1",
            k.in_([1, "1", None]),
            k.not_in([1, "1", None]),
            k.in_([]),
            k.exists(),
            ~k.exists(),
            k.contains("World"),
            k.contains("world"),
            k.contains(""),
            (k >= 1) & (where("other") == "x"),
            (k == "1") | (k == 2.5) | ~k.exists(),
            ~((k == 1) | (k == "1")),
        ):
            expected = [n for n, m in rows.items() if condition.matches(m)]
            page = chat.list_messages(where=condition)
            assert [m.message_id for m in page] == expected, condition
            assert chat.count(where=condition) == len(expected), condition
        assert [m.message_id for m in chat.list_messages(where={"k": 2.5, "other": "x"})] == ["two"]

    def test_filter_keys_are_data(self, store: Any, chat: Any) -> None:
        keys = ("a'b", 'a"b', "a.b", "$.a", "a]b", "'; DROP TABLE messages; --", "a\0b", "", "$ne")
        for i, key in enumerate(keys):
            message = Message.user(key, message_id=f"m{i}", metadata={key: key})
            chat.append(message)
            store.conversation(f"s{i}").update_session(metadata={key: key})
        for i, key in enumerate(keys):
            assert [m.text for m in chat.list_messages(where=where(key) == key)] == [key]
            page = store.list_sessions(where=where(key).contains(key))
            assert [s.session_id for s in page] == [f"s{i}"]

    def test_sessions_by_filter(self, store: Any) -> None:
        for i in range(30):
            chat = store.conversation(f"s{i:02}", user_id="u" if i % 2 else "v")
            chat.update_session(metadata={"n": i, "third": i % 3 == 0})
        condition = (where("n") >= 10) & (where("third") == True)  # noqa: E712  # builds a filter
        mine = [f"s{i:02}" for i in range(29, 9, -1) if i % 3 == 0 and i % 2]
        session_ids, cursor = [], None
        while True:
            page = store.list_sessions(user_id="u", where=condition, limit=1, cursor=cursor)
            session_ids += [s.session_id for s in page]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert session_ids == mine
        both = [s.session_id for s in store.iter_sessions(where=condition)]
        assert both == [f"s{i:02}" for i in range(29, 9, -1) if i % 3 == 0]

    # -- 13. Deleting is real ----------------------------------------------------------------

    def test_a_deleted_session_leaves_nothing(self, store: Any, chat: Any) -> None:
        chat.append(Message.system("s"), Message.user("a", message_id="a"), *_say("b"))
        chat.update_session(title="t", metadata={"k": 1}, ttl=50)
        assert chat.delete() == Erased(sessions=1, messages=3)
        assert store.stats().sessions == store.stats().messages == store.stats().users == 0
        assert store.list_sessions(user_id="user").items == store.list_sessions().items == []
        assert store.verify() == []
        chat.append(Message.user("again", message_id="a"), if_version=0)
        session = chat.session()
        assert (session.version, session.title, session.metadata, session.ttl) == (
            1,
            None,
            {},
            None,
        )
        assert _texts(chat.window(50)) == ["again"]

    def test_clear_everything(self, store: Any) -> None:
        for user in "abc":
            store.conversation("s", user_id=user).append(*_say("x", "y"))
        assert store.clear() == Erased(sessions=3, messages=6)
        assert store.stats().sessions == store.stats().messages == 0
        assert store.iter_sessions() == []

    # -- the operations ----------------------------------------------------------------------

    def test_pages(self, chat: Any) -> None:
        texts = [str(i) for i in range(25)]
        chat.append(*_say(*texts))
        for order in ("asc", "desc"):
            expected = texts if order == "asc" else texts[::-1]
            found, cursor, sizes = [], None, []
            while True:
                page = chat.list_messages(order=order, limit=10, cursor=cursor)
                found += _texts(page)
                sizes.append(len(page))
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert found == expected
            assert sizes == [10, 10, 5]
        assert len(chat.list_messages(limit=25)) == 25
        assert chat.list_messages(limit=25).next_cursor is None

    def test_cursors_stay_valid_while_others_write(self, chat: Any) -> None:
        stored = chat.append(*_say(*(str(i) for i in range(10))))
        page = chat.list_messages(limit=4)
        chat.delete_message(*(m.message_id for m in stored[:6:2]))
        chat.append(*_say("10"))
        after = chat.list_messages(limit=50, cursor=page.next_cursor)
        texts = _texts(page) + _texts(after)
        assert texts == ["0", "1", "2", "3", "5", "6", "7", "8", "9", "10"]
        down = chat.list_messages(limit=2, order="desc")
        chat.append(*_say("11"))
        after = chat.list_messages(limit=2, order="desc", cursor=down.next_cursor)
        assert _texts(after) == ["8", "7"]

    def test_time_ranges(self, chat: Any) -> None:
        chat.put_messages([Message.user(str(t), create_time=t * 1000) for t in range(1, 11)])
        assert _texts(chat.list_messages(created_from=3000, created_to=5000)) == ["3", "4", "5"]
        assert _texts(chat.list_messages(created_from=9500)) == ["10"]
        assert _texts(chat.list_messages(created_to=1000)) == ["1"]
        assert _texts(chat.list_messages(created_to=999)) == []
        assert _texts(chat.list_messages(created_from=3001, created_to=5001, order="desc")) == [
            "5",
            "4",
        ]
        page = chat.list_messages(created_from=2000, created_to=8000, limit=3)
        next_page = chat.list_messages(
            created_from=2000, created_to=8000, limit=9, cursor=page.next_cursor
        )
        assert _texts(page) + _texts(next_page) == [str(i) for i in range(2, 9)]
        epoch = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
        assert _texts(chat.list_messages(created_from=epoch + 10_000 * _MICROSECOND)) == ["10"]

    def test_sessions_by_activity(self, store: Any) -> None:
        for i in range(12):
            store.conversation(f"s{i}", user_id="u").append(*_say("x"))
        store.conversation("s3", user_id="u").append(*_say("y"))
        order = ["s3", *(f"s{i}" for i in range(11, -1, -1) if i != 3)]
        assert [s.session_id for s in store.iter_sessions(user_id="u")] == order
        up = store.list_sessions(user_id="u", order="asc", limit=3)
        assert [s.session_id for s in up] == order[:-4:-1]
        first = store.list_sessions(user_id="u", limit=5)
        assert [s.session_id for s in first] == order[:5]
        next_page = store.list_sessions(user_id="u", limit=50, cursor=first.next_cursor)
        assert [s.session_id for s in next_page] == order[5:]
        assert next_page.next_cursor is None

    def test_sessions_by_time(self, store: Any) -> None:
        for i in range(1, 8):
            chat = store.conversation(f"s{i}", user_id="u" if i % 2 else "v")
            chat.update_session(update_time=i * 1000, create_time=i)
        everyone = [s.update_time for s in store.list_sessions(updated_from=2000, updated_to=5000)]
        assert everyone == [5000, 4000, 3000, 2000]
        mine = store.list_sessions(user_id="u", updated_to=5000, order="asc")
        assert [s.session_id for s in mine] == ["s1", "s3", "s5"]
        assert [s.create_time for s in mine] == [1, 3, 5]
        first = store.list_sessions(user_id="u", updated_to=5000, limit=2)
        second = store.list_sessions(
            user_id="u", updated_to=5000, limit=2, cursor=first.next_cursor
        )
        assert [s.session_id for s in (*first, *second)] == ["s5", "s3", "s1"]
        store.conversation("s1", user_id="u").append(*_say("now"))
        assert store.list_sessions(user_id="u", limit=1).items[0].session_id == "s1"

    def test_sessions_with_one_time_page_by_id(self, store: Any) -> None:
        pairs = sorted((u, s) for u in "abc" for s in ("x", "y", "Z", "é"))
        for user, session in pairs:
            store.conversation(session, user_id=user).update_session(update_time=77)
        keys, cursor = [], None
        while True:
            page = store.list_sessions(order="asc", limit=5, cursor=cursor)
            keys += [(s.user_id, s.session_id) for s in page]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert keys == pairs
        down = [(s.user_id, s.session_id) for s in store.iter_sessions()]
        assert down == pairs[::-1]

    def test_put_message(self, chat: Any) -> None:
        chat.append(*(Message.user(t, message_id=t) for t in "abc"))
        times = {m.message_id: m.create_time for m in chat.list_messages()}
        put = chat.put_message(Message.user("B", message_id="b"))
        assert put.create_time == times["b"]
        assert _texts(chat.list_messages()) == ["a", "B", "c"]
        moved = chat.put_message(Message.user("A", message_id="a", create_time=times["c"] + 9))
        assert moved.create_time == times["c"] + 9
        assert _texts(chat.list_messages()) == ["B", "c", "A"]
        chat.put_message(Message.user("d", message_id="d"))
        chat.put_message(Message.user("0", message_id="0", create_time=7))
        assert _texts(chat.list_messages()) == ["0", "B", "c", "A", "d"]
        assert chat.count() == chat.session().message_count == 5
        assert chat.put_messages([]) == []

    def test_put_changes_the_role(self, chat: Any) -> None:
        chat.append(Message.user("a", message_id="a"), *_say(*map(str, range(40))))
        chat.put_message(Message.system("rules", message_id="a"))
        assert _texts(chat.window(1)) == ["rules", "39"]
        chat.put_message(Message.user("a", message_id="a"))
        assert _texts(chat.window(1)) == ["39"]

    def test_update_message(self, chat: Any) -> None:
        (old,) = chat.append(
            Message.assistant("a", name="n", metadata={"x": 1, "y": 2}, extensions={"f": {"z": 1}})
        )
        mid = old.message_id
        new = chat.update_message(mid, content="b", metadata={"y": 3, "z": None})
        assert new == chat.get_message(mid)
        assert (new.content, new.name, new.create_time) == ("b", "n", old.create_time)
        assert new.metadata == {"x": 1, "y": 3, "z": None}
        assert new.extensions == {"f": {"z": 1}}
        new = chat.update_message(
            mid, name=None, remove_metadata=["x"], tool_calls=[ToolCall("c", "f", {})]
        )
        assert (new.name, new.metadata) == (None, {"y": 3, "z": None})
        assert chat.get_message(mid).tool_calls == (ToolCall("c", "f", {}),)
        with pytest.raises(InvalidInputError):
            chat.update_message(mid, content=7)
        assert chat.get_message(mid) == new

    def test_updates_at_once_lose_nothing(self, engine: Engine, raw: Store, chat: Any) -> None:
        chat.append(Message.user("m", message_id="m"))

        def write(name: str) -> None:
            backend = engine.open()
            mine = Store(backend).conversation("session", user_id="user")
            for i in range(5):
                mine.update_message("m", metadata={f"{name}{i}": i})
            if backend is not raw.backend:
                backend.close()

        threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(chat.get_message("m").metadata) == 15

    def test_replace(self, chat: Any) -> None:
        chat.append(*(Message.user(t, message_id=t, metadata={"m": t}) for t in "abcde"))
        a, b, c, d, e = chat.list_messages().items
        version = chat.session().version
        assert chat.replace([a, b, c, d, e]) == [a, b, c, d, e]
        assert chat.session().version == version
        new = Message.user("new", message_id="new")
        placed = chat.replace([a, new, c, Message.user("D", message_id="d")])
        assert placed == chat.list_messages().items
        assert _texts(placed) == ["a", "new", "c", "D"]
        assert (placed[0], placed[2]) == (a, c)
        times = [m.create_time for m in placed]
        assert times == sorted(set(times))
        assert chat.session().message_count == 4
        assert _texts(chat.replace([c, a, *_say("x", "y")])) == ["c", "a", "x", "y"]
        assert _texts(chat.list_messages()) == ["c", "a", "x", "y"]
        chat.append(*_say("z"))
        assert _texts(chat.list_messages())[-1] == "z"
        assert chat.replace([]) == []
        assert chat.count() == 0
        assert _texts(chat.replace(iter(_say("1", "2")))) == ["1", "2"]

    def test_replace_begins_a_session(self, chat: Any) -> None:
        assert _texts(chat.replace(_say("1", "2"))) == ["1", "2"]
        assert chat.session().message_count == 2

    def test_truncate(self, chat: Any) -> None:
        chat.append(*_say(*map(str, range(10))))
        assert chat.truncate(12) == chat.truncate(10) == 0
        assert chat.truncate(3) == 7
        assert _texts(chat.list_messages()) == ["7", "8", "9"]
        assert chat.session().message_count == 3
        chat.append(*_say("10"))
        assert chat.truncate(0) == 4
        assert chat.session().message_count == 0

    def test_append_takes_a_list_and_openai_dicts(self, chat: Any) -> None:
        message = Message.user("1")
        assert _texts(chat.append([message, {"role": "assistant", "content": "2"}])) == ["1", "2"]
        assert _texts(chat.append({"role": "user", "content": "3"}, Message.user("4"))) == [
            "3",
            "4",
        ]
        assert chat.append([]) == chat.append() == []
        assert _texts(chat.append(iter(_say("5")))) == ["5"]
        assert _texts(chat.put_messages([{"role": "user", "content": "6"}])) == ["6"]
        assert _texts(chat.replace([message, {"role": "user", "content": "7"}])) == ["1", "7"]
        assert [m.role for m in chat.list_messages()] == ["user", "user"]

    def test_rewind(self, chat: Any) -> None:
        chat.append(*(Message.user(t, message_id=t) for t in "abcde"))
        assert chat.rewind(until="e") == 0
        assert chat.rewind(until="b") == 3
        assert _texts(chat.list_messages()) == ["a", "b"]
        assert (chat.session().message_count, chat.session().version) == (2, 2)
        for missing in ("c", "never"):
            with pytest.raises(NotFoundError):
                chat.rewind(until=missing)
        chat.append(Message.user("C", message_id="c"))
        assert _texts(chat.list_messages()) == ["a", "b", "C"]

    def test_rewind_among_messages_of_one_time(self, chat: Any) -> None:
        chat.put_messages([Message.user(t, message_id=t, create_time=5) for t in "abcd"])
        assert chat.rewind(until="b") == 2
        assert _texts(chat.list_messages()) == ["a", "b"]

    def test_times_as_arguments(self, chat: Any) -> None:
        moment = dt.datetime(2026, 1, 31, 12, tzinfo=dt.timezone.utc)
        micros = int(moment.timestamp()) * 1_000_000
        text = "2026-01-31T12:00:00Z"
        times: list[Any] = [micros, moment, text]
        for i, time_ in enumerate(times):
            stored = chat.put_message(Message.user(str(i), create_time=time_))
            assert stored.create_time == micros
            assert len(chat.list_messages(created_from=time_, created_to=time_)) == i + 1
            assert chat.update_session(update_time=time_).update_time == micros
        for bad in ("2026-01-31T12:00:00", "yesterday", "", moment.replace(tzinfo=None), 1.5, -1):
            with pytest.raises(InvalidInputError):
                chat.list_messages(created_from=bad)
            with pytest.raises(InvalidInputError):
                chat.update_session(create_time=bad)

    def test_append_and_window_in_one(self, raw: Store, mode: Mode, chat: Any) -> None:
        steps = raw.conversation("session", user_id="user").steps

        def run(*texts: str, **options: Any) -> Any:
            return mode.run(raw, "run", (steps.append_and_window(_say(*texts), **options),), {})

        done = run("1", "2", window=20)
        assert _texts(done.messages) == _texts(done.window.messages) == ["1", "2"]
        assert done.session == chat.session()
        chat.append(*_say(*map(str, range(3, 40))))
        done = run("40", window=Window(last=3), explain=True)
        assert _texts(done.window.messages) == ["38", "39", "40"]
        assert done.window == chat.window(3, explain=True)
        with pytest.raises(ConflictError):
            run("41", if_version=1)
        done = run(window=2)
        assert (done.messages, done.session) == ([], chat.session())
        assert _texts(done.window.messages) == ["39", "40"]

    def test_clear_keeps_the_session(self, chat: Any) -> None:
        chat.append(Message.system("s"), Message.user("a", message_id="a"))
        chat.update_session(title="t")
        assert chat.clear() == 2
        session = chat.session()
        assert (session.title, session.message_count, session.version) == ("t", 0, 3)
        chat.append(Message.user("b", message_id="a"))
        assert _texts(chat.window(5)) == ["b"]

    def test_fork(self, store: Any, chat: Any) -> None:
        chat.append(*(Message.user(t, message_id=t) for t in "abc"))
        chat.update_session(title="t", summary="s", metadata={"k": 1})
        whole = chat.fork("whole")
        assert whole.list_messages().items == chat.list_messages().items
        session = whole.session()
        assert (session.title, session.summary, session.metadata) == ("t", "s", {"k": 1})
        part = chat.fork("part", until="b")
        assert _texts(part.list_messages()) == ["a", "b"]
        part.append(*_say("other"))
        assert _texts(chat.list_messages()) == ["a", "b", "c"]
        with pytest.raises(ConflictError):
            chat.fork("whole")
        assert _texts(whole.list_messages()) == ["a", "b", "c"]
        with pytest.raises(NotFoundError):
            store.conversation("nowhere").fork("x")

    def test_update_session(self, chat: Any) -> None:
        new = chat.update_session(title="t", metadata={"a": 1, "b": {"c": [1]}})
        assert new == chat.session()
        fields = (new.title, new.summary, new.version, new.message_count)
        assert fields == ("t", None, 1, 0)
        two = chat.update_session(summary="s", metadata={"a": 2}, remove_metadata=["b", "none"])
        assert (two.title, two.summary, two.metadata) == ("t", "s", {"a": 2})
        assert two.update_time >= new.update_time
        assert two.create_time == new.create_time
        three = chat.update_session(title=None, metadata={"z": 1}, replace_metadata=True)
        assert (three.title, three.summary, three.metadata) == (None, "s", {"z": 1})
        chat.append(*_say("a"))
        four = chat.session()
        assert (four.summary, four.metadata, four.message_count) == ("s", {"z": 1}, 1)

    def test_every_message_of_every_session(self, store: Any) -> None:
        for user in "ab":
            for session in "xy":
                chat = store.conversation(session, user_id=user)
                chat.append(*_say(f"{user}{session}1", f"{user}{session}2"))
        messages = store.iter_messages()
        assert [(s.user_id, s.session_id, m.text) for s, m in messages] == [
            (u, s, f"{u}{s}{i}") for u in "ba" for s in "yx" for i in (1, 2)
        ]
        assert [m.text[:1] for _, m in store.iter_messages(user_id="a")] == ["a"] * 4

    def test_stats(self, store: Any) -> None:
        for i, user in enumerate("aab"):
            store.conversation(f"s{i}", user_id=user).append(*_say(*"xyz"[: i + 1]))
        stats = store.stats()
        assert (stats.users, stats.sessions, stats.messages) == (2, 3, 6)
        assert stats.expired_sessions == 0

    def test_another_opener_sees_it_all(
        self, engine: Engine, mode: Mode, raw: Store, chat: Any
    ) -> None:
        stored = chat.append(*_say("a", "b"))
        backend = engine.open()
        other = Store(backend)
        assert other.conversation("session", user_id="user").list_messages().items == stored
        other.conversation("session", user_id="user").append(*_say("c"))
        if backend is not raw.backend:
            other.close()
        assert _texts(chat.list_messages()) == ["a", "b", "c"]

    def test_setup_and_close_again(self, store: Any, chat: Any) -> None:
        store.setup()
        chat.append(*_say("a"))
        store.setup()
        assert chat.count() == 1
        store.close()
        store.close()


def _types(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _types(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_types(v) for v in value]
    return type(value)
