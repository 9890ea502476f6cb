"""Under LlamaIndex's own memories and chat engines, with a model that answers from its context."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.chat_engine import ContextChatEngine, SimpleChatEngine
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer, ChatSummaryMemoryBuffer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import FunctionTool

from llamaindex_tsmemory import TSMemoryChatStore
from tests.adapters.llamaindex.conftest import Call
from tsmemory import Message, Store, Window


class Listener(CustomLLM):
    """Answers "what is my …?" with what an earlier message of its context says of it."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=4096, num_output=64, is_chat_model=True)

    def _answer(self, messages: Sequence[ChatMessage]) -> str:
        if "summary" in (messages[0].content or ""):
            return "Summary: " + " ".join(re.findall(r"my \w+ is \w+", messages[-1].content or ""))
        asked = re.search(r"what is my (\w+)", messages[-1].content or "", re.IGNORECASE)
        if not asked:
            return "Noted."
        for message in messages[:-1]:
            said = re.search(rf"my {asked[1]} is (\w+)", message.content or "", re.IGNORECASE)
            if said:
                return f"Your {asked[1]} is {said[1]}."
        return "I do not know."

    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        answer = ChatMessage(role=MessageRole.ASSISTANT, content=self._answer(messages))
        return ChatResponse(message=answer)

    async def achat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        return self.chat(messages)

    def stream_chat(self, messages: Sequence[ChatMessage], **_: Any) -> Any:
        answer = self._answer(messages)

        def words() -> Any:
            said = ""
            for word in answer.split(" "):
                said += f" {word}" if said else word
                yield ChatResponse(
                    message=ChatMessage(role=MessageRole.ASSISTANT, content=said), delta=word
                )

        return words()

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        return CompletionResponse(text=self._answer([ChatMessage(content=prompt)]))

    def stream_complete(
        self, prompt: str, formatted: bool = False, **_: Any
    ) -> CompletionResponseGen:
        yield self.complete(prompt)


class Facts(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text="my seat is 7A"), score=1.0)]


def buffer(chats: TSMemoryChatStore, limit: int = 1000) -> ChatMemoryBuffer:
    return ChatMemoryBuffer.from_defaults(
        chat_store=chats, chat_store_key="k", token_limit=limit, tokenizer_fn=str.split
    )


def said(found: list[ChatMessage]) -> list[tuple[str, str | None]]:
    return [(m.role.value, m.content) for m in found]


TALK = [
    ("user", "my name is Ada"),
    ("assistant", "Noted."),
    ("user", "What is my name?"),
    ("assistant", "Your name is Ada."),
]


def test_simple_chat_engine_goes_on_in_another_process(tmp_path: Path, call: Call) -> None:
    url = f"sqlite:///{tmp_path}/chat.db"
    with TSMemoryChatStore(url, user_id="ada") as chats:
        engine = SimpleChatEngine.from_defaults(llm=Listener(), memory=buffer(chats))
        assert call(engine, "chat", "my name is Ada").response == "Noted."
        assert said(engine.chat_history) == TALK[:2]
    with TSMemoryChatStore(url, user_id="ada") as chats:
        engine = SimpleChatEngine.from_defaults(llm=Listener(), memory=buffer(chats))
        assert call(engine, "chat", "What is my name?").response == "Your name is Ada."
        assert said(chats.get_messages("k")) == TALK
        assert "".join(engine.stream_chat("What is my name?").response_gen).endswith("Ada.")
        assert len(chats.get_messages("k")) == 6
        call(engine, "chat", "What is my name?", chat_history=[ChatMessage(content="hello")])
        assert len(chats.get_messages("k")) == 3  # a history that is given takes its place
        engine.reset()
        assert chats.get_keys() == []


def test_context_chat_engine(chats: TSMemoryChatStore, call: Call) -> None:
    engine = ContextChatEngine.from_defaults(
        retriever=Facts(), llm=Listener(), memory=buffer(chats)
    )
    assert call(engine, "chat", "what is my seat?").response == "Your seat is 7A."
    assert said(chats.get_messages("k")) == [
        ("user", "what is my seat?"),
        ("assistant", "Your seat is 7A."),
    ]


def test_an_engine_with_a_window_keeps_the_transcript(store: Store, call: Call) -> None:
    chats = TSMemoryChatStore(store, window=Window(last=4))
    engine = SimpleChatEngine.from_defaults(llm=Listener(), memory=buffer(chats))
    call(engine, "chat", "my name is Ada")
    for _ in range(5):
        call(engine, "chat", "hm")
    assert call(engine, "chat", "What is my name?").response == "I do not know."
    transcript = list(store.conversation("k").iter_messages())
    assert len(transcript) == 14
    assert transcript[0].text == "my name is Ada"


def test_memory_buffer(chats: TSMemoryChatStore, call: Call) -> None:
    memory = buffer(chats, limit=5)
    for role, text in TALK:
        call(memory, "put", ChatMessage(role=role, content=text))
    assert said(call(memory, "get_all")) == TALK
    assert said(call(memory, "get")) == [("assistant", "Your name is Ada.")]
    assert said(call(memory, "get_all")) == TALK  # a token limit shows less and deletes nothing
    call(memory, "set", call(memory, "get_all")[:2])
    assert said(call(memory, "get_all")) == TALK[:2]
    call(memory, "reset")
    assert call(memory, "get_all") == []


def test_memory_buffer_is_restored_with_its_store(tmp_path: Path) -> None:
    with TSMemoryChatStore(f"sqlite:///{tmp_path}/chat.db", user_id="ada") as chats:
        memory = buffer(chats)
        memory.put(ChatMessage(content="my name is Ada"))
        data = memory.to_dict()
    again = ChatMemoryBuffer.from_dict({**data, "tokenizer_fn": str.split})
    assert isinstance(again.chat_store, TSMemoryChatStore)
    with again.chat_store:
        assert said(again.get()) == TALK[:1]


def test_summary_memory_buffer(chats: TSMemoryChatStore, call: Call) -> None:
    memory = ChatSummaryMemoryBuffer.from_defaults(
        llm=Listener(),
        chat_store=chats,
        chat_store_key="k",
        token_limit=8,
        tokenizer_fn=str.split,
    )
    for role, text in TALK:
        call(memory, "put", ChatMessage(role=role, content=text))
    shown = call(memory, "get")
    assert said(shown) == [("system", "Summary: my name is Ada"), *TALK[2:]]
    assert call(memory, "get_all") == shown
    engine = SimpleChatEngine.from_defaults(llm=Listener(), memory=memory)
    assert call(engine, "chat", "What is my name?").response == "Your name is Ada."


def test_a_conversation_that_others_began(store: Store, call: Call) -> None:
    theirs = {"langchain": {"usage_metadata": {"input_tokens": 1}}}
    store.conversation("k").append(Message.user("my name is Ada", extensions=theirs))
    chats = TSMemoryChatStore(store)
    engine = SimpleChatEngine.from_defaults(llm=Listener(), memory=buffer(chats))
    assert call(engine, "chat", "What is my name?").response == "Your name is Ada."
    first = next(store.conversation("k").iter_messages())
    assert first.extensions == theirs


# LlamaIndex's workflows look at every attribute of the agent, pydantic's deprecated ones too.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
def test_function_agent(store: Store) -> None:
    def weigh(animal: str = "cat") -> str:
        """Weigh an animal."""
        return f"the {animal} weighs 4 kg"

    def model(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
        if messages[-1].role is MessageRole.TOOL:
            return ChatMessage(role="assistant", content=f"So {messages[-1].content}.")
        wanted = ToolCallBlock(tool_call_id="c1", tool_name="weigh", tool_kwargs={"animal": "cat"})
        return ChatMessage(role="assistant", blocks=[wanted])

    chats = TSMemoryChatStore(store)
    agent = FunctionAgent(
        tools=[FunctionTool.from_defaults(weigh)],
        llm=MockFunctionCallingLLM(response_generator=model),
        streaming=False,
    )

    async def ask(text: str) -> str:
        return str(await agent.run(text, memory=buffer(chats)))

    assert asyncio.run(ask("how heavy is the cat?")) == "So the cat weighs 4 kg."
    stored = list(store.conversation("k").iter_messages())
    assert [m.role for m in stored] == ["user", "assistant", "tool", "assistant"]
    (call,) = stored[1].tool_calls
    assert (call.name, call.arguments) == ("weigh", {"animal": "cat"})
    assert (stored[2].tool_call_id, stored[2].text) == (call.id, "the cat weighs 4 kg")


def test_two_chats_at_once_lose_nothing(store: Store) -> None:
    chats = TSMemoryChatStore(store)

    async def work() -> None:
        engines = [
            SimpleChatEngine.from_defaults(llm=Listener(), memory=buffer(chats)) for _ in range(5)
        ]
        await asyncio.gather(*(e.achat(f"my name is Ada{i}") for i, e in enumerate(engines)))

    asyncio.run(work())
    found = said(chats.get_messages("k"))
    assert len(found) == 10
    assert len(set(found)) == 6


@pytest.mark.parametrize("limit", [1, 50])
def test_tool_loops_come_back_whole(chats: TSMemoryChatStore, call: Call, limit: int) -> None:
    chats = TSMemoryChatStore(chats.store, window=limit)
    loop = [
        ChatMessage(role="user", content="look it up"),
        ChatMessage(
            role="assistant",
            content=None,
            additional_kwargs={
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}"},
                    }
                ]
            },
        ),
        ChatMessage(role="tool", content="42", additional_kwargs={"tool_call_id": "c1"}),
    ]
    for message in loop:
        call(chats, "add_message", "k", message)
    assert call(chats, "get_messages", "k") == loop
