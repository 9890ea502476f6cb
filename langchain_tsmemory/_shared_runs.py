"""The two reads of a run, where one history object serves many runs at once.

A run of `RunnableWithMessageHistory` reads its history twice: as it begins, to put it before the
input, and as it ends, to cut it off the input again by its length. If another run has written in
between, or a window has moved, the lengths differ, and an input is lost or an old message stored
again. So the read at the end of a run must be answered with what the read at its beginning gave.

A history that serves one run (`history_factory`) only has to keep what it read. One that an
application shares between runs cannot tell by itself whose read it answers: langchain-core passes
nothing that says so (its context variable would name the run from Python 3.11 on, and never whether
it begins or ends). So this module looks for the runnable's own method among the callers, and is the
only one that looks at frames.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterable
from types import FrameType
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage

__all__ = ["SharedRuns"]

_OPEN_RUNS = 1024
"""Runs of one history object whose beginning is remembered: those that failed never end."""
_DEPTH = 6
"""Frames looked through for the caller: a subclass or a wrapper may be in between."""
_ENTERS = frozenset({"_enter_history", "_aenter_history"})
_EXITS = frozenset({"_exit_history", "_aexit_history"})
_RUNNABLE_MODULE = "langchain_core.runnables.history"


class _Run(NamedTuple):
    """The beginning of a run: how many messages it was given, and the last of them."""

    length: int
    last: BaseMessage | None


class SharedRuns:
    """The runs of one history object that have begun and not ended."""

    def __init__(self) -> None:
        self._runs: deque[_Run] = deque(maxlen=_OPEN_RUNS)
        self._lock = threading.Lock()

    def end(self) -> list[BaseMessage] | None:
        """What the run that is ending was given as it began; None where the caller is none.

        The run is known by its input, which begins with what it was given.
        """
        frame = _runnable_frame()
        if frame is None or frame.f_code.co_name not in _EXITS:
            return None
        messages = frame.f_locals.get("input_messages")
        if not isinstance(messages, list):
            return None
        with self._lock:
            run = _which(self._runs, messages)
            if run is None:
                return None
            self._runs.remove(run)
        return messages[: run.length]

    def begin(self, messages: list[BaseMessage]) -> None:
        """Remember what a run is given, if the caller is one that will read again."""
        frame = _runnable_frame()
        if frame is None or frame.f_code.co_name not in _ENTERS:
            return
        runnable = frame.f_locals.get("self")
        if not getattr(runnable, "history_messages_key", None):
            with self._lock:
                self._runs.append(_Run(len(messages), messages[-1] if messages else None))


def _which(runs: Iterable[_Run], messages: list[Any]) -> _Run | None:
    """The run whose input is `messages`: the longest beginning that it has. By identity first, for
    what LangChain does not copy; it distinguishes equal messages at one position."""
    fitting = [run for run in runs if run.length <= len(messages)]
    fitting.sort(key=lambda run: -run.length)
    for run in fitting:
        if run.length and messages[run.length - 1] is run.last:
            return run
    for run in fitting:
        if not run.length or messages[run.length - 1] == run.last:
            return run
    # A copy that is not equal: with one run at a time there is only one to choose from.
    return fitting[0] if fitting else None


def _runnable_frame() -> FrameType | None:
    """The method of a `RunnableWithMessageHistory` that is reading, if that is who reads."""
    if _RUNNABLE_MODULE not in sys.modules:
        return None
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_DEPTH):
        if frame is None:
            return None
        name = frame.f_code.co_name
        if (name in _ENTERS or name in _EXITS) and frame.f_globals.get(
            "__name__"
        ) == _RUNNABLE_MODULE:
            return frame
        frame = frame.f_back
    return None
