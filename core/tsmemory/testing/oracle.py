"""Random operations over a backend, each compared with a plain dict (hypothesis, stateful)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tsmemory import (
    ConflictError,
    InvalidInputError,
    Message,
    NotFoundError,
    Store,
    ToolCall,
    Window,
    where,
)
from tsmemory.engine.contract import Backend
from tsmemory.model import is_pinned
from tsmemory.window import cut

__all__ = ["run_against_oracle"]

_USERS = ("a", "a:b", "b")
_users = st.sampled_from(_USERS)
_sessions = st.sampled_from(["s", "b:s", "{s}"])
_ids = st.sampled_from([f"m{i}" for i in range(12)])
_texts = st.sampled_from(["", "hello", "\0", "\ud800", "😀"])
_values = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(-3, 3), _texts)
_metadata = st.dictionaries(st.sampled_from(["k", "$k", "j"]), _values, max_size=2)
_calls = st.sampled_from(
    [(), (), (ToolCall("c1", "f", {"x": 1}),), (ToolCall("c1", "f", {}), ToolCall("c2", "g", "{"))]
)


@st.composite
def _messages(draw: st.DrawFn) -> Message:
    role = draw(st.sampled_from(["user", "assistant", "assistant", "tool", "tool", "system"]))
    return Message(
        role,
        draw(_texts),
        message_id=draw(_ids),
        tool_calls=draw(_calls) if role == "assistant" else (),
        tool_call_id=draw(st.sampled_from(["c1", "c2"])) if role == "tool" else None,
        metadata=draw(_metadata),
    )


def _said(message: Message) -> Message:
    """The message without its time."""
    return msgspec.structs.replace(message, create_time=None)


class _Model:
    """One session, as a dict would keep it."""

    def __init__(self) -> None:
        self.messages: dict[str, Message] = {}
        self.last = 0
        self.version = 0
        self.title: str | None = None
        self.metadata: dict[str, Any] = {}

    def ordered(self) -> list[Message]:
        return sorted(self.messages.values(), key=lambda m: (m.create_time, m.message_id))

    def keep(self, message: Message) -> None:
        assert message.create_time is not None
        self.messages[message.message_id] = message
        self.last = max(self.last, message.create_time)


class StoreMachine(RuleBasedStateMachine):
    """The rules: every writing operation, and after each one every reading one."""

    open_backend: ClassVar[Callable[..., Backend]]

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(type(self).open_backend())
        self.store.setup()
        self.model: dict[tuple[str, str], _Model] = {}
        self.key = ("a", "s")

    def teardown(self) -> None:
        live = {key for key, model in self.model.items() if model.version}
        for user in _USERS:
            self.listing_agrees(user, live)
        assert self.store.verify() == []
        self.store.clear()
        self.store.close()

    @property
    def chat(self) -> Any:
        return self.store.conversation(self.key[1], user_id=self.key[0])

    @property
    def mine(self) -> _Model:
        return self.model.setdefault(self.key, _Model())

    @rule(user=_users, session=_sessions)
    def go_to(self, user: str, session: str) -> None:
        if self.mine.version == 0:
            del self.model[self.key]
        self.key = (user, session)

    @rule(batch=st.lists(_messages(), min_size=1, max_size=5), check=st.booleans())
    def append(self, batch: list[Message], check: bool) -> None:
        expected = {mid: _said(message) for mid, message in self.mine.messages.items()}
        if any(expected.setdefault(m.message_id, _said(m)) != _said(m) for m in batch):
            self.append_other_content(batch)
            return
        before = self.mine.last
        version = self.mine.version if check else None
        stored = self.chat.append(*batch, if_version=version)
        fresh = False
        for sent, got in zip(batch, stored, strict=True):
            if sent.message_id in self.mine.messages:  # from before, or from this batch
                assert got == self.mine.messages[sent.message_id]
                continue
            fresh = True
            assert got.create_time > before
            before = got.create_time
            assert got == msgspec.structs.replace(sent, create_time=got.create_time)
            self.mine.keep(got)
        self.mine.version += fresh

    def append_other_content(self, batch: list[Message]) -> None:
        """Another content under a known id, stored or in the batch: nothing is written."""
        with pytest.raises((ConflictError, InvalidInputError)):
            self.chat.append(*batch)

    @rule(message=_messages())
    def append_to_another_version(self, message: Message) -> None:
        if message.message_id in self.mine.messages:
            return
        try:
            self.chat.append(message, if_version=self.mine.version + 1)
        except ConflictError as error:
            assert error.actual == self.mine.version
        else:
            raise AssertionError("a conflict went unnoticed")

    @rule(message=_messages(), time=st.one_of(st.none(), st.integers(0, 20)))
    def put(self, message: Message, time: int | None) -> None:
        old = self.mine.messages.get(message.message_id)
        got = self.chat.put_message(msgspec.structs.replace(message, create_time=time))
        if time is not None:
            assert got.create_time == time
        elif old is not None:
            assert got.create_time == old.create_time
        else:
            assert got.create_time > self.mine.last
        self.mine.keep(got)
        self.mine.version += 1

    @rule(mid=_ids, text=_texts, metadata=_metadata)
    def update(self, mid: str, text: str, metadata: dict[str, Any]) -> None:
        old = self.mine.messages.get(mid)
        try:
            got = self.chat.update_message(mid, content=text, metadata=metadata)
        except NotFoundError:
            assert old is None
            return
        assert old is not None
        merged = {**old.metadata, **metadata}
        assert got == msgspec.structs.replace(old, content=text, metadata=merged)
        self.mine.keep(got)
        self.mine.version += 1

    @rule(ids=st.lists(_ids, max_size=4))
    def delete_messages(self, ids: list[str]) -> None:
        deleted_ids = {mid for mid in ids if mid in self.mine.messages}
        assert self.chat.delete_message(*ids) == len(deleted_ids)
        for mid in deleted_ids:
            del self.mine.messages[mid]
        self.mine.version += bool(deleted_ids)

    @rule(batch=st.lists(_messages(), max_size=6, unique_by=lambda m: m.message_id))
    def replace(self, batch: list[Message]) -> None:
        begins = self.mine.version == 0
        before = self.mine.ordered()
        placed = self.chat.replace(batch)
        assert [m.message_id for m in placed] == [m.message_id for m in batch]
        self.mine.messages = {}
        for message in placed:
            self.mine.keep(message)
        self.mine.version += bool(batch) if begins else before != placed

    @rule(keep=st.integers(0, 6))
    def truncate(self, keep: int) -> None:
        ordered = self.mine.ordered()
        deleted = ordered[: max(0, len(ordered) - keep)]
        assert self.chat.truncate(keep) == len(deleted)
        for message in deleted:
            del self.mine.messages[message.message_id]
        self.mine.version += bool(deleted)

    @rule()
    def clear(self) -> None:
        assert self.chat.clear() == len(self.mine.messages)
        self.mine.version += bool(self.mine.messages)
        self.mine.messages = {}

    @rule(title=_texts, metadata=_metadata)
    def update_session(self, title: str, metadata: dict[str, Any]) -> None:
        got = self.chat.update_session(title=title, metadata=metadata)
        self.mine.title = title
        self.mine.metadata.update(metadata)
        self.mine.version += 1
        assert got == self.chat.session()

    @rule()
    def delete(self) -> None:
        erased = self.chat.delete()
        assert erased.sessions == (self.mine.version > 0)
        assert erased.messages == len(self.mine.messages)
        del self.model[self.key]

    @rule(user=_users)
    def erase_user(self, user: str) -> None:
        erased_keys = [k for k, m in self.model.items() if k[0] == user and m.version]
        erased = self.store.erase_user(user)
        assert erased.sessions == len(erased_keys)
        assert erased.messages == sum(len(self.model[k].messages) for k in erased_keys)
        for key in erased_keys:
            del self.model[key]

    @precondition(lambda self: self.mine.version)
    @rule(session=_sessions)
    def fork(self, session: str) -> None:
        target = (self.key[0], session)
        if target == self.key or (target in self.model and self.model[target].version):
            return
        self.chat.fork(session)
        copy = self.model[target] = _Model()
        for message in self.mine.ordered():
            copy.keep(message)
        copy.version = 1
        copy.title = self.mine.title
        copy.metadata = dict(self.mine.metadata)

    @invariant()
    def reads_agree(self) -> None:
        chat, mine = self.chat, self.mine
        expected = mine.ordered()
        assert list(chat.iter_messages()) == expected
        assert chat.list_messages(order="desc", limit=3).items == expected[::-1][:3]
        condition = where("k").exists()
        assert list(chat.iter_messages(where=condition)) == [
            m for m in expected if "k" in m.metadata
        ]
        session = chat.session()
        if mine.version == 0:
            assert session is None
        else:
            assert session is not None
            assert session.message_count == len(expected)
            assert session.version == mine.version
            assert (session.title, session.metadata) == (mine.title, mine.metadata)

    @invariant()
    def windows_agree(self) -> None:
        expected = self.mine.ordered()
        for last in (1, 3):
            whole = cut(expected, [], Window(last=last), complete=True)
            assert whole is not None
            assert self.chat.window(last) == whole.messages
        instructions = [m for m in self.chat.window(None) if is_pinned(m.role)]
        assert instructions == [m for m in expected if is_pinned(m.role) and m.text.strip()]

    @invariant()
    def listings_agree(self) -> None:
        live = {key for key, model in self.model.items() if model.version}
        assert {(s.user_id, s.session_id) for s in self.store.iter_sessions()} == live
        self.listing_agrees(self.key[0], live)
        stats = self.store.stats()
        assert stats.sessions == len(live)
        assert stats.messages == sum(len(self.model[key].messages) for key in live)

    def listing_agrees(self, user: str, live: set[tuple[str, str]]) -> None:
        mine = {(s.user_id, s.session_id) for s in self.store.iter_sessions(user_id=user)}
        assert mine == {key for key in live if key[0] == user}


def run_against_oracle(
    open_backend: Callable[[], Backend], *, examples: int = 60, steps: int = 30
) -> None:
    """Random operations over fresh backends, compared with a plain dict after each one.

    Args:
        open_backend: opens a backend on storage that is empty (it is cleared after each example).
        examples: sequences to run; hypothesis shrinks one that fails.
        steps: operations a sequence.

    Raises:
        AssertionError: the backend and the dict disagree; the sequence is printed.
    """
    machine = type("StoreMachine", (StoreMachine,), {"open_backend": staticmethod(open_backend)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=tuple(HealthCheck),  # pyright: ignore[reportArgumentType]  # its metaclass hides that it is an Enum
        ),
    )
