"""Copies: from any engine to any other, killed and run again, verified."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from langchain_core.messages import convert_to_messages

from langchain_tsmemory import to_neutral
from tests._chat_api import conversations
from tests.backends._processes import ROOT
from tsmemory import (
    CorruptRecordError,
    InvalidInputError,
    Message,
    Store,
    ToolCall,
    from_openai,
    open_store,
)
from tsmemory.engine.records import Change, Key, SessionPatch
from tsmemory.transfer import Progress, acopy, copy

URLS = {
    "sqlite": "sqlite:///{}/chat.db?durability=normal",
    "jsonl": "jsonl:///{}/chats?durability=normal",
    "memory": "memory:",
}
"""What can be opened here and now; the engines that need a server have legs of their own."""


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Any]:
    """Opens a new, empty store of a kind."""
    opened: list[Store] = []

    def new(kind: str) -> Store:
        place = tmp_path / str(len(opened))
        place.mkdir()
        store = open_store(URLS[kind].format(place))
        store.setup()
        opened.append(store)
        return store

    yield new
    for store in opened:
        store.close()


def everything(store: Store) -> dict[tuple[str, str], tuple[Any, list[Message]]]:
    """All that a store holds, but for the versions, which count its own writes."""
    return {
        (session.user_id, session.session_id): (
            msgspec.structs.replace(session, version=0),
            list(store.conversation(session.session_id, user_id=session.user_id).iter_messages()),
        )
        for session in store.iter_sessions()
    }


def fill(store: Store) -> None:
    """Sessions that hold everything a session can hold."""
    chat = store.conversation("rich / one", user_id="u:1")
    chat.append(
        Message.system("rules", metadata={"b": b"\0\xff", "n": 2**70, "f": 1.5, "s": "\ud800"}),
        Message.assistant(
            tool_calls=[ToolCall("c", "f", {"x": [1]}), ToolCall(None, "g", "{", "bad")],
            extensions={"x": {"when": dt.datetime(2026, 1, 1), "t": (1, 2)}},  # noqa: DTZ001
        ),
        Message.tool([{"type": "image", "url": "u"}], tool_call_id="c", name="f"),
        Message.user("\0 \udfff 😀"),
    )
    chat.put_message(Message.user("older", message_id="older", create_time=5))
    chat.put_message(Message.user("tie", message_id="tie", create_time=5))
    chat.update_session(title="T", summary="\ud800", metadata={"k": [1, b"2"]}, create_time=77)
    living = store.conversation("living", user_id="u:1", ttl=5000)
    living.append(Message.user("for a while"))
    store.conversation("empty", user_id="u:2").update_session(title="no messages")
    store.conversation("quiet", user_id="u:2").append(Message.user("long ago"))
    store.conversation("quiet", user_id="u:2").update_session(update_time=1000)
    long = store.conversation("long", user_id="u:2")
    long.append(*(Message.user(f"{i}") for i in range(450)))


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(URLS, 2)))
def test_everything_arrives(stores: Any, one: str, other: str) -> None:
    source, target = stores(one), stores(other)
    fill(source)
    seen: list[Progress] = []
    report = copy(source, target, progress=seen.append)
    assert report.problems == []
    assert (report.sessions, report.messages, report.written) == (5, 458, 458)
    assert everything(target) == everything(source)
    assert seen[-1][:2] == (5, 458)
    living = target.conversation("living", user_id="u:1")
    assert 0 < living.get_ttl() <= 5000
    assert target.verify() == []


def test_the_real_conversations_all_the_way_round(stores: Any) -> None:
    first = stores("sqlite")
    for name, messages in conversations().items():
        chat = first.conversation(name, user_id="airline")
        chat.append(*(to_neutral(m) for m in convert_to_messages(messages)))
        chat.append(*map(from_openai, messages))
        chat.update_session(title=f"About {name}", metadata={"n": len(messages)})
    frameworks = {name for _, m in first.iter_messages() for name in m.extensions}
    assert frameworks == {"langchain", "openai"}
    store = first
    for kind in ("jsonl", "memory", "sqlite"):
        following = stores(kind)
        assert copy(store, following).problems == []
        store = following
    assert everything(store) == everything(first)


def test_again_writes_nothing(stores: Any) -> None:
    source, target = stores("sqlite"), stores("jsonl")
    fill(source)
    copy(source, target)
    before = {s.session_id: s.version for s in target.iter_sessions()}
    report = copy(source, target)
    assert (report.sessions, report.messages, report.written) == (5, 458, 0)
    assert {s.session_id: s.version for s in target.iter_sessions()} == before
    source.conversation("long", user_id="u:2").append(Message.user("more"))
    assert copy(source, target).written == 1
    assert everything(target) == everything(source)


def test_one_user(stores: Any) -> None:
    source, target = stores("memory"), stores("memory")
    fill(source)
    assert copy(source, target, user_id="u:1").problems == []
    assert {s.user_id for s in target.iter_sessions()} == {"u:1"}


def test_a_half_copied_session_is_completed(stores: Any) -> None:
    source, target = stores("sqlite"), stores("jsonl")
    fill(source)

    class StoppedError(Exception):
        pass

    for after in (1, 2, 3, 4, 6):

        def kill(progress: Progress, after: int = after) -> None:
            if progress.messages > 60 * after:
                raise StoppedError

        with pytest.raises(StoppedError):
            copy(source, target, progress=kill)
    assert everything(target) != everything(source)
    assert copy(source, target).problems == []
    assert everything(target) == everything(source)


def test_a_changed_message_is_written_again(stores: Any) -> None:
    source, target = stores("sqlite"), stores("memory")
    fill(source)
    copy(source, target)
    chat = source.conversation("long", user_id="u:2")
    (first, *_) = chat.list_messages(limit=1).items
    chat.update_message(first.message_id, content="changed")
    assert copy(source, target).written == 1
    assert everything(target) == everything(source)


def test_differences_are_told(stores: Any) -> None:
    source, target = stores("sqlite"), stores("memory")
    fill(source)
    copy(source, target)
    chat = target.conversation("long", user_id="u:2")
    chat.append(Message.user("the target's own", message_id="own"))
    source.conversation("quiet", user_id="u:2").append(Message.user("new", message_id="new"))
    problems = copy(source, target).problems
    assert [p[:3] for p in problems if p.message_id] == [("u:2", "long", "own")]
    assert {p.what for p in problems} >= {"is only in the target", "message_count differs"}
    assert chat.get_message("own") is not None


def test_broken_records(stores: Any) -> None:
    source, target = stores("memory"), stores("jsonl")
    chat = source.conversation("s")
    chat.append(*(Message.user(t, message_id=t) for t in "abc"))
    kept = source.backend._sessions[Key("default", "s")]
    kept.bodies["b"] = (kept.bodies["b"][0], b"{")
    with pytest.raises(CorruptRecordError):
        copy(source, target)
    report = copy(source, target, on_error="skip")
    assert [m.text for m in target.conversation("s").iter_messages()] == ["a", "c"]
    assert ("default", "s", None, "message_count differs") in report.problems


def test_expired_sessions_stay_behind(stores: Any) -> None:
    source, target = stores("sqlite"), stores("memory")
    source.conversation("s").append(Message.user("x"))
    past = SessionPatch(ttl=1.0, expires_at=source.backend.clock() - 1)
    source.backend.run(source.backend.commit(Key("default", "s"), Change(session=past)))
    assert copy(source, target).sessions == 0


def test_one_store_is_refused(stores: Any) -> None:
    store = stores("memory")
    with pytest.raises(InvalidInputError):
        copy(store, store)


def test_for_asyncio(stores: Any) -> None:
    source, target = stores("sqlite"), stores("jsonl")
    fill(source)
    report = asyncio.run(acopy(source, target))
    assert (report.problems, report.written) == ([], 458)
    assert everything(target) == everything(source)


def test_a_copy_killed_half_way_and_run_again(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/chat.db?durability=normal", f"jsonl:///{tmp_path}/chats"]
    with open_store(urls[0]) as source:
        for i in range(40):
            source.conversation(f"s{i}").append(*(Message.user(f"{i}.{j}") for j in range(30)))
        script = f"""
from tsmemory import open_store
from tsmemory.transfer import copy
with open_store({urls[0]!r}) as source, open_store({urls[1]!r}) as target:
    copy(source, target, progress=lambda p: print(p.messages, flush=True))
"""
        finished = 0
        for stop in (200, 500, 800, None):
            process = subprocess.Popen(
                [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT
            )
            for line in process.stdout:
                if stop is not None and int(line) > stop:
                    os.kill(process.pid, signal.SIGKILL)
                    break
            process.communicate()
            finished += process.returncode == 0
        assert finished == 1
        with open_store(urls[1]) as target:
            assert everything(target) == everything(source)
            assert target.verify() == []


def test_what_is_not_equal_to_itself_is_the_same_all_the_same(stores: Any) -> None:
    first, second = stores("sqlite"), stores("memory")
    nan = Message.user("x", metadata={"nan": float("nan")})
    first.conversation("s").append(nan)
    assert copy(first, second).problems == []
    assert copy(first, second).written == 0
