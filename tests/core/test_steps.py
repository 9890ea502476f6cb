"""Operations as typed steps: the same signatures in every mode, and composed into one."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from tsmemory import Conversation, Message, Store, open_store
from tsmemory.engine.steps import Steps
from tsmemory.usecases import ConversationSteps, StoreSteps

_ONLY_STEPS = {"append_and_window", "all_messages", "all_sessions"}
"""Steps for composing, without a method of their own."""
_ONLY_FOR_STEPS = {"hide"}
"""Parameters for composing."""


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store("memory:") as opened:
        yield opened


@pytest.mark.parametrize(
    ("steps", "face"), [(ConversationSteps, Conversation), (StoreSteps, Store)]
)
def test_steps_and_methods_have_one_signature(steps: type, face: type) -> None:
    for name, operation in inspect.getmembers(steps, inspect.isfunction):
        if name.startswith("_") or name in _ONLY_STEPS:
            continue
        parameters = inspect.signature(operation).parameters
        expected = {k: p for k, p in parameters.items() if k not in _ONLY_FOR_STEPS}
        for method in (getattr(face, name), getattr(face, f"a{name}")):
            assert dict(inspect.signature(method).parameters) == expected, name


def _greeting(chat: Conversation, name: str) -> Steps[list[str]]:
    """Three operations as one."""
    yield from chat.steps.append(Message.system("be kind"), Message.user(f"I am {name}."))
    session = yield from chat.steps.update_session(title=name)
    messages = yield from chat.steps.all_messages()
    return [f"{session.title}: {m.text}" for m in messages]


def test_composed_steps_run_in_both_modes(store: Store) -> None:
    expected = ["Ada: be kind", "Ada: I am Ada."]
    assert store.run(_greeting(store.conversation("sync"), "Ada")) == expected
    assert asyncio.run(store.arun(_greeting(store.conversation("async"), "Ada"))) == expected


def test_an_error_is_raised_at_the_operation_that_caused_it(store: Store) -> None:
    chat = store.conversation("s")

    def careful() -> Steps[Any]:
        try:
            yield from chat.steps.update_message("never", content="x")
        except LookupError:
            return (yield from chat.steps.append(Message.user("instead")))

    assert store.run(careful())[0].text == "instead"
    assert asyncio.run(store.arun(careful()))[0].text == "instead"


def test_steps_over_every_page(store: Store) -> None:
    chat = store.conversation("s")
    chat.append(*(Message.user(str(i)) for i in range(1203)))
    assert [m.text for m in store.run(chat.steps.all_messages(order="desc"))] == [
        str(i) for i in range(1202, -1, -1)
    ]
    for i in range(7):
        store.conversation(f"s{i}", user_id="u").append(Message.user("x"))
    sessions = store.run(store.steps.all_sessions(user_id="u"))
    assert [s.session_id for s in sessions] == [f"s{i}" for i in range(6, -1, -1)]
