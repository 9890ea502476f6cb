"""Models that follow a script, for both frameworks, and record what they were shown."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    LLMMetadata,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.mock import MockLLM
from pydantic import Field

from langchain_tsmemory import to_neutral
from llamaindex_tsmemory import to_neutral as from_llamaindex
from tests._chat_api import refusal
from tsmemory import Message

Script = Callable[[list[BaseMessage]], AIMessage]


class ScriptedModel(BaseChatModel):
    """A chat model of LangChain that answers by a function of what it is shown.

    It refuses what a chat API would refuse.
    """

    script: Script
    requests: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ScriptedModel:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        check([to_neutral(m) for m in messages])
        self.requests.append(list(messages))
        return ChatResult(generations=[ChatGeneration(message=self.script(messages))])

    def shown(self) -> list[str]:
        """The texts of the last request."""
        return [str(m.text) for m in self.requests[-1]]


class StreamingModel(ScriptedModel):
    """Same, but it streams its answer word by word."""

    def _stream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        answer = self._generate(messages).generations[0].message
        words = str(answer.text).split(" ") if answer.text else []
        for i, word in enumerate(words):
            yield ChatGenerationChunk(message=AIMessageChunk((" " if i else "") + word))
        if isinstance(answer, AIMessage) and answer.tool_calls:
            chunks = [
                {"name": c["name"], "args": "{}", "id": c["id"], "index": i}
                for i, c in enumerate(answer.tool_calls)
            ]
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=chunks))


def check(messages: Sequence[Message]) -> None:
    """Raises where a chat API would refuse the request."""
    why = refusal(messages)
    assert why is None, why


def say(*texts: str) -> Script:
    """A script that says these, one a call, and then how many messages it was shown."""
    waiting = list(texts)

    def script(messages: list[BaseMessage]) -> AIMessage:
        return AIMessage(waiting.pop(0) if waiting else f"shown {len(messages)}")

    return script


def loop(steps: int, name: str = "step") -> Script:
    """A script that calls a tool `steps` times since the last question, then says so."""

    def script(messages: list[BaseMessage]) -> AIMessage:
        question = max(i for i, m in enumerate(messages) if m.type == "human")
        done = sum(m.type == "tool" for m in messages[question:])
        if done < steps:
            call = {"name": name, "args": {"number": done + 1}, "id": f"call-{done + 1}"}
            return AIMessage(f"step {done + 1}", tool_calls=[call])
        return AIMessage(f"{done} steps done")

    return script


class ScriptedLLM(MockLLM, FunctionCallingLLM):
    """A function-calling model of LlamaIndex that answers by a function of what it is shown."""

    script: Any = None
    requests: list[list[ChatMessage]] = Field(default_factory=list)

    def __init__(self, script: Callable[[list[ChatMessage]], ChatMessage]) -> None:
        super().__init__()
        self.script = script

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_function_calling_model=True, is_chat_model=True)

    @classmethod
    def class_name(cls) -> str:
        return "ScriptedLLM"

    def _answer(self, messages: Sequence[ChatMessage]) -> ChatResponse:
        check([from_llamaindex(m) for m in messages])
        self.requests.append([m.model_copy(deep=True) for m in messages])
        return ChatResponse(message=self.script(list(messages)))

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._answer(messages)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._answer(messages)

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> AsyncGenerator[ChatResponse, None]:
        async def stream() -> AsyncGenerator[ChatResponse, None]:
            yield self._answer(messages)

        return stream()

    async def astream_chat_with_tools(
        self, tools: Any, user_msg: Any = None, chat_history: Any = None, **kwargs: Any
    ) -> AsyncGenerator[ChatResponse, None]:
        return await self.astream_chat(list(chat_history or ()))

    async def achat_with_tools(
        self, tools: Any, user_msg: Any = None, chat_history: Any = None, **kwargs: Any
    ) -> ChatResponse:
        return self._answer(list(chat_history or ()))

    def _prepare_chat_with_tools(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        return [
            ToolSelection(
                tool_id=block.tool_call_id or "",
                tool_name=block.tool_name,
                tool_kwargs=dict(block.tool_kwargs),
            )
            for block in response.message.blocks
            if isinstance(block, ToolCallBlock)
        ]


def llama_loop(steps: int, name: str = "step") -> Callable[[list[ChatMessage]], ChatMessage]:
    """Same as `loop`, for LlamaIndex."""

    def script(messages: list[ChatMessage]) -> ChatMessage:
        question = max(i for i, m in enumerate(messages) if m.role.value == "user")
        done = sum(m.role.value == "tool" for m in messages[question:])
        if done < steps:
            call = ToolCallBlock(
                tool_call_id=f"llama-{done + 1}", tool_name=name, tool_kwargs={"number": done + 1}
            )
            text = TextBlock(text=f"step {done + 1}")
            return ChatMessage(role="assistant", blocks=[text, call])
        return ChatMessage(role="assistant", content=f"{done} steps done")

    return script
