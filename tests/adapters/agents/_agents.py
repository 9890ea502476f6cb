"""Agents of both frameworks on one store, called sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import tool
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.memory import Memory
from llama_index.core.tools import FunctionTool

from langchain_tsmemory import TSMemoryMiddleware
from llamaindex_tsmemory import TSMemoryAsyncChatStore
from tests.adapters.agents._models import ScriptedLLM, ScriptedModel
from tsmemory import Message, Store

Fact = tuple[Any, ...]


def config(session: str = "s", **more: str) -> dict[str, Any]:
    """A run's configuration that names the session."""
    # Old releases end a run after 25 steps, and a tool call is three.
    return {"configurable": {"session_id": session, **more}, "recursion_limit": 200}


@tool
def step(number: int) -> str:
    """Take a step."""
    return f"did {number}"


def agent(
    store: Store,
    model: ScriptedModel,
    *middleware: AgentMiddleware,
    checkpointer: Any = None,
    tools: Any = (step,),
    **options: Any,
) -> Any:
    """An agent whose first middleware is ours."""
    mine = TSMemoryMiddleware(store, **options)
    return create_agent(
        model,
        list(tools),
        system_prompt="Be brief.",
        middleware=[mine, *middleware],
        checkpointer=checkpointer,
    )


def ask(
    made: Any, text: str | HumanMessage, *, mode: str = "sync", session: str = "s", **more: str
) -> dict[str, Any]:
    """One run of an agent of LangChain."""
    asked = {"messages": [HumanMessage(text) if isinstance(text, str) else text]}
    if mode == "sync":
        return dict(made.invoke(asked, config(session, **more)))
    return dict(asyncio.run(made.ainvoke(asked, config(session, **more))))


async def ask_llama(
    store: Store, llm: ScriptedLLM, text: str, *, session: str = "s", **memory: Any
) -> str:
    """One run of a function agent of LlamaIndex."""

    def step(number: int) -> str:
        """Take a step."""
        return f"did {number}"

    made = FunctionAgent(
        tools=[FunctionTool.from_defaults(step)], llm=llm, system_prompt="Be brief."
    )
    memory.setdefault("tokenizer_fn", str.split)
    kept = Memory.from_defaults(
        session_id=session, chat_store=TSMemoryAsyncChatStore(store), **memory
    )
    return str(await made.run(text, memory=kept))


def roles(store: Store, session: str = "s") -> list[str]:
    """The transcript, a letter a message."""
    names = {"user": "u", "assistant": "a", "tool": "t", "system": "s"}
    return ["".join(names[m.role] for m in store.conversation(session).iter_messages())]


def texts(store: Store, session: str = "s") -> list[str]:
    """The transcript's texts."""
    return [m.text for m in store.conversation(session).iter_messages()]


def transcript(store: Store, session: str = "s") -> list[Message]:
    """The messages as they are stored."""
    return list(store.conversation(session).iter_messages())


def ids(messages: list[BaseMessage]) -> list[str | None]:
    """The ids of LangChain's messages."""
    return [m.id for m in messages]


def tool_of(function: Callable[..., Any]) -> Any:
    """A tool of LangChain, made of a function with a docstring."""
    return tool(function)
