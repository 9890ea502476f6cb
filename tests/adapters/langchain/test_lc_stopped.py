"""`RunnableWithMessageHistory` stopped in the middle: the turn is stored once, as far as it got."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

from langchain_tsmemory import history_factory
from tests._pairs import in_pairs
from tests.adapters.langchain.test_lc_runnable import run, with_history
from tsmemory import Store, open_store

WORDS = ["ferries", "leave", "at", "half", "past", "eight"]
SAID = "ferries leave at "
CONFIG: Any = {"configurable": {"session_id": "s"}}


class Speaker(BaseChatModel):
    """Says `WORDS` one by one, and calls `hook` before the fourth."""

    hook: Callable[[], Any] = lambda: None

    @property
    def _llm_type(self) -> str:
        return "speaker"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self.hook()
        return ChatResult(generations=[ChatGeneration(message=AIMessage(" ".join(WORDS)))])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        await self._reach()
        return ChatResult(generations=[ChatGeneration(message=AIMessage(" ".join(WORDS)))])

    async def _reach(self) -> None:
        reached = self.hook()
        if reached is not None:
            await reached

    def _stream(self, messages: Any, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        for i, word in enumerate(WORDS):
            if i == 3:
                self.hook()
            yield _chunk(word)

    async def _astream(self, messages: Any, *_: Any, **__: Any) -> AsyncIterator[Any]:
        for i, word in enumerate(WORDS):
            if i == 3:
                await self._reach()
            yield _chunk(word)


def _chunk(word: str) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(f"{word} "))


def _same(value: Any) -> Any:
    return value


def model(speaker: Speaker, store: Store) -> RunnableWithMessageHistory:
    return with_history(speaker, history_factory(store, window=4))


def chain(speaker: Speaker, store: Store) -> RunnableWithMessageHistory:
    return with_history(RunnableLambda(_same) | speaker, history_factory(store))


def text(speaker: Speaker, store: Store) -> RunnableWithMessageHistory:
    return with_history(speaker | StrOutputParser(), history_factory(store))


def prompt(speaker: Speaker, store: Store) -> RunnableWithMessageHistory:
    asking = ChatPromptTemplate.from_messages([MessagesPlaceholder("past"), ("human", "{q}")])
    return with_history(
        {"past": RunnableLambda(lambda value: value["past"]), "q": lambda value: value["q"]}
        | asking
        | speaker,
        history_factory(store),
        input_messages_key="q",
        history_messages_key="past",
    )


def question(build: Any, content: str = "When?") -> Any:
    return {"q": content} if build is prompt else [HumanMessage(content)]


BUILDS = [model, chain, text, prompt]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Store]:
    url = "memory:"
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/chat.db?durability=normal"
    with open_store(url) as opened:
        yield opened


def stored(store: Store, session_id: str = "s") -> list[tuple[str, str, bool]]:
    """Role, text, and whether it is marked as stopped."""
    return [
        (m.role, m.text, m.metadata == {"langgraph": {"partial": True}})
        for m in store.conversation(session_id).iter_messages()
    ]


# -- the ways to stop ----------------------------------------------------------------------------


def leave_a_stream(runnable: Runnable[Any, Any], speaker: Speaker, value: Any) -> None:
    chunks = runnable.stream(value, CONFIG)
    shown = ""
    for chunk in chunks:
        shown += chunk if isinstance(chunk, str) else chunk.text
        if shown == SAID:
            break
    chunks.close()  # type: ignore[attr-defined]  # a generator


def press_ctrl_c(runnable: Runnable[Any, Any], speaker: Speaker, value: Any) -> None:
    speaker.hook = _raising(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        list(runnable.stream(value, CONFIG))


def fail(runnable: Runnable[Any, Any], speaker: Speaker, value: Any) -> None:
    speaker.hook = _raising(ConnectionError)
    with pytest.raises(ConnectionError):
        list(runnable.stream(value, CONFIG))


def leave_an_async_stream(runnable: Runnable[Any, Any], speaker: Speaker, value: Any) -> None:
    async def main() -> None:
        shown = ""
        async with contextlib.aclosing(runnable.astream(value, CONFIG)) as chunks:  # type: ignore[type-var]  # a generator
            async for chunk in chunks:
                shown += chunk if isinstance(chunk, str) else chunk.text
                if shown == SAID:
                    break

    asyncio.run(main())


def abandon_an_async_stream(runnable: Runnable[Any, Any], speaker: Speaker, value: Any) -> None:
    """As most applications do it: nobody closes the stream but the event loop."""

    async def main() -> None:
        shown = ""
        async for chunk in runnable.astream(value, CONFIG):
            shown += chunk if isinstance(chunk, str) else chunk.text
            if shown == SAID:
                break

    asyncio.run(main())


def cancel_a_task(runnable: Runnable[Any, Any], speaker: Speaker, value: Any) -> None:
    _cancelled(runnable, speaker, value, _read)


def fail_in_async(runnable: Runnable[Any, Any], speaker: Speaker, value: Any) -> None:
    speaker.hook = _raising(ConnectionError)
    with pytest.raises(ConnectionError):
        asyncio.run(_read(runnable, value))


def cancel_an_answer(runnable: Runnable[Any, Any], speaker: Speaker, value: Any) -> None:
    async def ask(runnable: Runnable[Any, Any], value: Any) -> None:
        await runnable.ainvoke(value, CONFIG)

    _cancelled(runnable, speaker, value, ask)


def press_ctrl_c_at_an_answer(runnable: Runnable[Any, Any], speaker: Speaker, value: Any) -> None:
    speaker.hook = _raising(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        runnable.invoke(value, CONFIG)


def _raising(error: type[BaseException]) -> Callable[[], None]:
    def hook() -> None:
        raise error("as asked")

    return hook


async def _read(runnable: Runnable[Any, Any], value: Any) -> None:
    async for _ in runnable.astream(value, CONFIG):
        pass


def _cancelled(runnable: Runnable[Any, Any], speaker: Speaker, value: Any, ask: Any) -> None:
    async def main() -> None:
        reached = asyncio.Event()

        async def wait() -> None:
            reached.set()
            await asyncio.Event().wait()

        speaker.hook = wait
        task = asyncio.create_task(ask(runnable, value))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


STREAMED = [leave_a_stream, press_ctrl_c, fail, leave_an_async_stream, abandon_an_async_stream,
            cancel_a_task, fail_in_async]  # fmt: skip
WHOLE = [cancel_an_answer, press_ctrl_c_at_an_answer]


@pytest.mark.parametrize(("build", "stop"), in_pairs(BUILDS, STREAMED))
def test_a_stopped_stream_keeps_question_and_partial_answer(
    store: Store, build: Any, stop: Any
) -> None:
    speaker = Speaker()
    runnable = build(speaker, store)
    stop(runnable, speaker, question(build))
    turn = [("user", "When?", False), ("assistant", SAID, True)]
    assert stored(store) == turn

    speaker.hook = lambda: None
    run(runnable, "stream", question(build, "Go on."))
    assert stored(store)[:2] == turn
    assert [(role, marked) for role, _, marked in stored(store)[2:]] == [
        ("user", False), ("assistant", False)
    ]  # fmt: skip


@pytest.mark.parametrize(("build", "stop"), in_pairs(BUILDS, WHOLE))
def test_a_stopped_answer_keeps_the_question(store: Store, build: Any, stop: Any) -> None:
    speaker = Speaker()
    stop(build(speaker, store), speaker, question(build))
    assert stored(store) == [("user", "When?", False)]


@pytest.mark.parametrize("build", BUILDS)
def test_an_answer_that_fails_before_a_word_stores_nothing(store: Store, build: Any) -> None:
    """Its caller knows of the error, and asks again."""
    speaker = Speaker(hook=_raising(ConnectionError))
    for how in ("invoke", "ainvoke"):
        with pytest.raises(ConnectionError):
            run(build(speaker, store), how, question(build))
    assert stored(store) == []


def _in_other_words(value: Any, config: RunnableConfig) -> Any:
    return [HumanMessage("".join(chunk.text for chunk in Speaker().stream(value, config)))]


@pytest.mark.parametrize("stop", WHOLE)
def test_what_a_model_said_before_the_one_that_answers_is_no_answer(
    store: Store, stop: Any
) -> None:
    speaker = Speaker()
    runnable = with_history(RunnableLambda(_in_other_words) | speaker, history_factory(store))
    stop(runnable, speaker, question(model))
    assert stored(store) == [("user", "When?", False)]


def test_what_a_model_said_before_a_retriever_that_fails_is_no_answer(store: Store) -> None:
    class Retriever(BaseRetriever):
        def _get_relevant_documents(self, query: str, **_: Any) -> Any:
            raise ConnectionError

    steps = RunnableLambda(_in_other_words) | RunnableLambda(str) | Retriever()
    with pytest.raises(ConnectionError):
        run(with_history(steps, history_factory(store)), "invoke", question(model))
    assert stored(store) == []


def test_of_two_models_at_once_the_one_heard_last_is_kept_whole(store: Store) -> None:
    def both(value: Any, config: RunnableConfig) -> Any:
        streams = [Speaker().stream(value, config) for _ in range(2)]
        for _ in range(3):
            for stream in streams:
                next(stream)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(with_history(RunnableLambda(both), history_factory(store)), "invoke", question(model))
    assert stored(store) == [("user", "When?", False), ("assistant", SAID, True)]


@pytest.mark.parametrize("how", ["batch", "abatch"])
def test_each_run_of_a_batch_has_its_own(store: Store, how: str) -> None:
    class Odd(BaseException):
        pass

    def answer(messages: list[BaseMessage]) -> AIMessage:
        if messages[-1].content == "q1":
            raise Odd
        return AIMessage(f"re: {messages[-1].content}")

    runnable = with_history(RunnableLambda(answer), history_factory(store))
    values = [[HumanMessage(f"q{i}")] for i in range(3)]
    configs: Any = [{"configurable": {"session_id": f"s{i}"}} for i in range(3)]

    def ask() -> None:
        if how == "batch":
            runnable.batch(values, configs)
        else:
            asyncio.run(runnable.abatch(values, configs))  # type: ignore[arg-type]

    with pytest.raises(Odd):
        ask()
    assert stored(store, "s1") == [("user", "q1", False)]
    for other in ("s0", "s2"):  # ended, not begun, or (in async) cancelled
        assert [role for role, _, _ in stored(store, other)] in (
            [],
            ["user"],
            ["user", "assistant"],
        )


@pytest.mark.parametrize("how", ["stream", "astream"])
def test_a_question_with_an_id_asked_again_is_stored_once(store: Store, how: str) -> None:
    speaker = Speaker()
    runnable = model(speaker, store)
    asked = [HumanMessage("When?", id="q1")]
    leave_a_stream(runnable, speaker, asked)
    run(runnable, how, asked)
    assert [role for role, _, _ in stored(store)] == ["user", "assistant", "assistant"]


def test_an_interrupt_while_the_turn_is_being_written(store: Store) -> None:
    """It arrived, but nobody was told: it is written again under the same ids."""

    def commit_and_raise(*arguments: Any, **options: Any) -> Any:
        yield from commit(*arguments, **options)
        store.backend.commit = commit  # type: ignore[method-assign]
        raise KeyboardInterrupt

    commit = store.backend.commit
    store.backend.commit = commit_and_raise  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(model(Speaker(), store), "invoke", question(model))
    assert stored(store) == [("user", "When?", False), ("assistant", " ".join(WORDS), False)]


@pytest.mark.parametrize("stop", [leave_a_stream, leave_an_async_stream])
def test_a_chain_around_it_with_callbacks_of_its_own(store: Store, stop: Any) -> None:
    speaker = Speaker()
    runnable = RunnableLambda(_same) | chain(speaker, store)
    stop(runnable, speaker, question(chain))
    assert stored(store) == [("user", "When?", False), ("assistant", SAID, True)]
