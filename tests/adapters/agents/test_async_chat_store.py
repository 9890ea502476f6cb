"""`TSMemoryAsyncChatStore`, under `Memory` and beside the store that LlamaIndex has itself."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.memory import Memory
from llama_index.core.memory.memory import BaseMemoryBlock
from llama_index.core.storage.chat_store.base_db import MessageStatus
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore
from llama_index.core.tools import FunctionTool

from llamaindex_tsmemory import TSMemoryAsyncChatStore
from tests.adapters.agents._agents import ask_llama, roles, texts, transcript
from tests.adapters.agents._models import ScriptedLLM, llama_loop
from tsmemory import InvalidInputError, Message, Store, ToolCall, open_store

# llama-index-workflows looks at every attribute of an agent, deprecated ones of pydantic too.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")

ACTIVE, ARCHIVED = MessageStatus.ACTIVE, MessageStatus.ARCHIVED


def said(*contents: str) -> list[ChatMessage]:
    """Messages of user and assistant in turns."""
    return [
        ChatMessage(role="assistant" if i % 2 else "user", content=text)
        for i, text in enumerate(contents)
    ]


def contents(messages: list[ChatMessage]) -> str:
    return "".join(m.content or "" for m in messages)


async def by_status(store: Any, key: str = "s") -> tuple[str, str, str]:
    """What is active, archived, and all."""
    return (
        contents(await store.get_messages(key)),
        contents(await store.get_messages(key, ARCHIVED)),
        contents(await store.get_messages(key, None)),
    )


Step = Callable[[Any], Awaitable[Any]]
STEPS: dict[str, list[Step]] = {
    "add": [lambda s: s.add_messages("s", said(*"abcd")), lambda s: s.add_message("s", *said("e"))],
    "archive": [
        lambda s: s.add_messages("s", said(*"abcdef")),
        lambda s: s.archive_oldest_messages("s", 2),
        lambda s: s.archive_oldest_messages("s", 1),
        lambda s: s.add_message("s", *said("g")),
        lambda s: s.archive_oldest_messages("s", 0),
    ],
    "archive all": [
        lambda s: s.add_messages("s", said(*"abc")),
        lambda s: s.archive_oldest_messages("s", 9),
        lambda s: s.archive_oldest_messages("s", 9),
        lambda s: s.add_message("s", *said("d")),
    ],
    "add archived": [
        lambda s: s.add_messages("s", said(*"ab")),
        lambda s: s.add_message("s", *said("c"), ARCHIVED),
        lambda s: s.add_messages("s", said(*"de")),
        lambda s: s.archive_oldest_messages("s", 3),
    ],
    "delete oldest": [
        lambda s: s.add_messages("s", said(*"abcdef")),
        lambda s: s.archive_oldest_messages("s", 2),
        lambda s: s.delete_oldest_messages("s", 3),
        lambda s: s.delete_oldest_messages("none", 3),
    ],
    "delete by status": [
        lambda s: s.add_messages("s", said(*"abcdef")),
        lambda s: s.archive_oldest_messages("s", 2),
        lambda s: s.delete_messages("s", ACTIVE),
        lambda s: s.add_messages("s", said(*"gh")),
        lambda s: s.delete_messages("s", ARCHIVED),
    ],
    "delete": [
        lambda s: s.add_messages("s", said(*"abc")),
        lambda s: s.archive_oldest_messages("s", 2),
        lambda s: s.delete_messages("s"),
        lambda s: s.add_messages("s", said(*"de")),
    ],
    "unknown": [
        lambda s: s.archive_oldest_messages("none", 3),
        lambda s: s.delete_messages("none", ARCHIVED),
        lambda s: s.delete_messages("none"),
    ],
}


@pytest.mark.parametrize("name", STEPS)
def test_as_llamaindex_s_own_store(store: Store, name: str) -> None:
    """Step by step, the same results and the same messages of each status."""

    async def run() -> None:
        own = SQLAlchemyChatStore(table_name="t")
        ours = TSMemoryAsyncChatStore(store)
        for step in STEPS[name]:
            assert await step(ours) == await step(own)
            assert await by_status(ours) == await by_status(own)
            for status in (ACTIVE, ARCHIVED, None):
                assert await ours.count_messages("s", status) == await own.count_messages(
                    "s", status
                )
                for limit, offset in ((2, None), (2, 1), (0, 0), (None, None), (3, 9)):
                    assert await ours.get_messages(
                        "s", status, limit, offset
                    ) == await own.get_messages("s", status, limit, offset)
            assert sorted(await ours.get_keys()) == sorted(await own.get_keys())
        await own._async_engine.dispose()

    asyncio.run(run())


def test_where_it_is_not_as_llamaindex_s_own(store: Store) -> None:
    async def run() -> None:
        ours = TSMemoryAsyncChatStore(store)
        await ours.add_messages("s", [])  # fails there
        assert await ours.get_keys() == []
        await ours.add_messages("s", said(*"abcdef"))
        newest = await ours.get_messages("s", limit=2, offset=-2)
        assert contents(newest) == "ef"
        assert contents(await ours.get_messages("s", None, offset=-3)) == "def"
        await ours.archive_oldest_messages("s", 2)
        assert contents(await ours.get_messages("s", ARCHIVED, offset=-1)) == "b"
        await ours.set_messages("s", said(*"xy"))
        assert await by_status(ours) == ("xy", "abcdef", "abcdefxy")  # there, all others go
        assert await ours.count_messages("s", ARCHIVED) == 6
        await ours.set_messages("s", said(*"xpqy"))
        await ours.set_messages("s", said(*"xy"))
        assert (await by_status(ours))[:2] == ("xy", "abcdefpq")
        assert await ours.count_messages("s") == 2
        await ours.set_messages("s", said(*"pq"), ARCHIVED)
        assert (await by_status(ours))[:2] == ("xy", "pq")
        assert contents([await ours.delete_message("s", 0) or ChatMessage()]) == "x"  # a position
        assert await ours.delete_message("s", 7) is None
        assert contents([await ours.delete_message("s", -1) or ChatMessage()]) == "y"
        assert await by_status(ours) == ("", "pq", "pq")

    asyncio.run(run())


def test_bad_arguments(store: Store) -> None:
    async def run() -> None:
        ours = TSMemoryAsyncChatStore(store)
        bad: list[Callable[[], Awaitable[Any]]] = [
            lambda: ours.get_messages("s", "active"),  # type: ignore[arg-type]
            lambda: ours.get_messages("s", limit=-1),
            lambda: ours.get_messages("s", offset="x"),  # type: ignore[arg-type]
            lambda: ours.get_messages(""),
            lambda: ours.add_message("s", "hello"),  # type: ignore[arg-type]
            lambda: ours.add_messages("s", "hello"),  # type: ignore[arg-type]
            lambda: ours.add_message("s", said("a")[0], None),  # type: ignore[arg-type]
            lambda: ours.delete_message("s", "id"),  # type: ignore[arg-type]
            lambda: ours.archive_oldest_messages("s", -1),
        ]
        for call in bad:
            with pytest.raises(InvalidInputError):
                await call()

    asyncio.run(run())
    with pytest.raises(InvalidInputError):
        TSMemoryAsyncChatStore(store, user_id="")
    with pytest.raises(InvalidInputError):
        TSMemoryAsyncChatStore()
    assert store.stats().sessions == 0


def test_many_pages(store: Store) -> None:
    async def run() -> None:
        ours = TSMemoryAsyncChatStore(store)
        await ours.add_messages("s", said(*map(str, range(1234))))
        await ours.archive_oldest_messages("s", 700)
        assert await ours.count_messages("s") == 534
        assert await ours.count_messages("s", ARCHIVED) == 700
        assert contents(await ours.get_messages("s", None, 2, 600)) == "600601"

    asyncio.run(run())


class Counting:
    """How many messages the store has read and written."""

    def __init__(self, store: Store, patch: pytest.MonkeyPatch) -> None:
        self.messages = 0
        self.commits = 0
        backend = store.backend
        read, commit = backend.read, backend.commit

        def counted_read(key: Any, query: Any) -> Any:
            done = yield from read(key, query)
            self.messages += len(done.rows)
            return done

        def counted_commit(key: Any, change: Any) -> Any:
            self.commits += 1
            return (yield from commit(key, change))

        patch.setattr(backend, "read", counted_read)
        patch.setattr(backend, "commit", counted_commit)

    async def of(self, call: Awaitable[Any]) -> tuple[int, int]:
        self.messages = self.commits = 0
        await call
        return self.messages, self.commits


def test_what_is_read_does_not_grow_with_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async def costs(length: int) -> list[tuple[int, int]]:
        with open_store("memory:") as store, monkeypatch.context() as patch:
            ours = TSMemoryAsyncChatStore(store)
            await ours.add_messages("s", said(*map(str, range(length))))
            counting = Counting(store, patch)
            return [
                await counting.of(call)
                for call in (
                    ours.get_messages("s", limit=20, offset=-20),
                    ours.get_messages("s", limit=20),
                    ours.count_messages("s"),
                    ours.delete_message("s", -1),
                    ours.archive_oldest_messages("s", 10),
                    ours.add_messages("s", said(*"abcd")),
                )
            ]

    short, long = asyncio.run(costs(200)), asyncio.run(costs(4000))
    assert short == long
    assert all(messages <= 40 for messages, _ in long)
    assert [commits for _, commits in long] == [0, 0, 0, 1, 1, 1]


def test_a_part_shows_what_the_whole_shows(store: Store) -> None:
    """Turns with calls, some of them cut off, whichever part of them is asked for."""
    chat = store.conversation("s")
    for turn in range(12):
        calls = [ToolCall(f"{turn}.{i}", "f", {}) for i in range(turn % 4)]
        chat.append(
            Message.user(f"q{turn}"),
            Message.assistant(f"look {turn}", tool_calls=calls),
            *(Message.tool("r", tool_call_id=c.id or "") for c in calls[turn % 3 == 0 :]),
        )
        chat.append(Message.assistant(f"a{turn}"))

    async def run() -> None:
        ours = TSMemoryAsyncChatStore(store)
        whole = await ours.get_messages("s")
        for most in range(1, len(whole) + 2):
            assert await ours.get_messages("s", limit=most, offset=-most) == whole[-most:]
            assert await ours.get_messages("s", limit=most) == whole[:most]
        assert await ours.get_messages("s", limit=3, offset=5) == whole[5:8]
        assert await ours.get_messages("s", limit=3, offset=-5) == whole[-5:-2]
        copy = TSMemoryAsyncChatStore(store)
        assert await copy.archive_oldest_messages("s", 7) == whole[:7]
        assert await copy.get_messages("s") == whole[7:]

    asyncio.run(run())


# -- repair ------------------------------------------------------------------------------------


def test_what_a_crash_left_is_not_active(store: Store) -> None:
    chat = store.conversation("s")
    call = ToolCall("c", "f", {})
    chat.append(
        Message.user("a"),
        Message.assistant("b", tool_calls=[call]),  # its result never came
        Message.user("c"),
        Message.tool("x", tool_call_id="other"),
        Message.assistant("", tool_calls=[ToolCall("d", "f", {})]),
        Message.user("e"),
        Message.tool("d's", tool_call_id="d"),  # behind another message
    )

    async def run() -> None:
        ours = TSMemoryAsyncChatStore(store)
        shown = await ours.get_messages("s")
        assert [m.content for m in shown] == ["a", "b", "c", "e", None, "d's"]
        assert not any(isinstance(b, ToolCallBlock) for b in shown[1].blocks)
        assert await ours.count_messages("s") == 7  # what is stored
        for most in range(1, 8):
            assert await ours.get_messages("s", limit=most, offset=-most) == shown[-most:]
            assert await ours.get_messages("s", limit=most) == shown[:most]
        assert contents(await ours.archive_oldest_messages("s", 4)) == "abce"
        assert contents(await ours.get_messages("s")) == "d's"
        plain = TSMemoryAsyncChatStore(store, repair=False)
        assert contents(await plain.get_messages("s")) == "d's"

    asyncio.run(run())
    assert chat.count() == 7


# -- Memory ------------------------------------------------------------------------------------


class Facts(BaseMemoryBlock[str]):
    """A memory block that keeps what it is given."""

    kept: list[str] = []  # noqa: RUF012  # pydantic copies it

    async def _aget(self, messages: Any = None, **kwargs: Any) -> str:
        return " ".join(self.kept)

    async def _aput(self, messages: list[ChatMessage]) -> None:
        self.kept += [m.content or "" for m in messages]


def memory(store: Store, **options: Any) -> Memory:
    return Memory.from_defaults(
        session_id="s",
        chat_store=TSMemoryAsyncChatStore(store),
        tokenizer_fn=str.split,
        **options,
    )


def test_what_is_flushed_stays_in_the_transcript(store: Store, mode: str) -> None:
    facts = Facts(name="facts")
    kept = memory(store, token_limit=20, token_flush_size=4, memory_blocks=[facts])
    words = [f"{n} one two" for n in range(12)]
    for message in said(*words):
        if mode == "sync":
            kept.put(message)
        else:
            asyncio.run(kept.aput(message))
    active = [m.content for m in kept.get_all(ACTIVE)]
    assert 0 < len(active) < 12
    assert facts.kept + active == words  # each is either active or in the block
    assert texts(store) == words
    assert [m.content for m in kept.get_all()] == words
    shown = kept.get()
    assert facts.kept[0] in (shown[0].content or "")
    assert texts(store) == words  # what Memory puts into messages does not reach the store
    again = memory(store, token_limit=20, token_flush_size=4)
    assert [m.content for m in again.get_all(ACTIVE)] == active  # another process goes on
    kept.reset()
    assert texts(store) == []


def test_memory_is_attached_again(store: Store) -> None:
    """`Memory` leaves its store out of what it writes."""
    kept = memory(store, chat_history=said("a", "b"))
    data = kept.to_dict()
    assert "store" not in str(data)
    # Not Memory.from_dict: llama-index-core cannot read the template that it wrote.
    again = Memory.from_defaults(
        session_id=data["session_id"],
        chat_store=TSMemoryAsyncChatStore(store),
        token_limit=data["token_limit"],
        tokenizer_fn=str.split,
    )
    assert [m.content for m in again.get_all()] == ["a", "b"]


def test_a_run_with_a_chat_history_of_its_own_deletes_nothing(store: Store) -> None:
    kept = memory(store, chat_history=said("a", "b"))

    async def run() -> None:
        agent = FunctionAgent(tools=[], llm=ScriptedLLM(script=llama_loop(0)))
        await agent.run(user_msg="c", chat_history=said("x", "y"), memory=kept)

    asyncio.run(run())
    assert texts(store) == ["a", "b", "x", "y", "c", "0 steps done"]
    assert [m.content for m in kept.get_all(ACTIVE)] == ["x", "y", "c", "0 steps done"]


def test_a_function_agent(store: Store) -> None:
    llm = ScriptedLLM(script=llama_loop(2))
    assert asyncio.run(ask_llama(store, llm, "go")) == "2 steps done"
    assert asyncio.run(ask_llama(store, llm, "again")) == "2 steps done"
    assert roles(store) == ["uatata" * 2]
    shown = "".join(m.role.value[0] for m in llm.requests[-1])
    assert shown == "s" + "uatata" + "uatat"


def test_an_agent_workflow(store: Store) -> None:
    def step(number: int) -> str:
        """Take a step."""
        return f"did {number}"

    llm = ScriptedLLM(script=llama_loop(1))
    made = FunctionAgent(
        name="walker",
        description="Takes steps.",
        tools=[FunctionTool.from_defaults(step)],
        llm=llm,
        system_prompt="Be brief.",
    )

    async def run() -> None:
        workflow = AgentWorkflow(agents=[made], root_agent="walker")
        for _ in range(2):
            await workflow.run("go", memory=memory(store))

    asyncio.run(run())
    assert roles(store) == ["uata" * 2]


# -- serialisation -------------------------------------------------------------------------------


def test_there_and_back_without_secrets(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'c.db'}"
    with TSMemoryAsyncChatStore.from_url(url, user_id="ada", ttl=60) as first:
        asyncio.run(first.add_messages("s", said("a")))
        for again in (
            TSMemoryAsyncChatStore.from_dict(first.to_dict()),
            TSMemoryAsyncChatStore.model_validate_json(first.model_dump_json()),
            pickle.loads(pickle.dumps(first)),
            copy.deepcopy(first),
        ):
            assert asyncio.run(again.get_messages("s")) == said("a")
            assert (again.user_id, again.ttl, again.repair) == ("ada", 60, True)
            again.close()
        assert asyncio.run(first.get_messages("s")) == said("a")
    store = open_store("memory:")
    given = TSMemoryAsyncChatStore.from_store(store)
    with pytest.raises(InvalidInputError, match=r"TSMemoryAsyncChatStore\.from_dict"):
        TSMemoryAsyncChatStore.from_dict(given.to_dict())
    assert TSMemoryAsyncChatStore.from_dict(given.to_dict(), store=store).store is store
    monkeypatch.setenv("TSMEMORY_URL", url)
    TSMemoryAsyncChatStore.from_dict(given.to_dict()).close()
    given.url = "redis://:***@host"
    assert "secret" not in repr(given)


def test_leaving_it_closes_it(tmp_path: Any) -> None:
    async def run() -> None:
        async with TSMemoryAsyncChatStore(f"sqlite:///{tmp_path / 'c.db'}") as ours:
            await ours.add_messages("s", said("a", "b"))
            assert len(transcript(ours.store)) == 2

    asyncio.run(run())
