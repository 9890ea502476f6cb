"""What a process of its own runs: an agent of five steps, which dies where it is told to."""

from __future__ import annotations

import os
import pickle
import threading
import warnings
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from langchain_tsmemory import TSMemoryMiddleware
from tests.adapters.agents._agents import tool_of
from tests.adapters.agents._models import ScriptedModel, loop
from tsmemory import open_store

STEPS = 5
DIED = 17  # the exit code of a process that was told to die


class FileSaver(InMemorySaver):
    """A checkpointer that has its checkpoints in a file too."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.lock = threading.RLock()  # LangGraph writes from several threads
        if path.exists():
            storage, writes, blobs = pickle.loads(path.read_bytes())
            for thread, spaces in storage.items():
                self.storage[thread].update(spaces)
            self.writes.update(writes)
            self.blobs.update(blobs)

    def _save(self) -> None:
        storage = {k: {n: dict(s) for n, s in v.items()} for k, v in self.storage.items()}
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(pickle.dumps((storage, dict(self.writes), dict(self.blobs))))
        fresh.replace(self.path)

    def put(self, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            done = super().put(*args, **kwargs)
            self._save()
        return done

    def put_writes(self, *args: Any, **kwargs: Any) -> None:
        with self.lock:
            super().put_writes(*args, **kwargs)
            self._save()


class Death(AgentMiddleware):
    """Ends the process once a tool has given its result."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        result = handler(request)
        if request.tool_call["args"]["number"] == self.number:
            os._exit(DIED)
        return result


def main(folder: Path, mode: str, point: str) -> None:
    """Ask the agent, and write its answer to ``answer.txt``.

    Args:
        folder: where its database, its checkpoints and its answer are.
        mode: ``plain``, or ``checkpoint`` with a checkpointer.
        point: ``never``; or ``tool-N`` or ``behind-N``: it dies in the Nth step's tool, or right
            behind it.
    """
    warnings.simplefilter("ignore")
    kind, _, number = point.partition("-")
    dies = int(number or 0)

    def step(number: int) -> str:
        """Take a step."""
        with (folder / "steps.txt").open("a") as log:
            log.write(f"{number}\n")
        if kind == "tool" and number == dies:
            os._exit(DIED)
        return f"did {number}"

    store = open_store(f"sqlite:///{folder / 'c.db'}")
    saver = FileSaver(folder / "checkpoints") if mode == "checkpoint" else None
    made = create_agent(
        ScriptedModel(script=loop(STEPS)),
        [tool_of(step)],
        middleware=[Death(dies if kind == "behind" else 0), TSMemoryMiddleware(store)],
        checkpointer=saver,
    )
    config: Any = {"configurable": {"session_id": "s", "thread_id": "t"}}
    asked: Any = {"messages": [HumanMessage("go", id="question")]}
    if saver is not None and made.get_state(config).next:
        asked = None  # goes on from the checkpoint
    options = {"durability": "sync"} if saver is not None else {}
    state = made.invoke(asked, config, **options)
    (folder / "answer.txt").write_text(str(state["messages"][-1].text))
    store.close()
