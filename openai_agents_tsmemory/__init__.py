"""The OpenAI Agents SDK on tsmemory: a session that any framework can read.

from agents import Runner
from openai_agents_tsmemory import TSMemorySession

async with TSMemorySession("session-456", store="sqlite:///chat.db") as session:
    await Runner.run(agent, "Which ferry goes to Bergen?", session=session)
"""

from __future__ import annotations

from tsmemory import MissingDependencyError

try:
    import agents.memory  # noqa: F401  # what everything below imports
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        'openai_agents_tsmemory needs the OpenAI Agents SDK; pip install "tsmemory[openai-agents]"'
    ) from error

from openai_agents_tsmemory.session import TSMemorySession
from tsmemory.responses_format import from_items, to_items

__all__ = ["TSMemorySession", "from_items", "to_items"]
