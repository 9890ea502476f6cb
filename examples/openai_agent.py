"""An agent of the OpenAI Agents SDK that remembers: ``python openai_agent.py "I am Ada."``"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from openai_agents_tsmemory import TSMemorySession
from tsmemory import Window, open_store


class Counting(Model):
    """Says what it was shown."""

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> Any:  # noqa: A002  # the SDK's name
        words = f"I was shown {len(input)} items."
        text = ResponseOutputText(text=words, type="output_text", annotations=[])
        message = ResponseOutputMessage(
            id=f"msg_{os.urandom(8).hex()}",
            content=[text],
            role="assistant",
            status="completed",
            type="message",
        )
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError


async def run(arguments: Sequence[str]) -> None:
    """Say each of `arguments`, in one conversation."""
    name = os.environ.get("MODEL")  # OpenAI's, with OPENAI_API_KEY
    agent = Agent("desk", instructions="Be brief.", model=name or Counting())
    config = RunConfig(tracing_disabled=name is None)
    with open_store(os.environ.get("TSMEMORY_URL", "sqlite:///chat.db")) as store:
        session = TSMemorySession(
            "desk", store=store, user_id="ada", window=Window(last=20, step=20)
        )
        for text in arguments:
            answer = await Runner.run(agent, text, session=session, run_config=config)
            print(f"{text} → {answer.final_output}")


def main(arguments: Sequence[str]) -> None:
    """Same as `run`, from sync code."""
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main(sys.argv[1:] or ["I am Ada.", "Who am I?"])
