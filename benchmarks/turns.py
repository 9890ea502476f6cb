"""What a turn of an agent costs: round trips to the store, and processor time of the middleware.

python -m benchmarks.turns

A turn is a question, three tool calls one after the other, and an answer: four model calls, with a
window of 20. Round trips are the steps of the backend's operations, counted after a first turn that
opens connections.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from rich.table import Table

from benchmarks._measure import console
from langchain_tsmemory import TSMemoryMiddleware
from tsmemory import Store, open_store
from tsmemory.testing.servers.postgres import PostgresServer, find_postgres
from tsmemory.testing.servers.redis import RedisServer, find_server

_CALLS = 3
_TURNS = 20


class Model(BaseChatModel):
    """Calls the tool three times, then answers."""

    @property
    def _llm_type(self) -> str:
        return "benchmark"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Model:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        question = max(i for i, m in enumerate(messages) if m.type == "human")
        done = sum(m.type == "tool" for m in messages[question:])
        call = {"name": "ferry", "args": {"number": done}, "id": f"c{done}"}
        message = AIMessage("", tool_calls=[call]) if done < _CALLS else AIMessage("At 08:30.")
        return ChatResult(generations=[ChatGeneration(message=message)])


@tool
def ferry(number: int) -> str:
    """When the next ferry leaves."""
    return "08:30"


class Nothing(AgentMiddleware):
    """The hooks of `TSMemoryMiddleware`, without anything in them."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request)

    def after_model(self, state: Any, runtime: Any) -> None:
        pass

    def after_agent(self, state: Any, runtime: Any) -> None:
        pass


def turn_of(*middleware: AgentMiddleware) -> Callable[[], object]:
    """A function that has one turn."""
    agent: Any = create_agent(Model(), [ferry], middleware=list(middleware))
    config = {"configurable": {"thread_id": "t"}}
    return lambda: agent.invoke({"messages": [HumanMessage("When?")]}, config)


def _requests(store: Store, count: Callable[[], int]) -> float:
    turn = turn_of(TSMemoryMiddleware(store, window=20))
    turn()
    before = count()
    for _ in range(_TURNS):
        turn()
    return (count() - before) / _TURNS


def _round_trips(store: Store) -> float:
    """Steps per turn that reach a client: each is a round trip."""
    total = {"n": 0}
    inner = store.backend.run

    def run(steps: Any) -> Any:
        def counted() -> Any:
            reply = None
            error: BaseException | None = None
            while True:
                try:
                    step = steps.throw(error) if error is not None else steps.send(reply)
                except StopIteration as stop:
                    return stop.value
                total["n"] += 1
                error = None
                try:
                    reply = yield step
                except Exception as failure:  # noqa: BLE001  # the operation decides
                    error = failure

        return inner(counted())

    store.backend.run = run  # type: ignore[method-assign]  # to count
    return _requests(store, lambda: total["n"])


def redis_requests() -> float | None:
    """Round trips per turn to a Valkey or Redis server."""
    kind = next(filter(find_server, ("valkey-server", "redis-server")), None)
    if kind is None:
        return None
    with RedisServer(kind) as server, open_store(server.url) as store:
        return _round_trips(store)


def postgres_requests() -> float | None:
    """Round trips per turn to a PostgreSQL server."""
    if find_postgres() is None:
        return None
    with PostgresServer() as server, open_store(server.url) as store:
        store.setup()
        return _round_trips(store)


def cpu() -> dict[str, float]:
    """Milliseconds of processor time per turn."""
    with open_store("memory:") as store:
        cases = {
            "no middleware": turn_of(),
            "a middleware that does nothing": turn_of(Nothing()),
            "TSMemoryMiddleware, memory": turn_of(TSMemoryMiddleware(store, window=20)),
        }
        for turn in cases.values():
            for _ in range(5):
                turn()
        spent = dict.fromkeys(cases, 0.0)
        for _ in range(5):
            for name, turn in cases.items():
                begin = time.process_time()
                for _ in range(_TURNS):
                    turn()
                spent[name] += time.process_time() - begin
        return {name: 1000 * seconds / (5 * _TURNS) for name, seconds in spent.items()}


def main() -> None:
    """Print both tables."""
    warnings.simplefilter("ignore")
    table = Table(title=f"A turn with {_CALLS} tool calls", title_justify="left")
    table.add_column("what")
    table.add_column("per turn", justify="right")
    for name, requests in (
        ("round trips to Redis", redis_requests()),
        ("round trips to PostgreSQL", postgres_requests()),
    ):
        table.add_row(name, "not installed" if requests is None else f"{requests:.1f}")
    for name, milliseconds in cpu().items():
        table.add_row(f"ms of CPU: {name}", f"{milliseconds:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
