"""One pair of tables, written and read by tablestore-for-agent-memory and by us."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tablestore_for_agent_memory.base.base_memory_store import Message as TheirMessage
from tablestore_for_agent_memory.base.base_memory_store import Session as TheirSession
from tablestore_for_agent_memory.base.common import MetaType
from tablestore_for_agent_memory.base.filter import Filters
from tablestore_for_agent_memory.memory.async_memory_store import AsyncMemoryStore
from tablestore_for_agent_memory.memory.memory_store import MemoryStore

from tsmemory import Message, Store, where
from tsmemory.testing.servers.tablestore import TablestoreProcess

from ._open import backend

_VALUES: dict[str, Any] = {
    "string": "文本",
    "integer": -(2**63),
    "double": 6.0,
    "boolean": True,
    "bytes": b"\x00\xff",
}
_THEIRS = {**_VALUES, "bytes": bytearray(_VALUES["bytes"])}
_META = {"string": MetaType.STRING, "double": MetaType.DOUBLE}


async def _at_once(_: float) -> None:
    pass


class _Theirs:
    """Their library, sync or async: methods by name, iterators as lists."""

    def __init__(self, server: TablestoreProcess, mode: str) -> None:
        self._loop = asyncio.new_event_loop() if mode == "async" else None
        if self._loop is None:
            self._client = server.client()
            self._store: Any = MemoryStore(
                tablestore_client=self._client, session_secondary_index_meta=_META
            )
        else:
            self._client = server.async_client()
            self._store = AsyncMemoryStore(
                tablestore_client=self._client, session_secondary_index_meta=_META
            )

    def close(self) -> None:
        if self._loop is None:
            self._client.connection.pool.clear()
        else:
            self._loop.run_until_complete(self._client.close())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def init_table(self) -> None:
        """Without the second it sleeps for the service: the local tables are there at once."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "sleep", lambda _: None)
            patch.setattr(asyncio, "sleep", _at_once)
            self.__getattr__("init_table")()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            found = method(*args, **kwargs)
            if hasattr(found, "__await__"):
                found = await found
            return [one async for one in found] if hasattr(found, "__aiter__") else found

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._loop is not None:
                return self._loop.run_until_complete(awaited(*args, **kwargs))
            found = method(*args, **kwargs)
            return list(found) if hasattr(found, "__next__") else found

        return call


@pytest.fixture(params=["sync", "async"])
def theirs(server: TablestoreProcess, request: pytest.FixtureRequest) -> Iterator[_Theirs]:
    opened = _Theirs(server, request.param)
    yield opened
    opened.close()


@pytest.fixture
def ours(server: TablestoreProcess) -> Iterator[Store]:
    with Store(backend(server, layout="agent-memory")) as store:
        yield store


def _types(metadata: dict[str, Any]) -> dict[str, type]:
    return {name: type(value) for name, value in metadata.items()}


def test_ours_opens_theirs(theirs: _Theirs, ours: Store) -> None:
    theirs.init_table()
    ours.setup()
    for i in range(4):
        theirs.put_session(
            TheirSession(
                user_id="u", session_id=f"s{i}", update_time=100 + i, metadata={**_THEIRS, "i": i}
            )
        )
    for i in range(10):
        theirs.put_message(
            TheirMessage(
                session_id="s1", message_id=f"m{i}", create_time=1000 + i, content=f"text {i}",
                metadata={**_THEIRS, "i": i},
            )
        )  # fmt: skip
    theirs.put_message(TheirMessage(session_id="s1", message_id="bare", create_time=1010))

    chat = ours.conversation("s1", user_id="u")
    session = chat.session()
    assert session is not None
    assert session.metadata == {**_VALUES, "i": 1}
    assert _types(session.metadata) == _types({**_VALUES, "i": 1})
    assert (session.update_time, session.message_count) == (101, 11)
    recent = ours.list_sessions(user_id="u", limit=2)
    assert [s.session_id for s in recent] == ["s3", "s2"]
    assert recent.items[0].metadata == {**_VALUES, "i": 3}
    found = ours.list_sessions(user_id="u", where=(where("i") > 1) & (where("string") == "文本"))
    assert [s.session_id for s in found] == ["s3", "s2"]

    messages = chat.list_messages().items
    assert [m.content for m in messages] == [f"text {i}" for i in range(10)] + [""]
    assert messages[3].metadata == {**_VALUES, "i": 3}
    assert _types(messages[3].metadata) == _types({**_VALUES, "i": 3})
    assert [m.message_id for m in chat.list_messages(where=where("i") >= 8)] == ["m8", "m9"]
    newest = chat.list_messages(order="desc", limit=2)
    assert [m.message_id for m in newest] == ["bare", "m9"]
    assert chat.get_message("m4").content == "text 4"  # type: ignore[union-attr]

    chat.update_message("m4", content="changed", metadata={"double": 7.5}, remove_metadata=["i"])
    changed = theirs.get_message("s1", "m4")
    assert changed.content == "changed"
    assert changed.metadata["double"] == 7.5
    assert "i" not in changed.metadata
    assert type(changed.metadata["bytes"]) is bytearray
    assert chat.delete_message("m5") == 1
    assert theirs.get_message("s1", "m5") is None
    (new,) = chat.append(Message.user("new", message_id="new", metadata=_VALUES))
    assert new.create_time is not None
    assert new.create_time > 1010
    assert chat.count() == 11
    assert theirs.get_message("s1", "new").content == "new"
    assert theirs.get_message("s1", "new").metadata.items() >= _THEIRS.items()
    chat.update_session(metadata={"string": "neu"}, remove_metadata=["double"])
    seen = theirs.get_session("u", "s1")
    assert seen.metadata["string"] == "neu"
    assert "double" not in seen.metadata
    assert chat.delete().messages == 11
    assert theirs.get_session("u", "s1") is None
    assert theirs.list_messages("s1") == []
    assert ours.erase_user("u").sessions == 3


def test_theirs_opens_ours(theirs: _Theirs, ours: Store) -> None:
    ours.setup()
    for i in range(4):
        chat = ours.conversation(f"s{i}", user_id="u")
        chat.update_session(title="t", metadata={**_VALUES, "i": i, "odd key": None})
    chat = ours.conversation("s1", user_id="u")
    stored = chat.append(
        *(
            Message.user(f"text {i}", message_id=f"m{i}", metadata={**_VALUES, "i": i})
            for i in range(10)
        ),
        Message.assistant(
            [{"type": "text", "text": "blocks"}], message_id="blocks", metadata={"i": 0}
        ),
    )
    session = theirs.get_session("u", "s1")
    assert session.metadata.items() >= {**_THEIRS, "i": 1}.items()
    ours_only = {"tsmemory", "tsmemory_session", "tsmemory_intent"}
    assert set(session.metadata) == {*_THEIRS, "i", *ours_only}
    assert [s.session_id for s in theirs.list_recent_sessions("u", max_count=1)] == ["s1"]
    assert len(theirs.list_sessions("u")) == 4
    found = theirs.list_sessions("u", Filters.eq("i", 2))
    assert [s.session_id for s in found] == ["s2"]
    messages = theirs.list_messages("s1")
    assert [m.content for m in messages] == ["blocks"] + [f"text {i}" for i in range(9, -1, -1)]
    assert [m.create_time for m in messages] == [m.create_time for m in reversed(stored)]
    assert set(messages[-1].metadata) == {*_THEIRS, "i", "role", "tsmemory"}
    assert messages[-1].metadata.items() >= {**_THEIRS, "i": 0, "role": "user"}.items()
    late = theirs.list_messages("s1", metadata_filter=Filters.gt("i", 7))
    assert [m.message_id for m in late] == ["m9", "m8"]

    message = theirs.get_message("s1", "m3")
    message.content = "theirs"
    message.metadata["string"] = "theirs"
    theirs.update_message(message)
    mine = chat.get_message("m3")
    assert mine is not None
    assert (mine.content, mine.metadata) == ("theirs", {**_VALUES, "i": 3, "string": "theirs"})
    session.metadata["string"] = "theirs"  # the update_time stays, as in the notebook
    theirs.update_session(session)
    kept = chat.session()
    assert kept is not None
    assert kept.metadata == {**_VALUES, "i": 1, "odd key": None, "string": "theirs"}
    assert (kept.title, kept.message_count) == ("t", 11)
    assert ours.list_sessions(user_id="u", where=where("string") == "theirs").items == [kept]
    theirs.delete_message("s1", "m4")
    assert chat.get_message("m4") is None
    theirs.put_message(TheirMessage(session_id="s1", message_id="now", content="now"))
    assert [m.text for m in chat.list_messages(order="desc", limit=1)] == ["now"]
    chat.append(*(Message.user("after", message_id="after"),))
    assert [m.text for m in chat.window(2)][-2:] == ["now", "after"]
    theirs.put_session(TheirSession(user_id="u", session_id="s1", metadata={"new": 1}))
    replaced = chat.session()
    assert replaced is not None
    assert replaced.metadata == {"new": 1}
    assert replaced.message_count == len(chat.list_messages()) == 12
    chat.append(Message.user("end", message_id="end"))
    assert chat.count() == 13
    theirs.delete_session_and_messages("u", "s1")
    assert chat.session() is None
    assert chat.list_messages().items == []
