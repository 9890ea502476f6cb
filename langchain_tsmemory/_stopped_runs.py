"""Runs of `RunnableWithMessageHistory` that end early: what was asked and said of them is stored.

langchain-core stores a turn in a listener on the wrapped runnable, which it calls where that has
ended well, and in a stopped sync stream with a part of the answer that nothing tells from a whole
one. So a history that is made for a run listens to the run itself:

1. as the wrapper makes the run's configuration, it asks the factory for the history, which puts a
   callback handler into that configuration (`_shared_runs.run_config`);
2. the handler hears what the models in the run say, and sees how the run ends;
3. a stream that is closed ends the run before the parts of it that are still open: in async with an
   error (``GeneratorExit``), in sync as if all were well. A cancelled task and Ctrl-C end it with
   an error too, as a failure does;
4. where the turn is not stored by then, the history stores the question, and what was said. What
   the listener brings after that is not stored again.

A run that fails before the model has said anything stores nothing: its caller knows, and asks
again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from langchain_core.messages import AIMessage

from langchain_tsmemory._partial import Heard, listening
from langchain_tsmemory._shared_runs import run_config
from tsmemory import Steps, Store

__all__ = ["watch"]

OnStop = Callable[[AIMessage | None], Steps[None]]


def watch(store: Store, on_stop: OnStop) -> None:
    """Do `on_stop` with what was said, if the run that is being configured ends early."""
    config, is_async = run_config()
    if config is not None:
        listener = (_AsyncRun if is_async else _Run)(store, on_stop)
        config["callbacks"] = listening(config.get("callbacks"), listener)


class _Run(Heard):
    def __init__(self, store: Store, on_stop: OnStop) -> None:
        super().__init__()
        self._store = store
        self._on_stop = on_stop
        self._root: uuid.UUID | None = None
        self._open: set[uuid.UUID] = set()

    def on_chain_start(self, *args: Any, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Note the run, the first time, and what runs in it."""
        self._root = self._root or run_id
        self._open.add(run_id)

    def on_chain_end(self, outputs: Any, *, run_id: uuid.UUID, **kwargs: Any) -> Any:
        """See whether the run ended before its parts."""
        steps = self._ended(run_id, None)
        if steps is not None:
            self._store.run(steps)

    def on_chain_error(self, error: BaseException, *, run_id: uuid.UUID, **kwargs: Any) -> Any:
        """See whether the run ended in the middle of an answer."""
        steps = self._ended(run_id, error)
        if steps is not None:
            self._store.run(steps)

    def _ended(self, run_id: uuid.UUID, error: BaseException | None) -> Steps[None] | None:
        """What is to be done at the end of a part of the run, or of the run."""
        self._open.discard(run_id)
        if run_id != self._root or (error is None and not self._open):
            return None
        answer = self.answer()
        if isinstance(error, Exception) and answer is None:
            return None
        return self._on_stop(answer)


class _AsyncRun(_Run):
    async def on_chain_end(self, outputs: Any, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Same as in sync."""
        steps = self._ended(run_id, None)
        if steps is not None:
            await self._store.arun(steps)

    async def on_chain_error(
        self, error: BaseException, *, run_id: uuid.UUID, **kwargs: Any
    ) -> None:
        """Same as in sync."""
        steps = self._ended(run_id, error)
        if steps is not None:
            await self._store.arun(steps)
