"""`TSMemoryMiddleware`: a conversation of the store as the memory of a LangChain agent.

The state of an agent is scratch space: middleware trims it, summarises it, rewrites it, and without
a checkpointer it is gone with the run. The transcript is in the store. So this middleware only ever
adds to the transcript, by id, and only ever changes the request of a model call, never the state:

    wrap_model_call   what is new in the state → the store; the session's window → the request
    after_model       the answer, with its tool calls, → the store, before any tool runs
    after_agent       what is new at the end of the run → the store

That is two requests to the store per model call, and at most one at the end of a run.

The transcript keeps everything; the model is shown what the run's state holds, and what others
wrote. `branches` says how one is told from the other.
"""

from __future__ import annotations

from tsmemory import MissingDependencyError

try:
    from langchain_tsmemory.middleware.hooks import TSMemoryMiddleware
    from langchain_tsmemory.middleware.request import is_summary
except ImportError as error:
    if (error.name or "").partition(".")[0] not in ("langchain", "langgraph"):
        raise
    raise MissingDependencyError(
        'TSMemoryMiddleware needs LangChain\'s agents: pip install "tsmemory[langchain-agents]"'
    ) from error

__all__ = ["TSMemoryMiddleware", "is_summary"]
