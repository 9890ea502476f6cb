"""The middleware: LangChain's hooks, each in sync and async over one body of steps."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.messages import BaseMessage

from langchain_tsmemory._partial import Heard, heard
from langchain_tsmemory.mapping import message_id
from langchain_tsmemory.middleware.identity import Identity, run_of
from langchain_tsmemory.middleware.memory import Sessions
from langchain_tsmemory.middleware.request import is_summary, with_breakpoint
from langchain_tsmemory.middleware.transcript import Shown, Transcript
from tsmemory import Conversation, InvalidInputError, Store, Window
from tsmemory.adapters import ClosesStore, connect

if TYPE_CHECKING:
    from langchain.agents.middleware.types import AgentState, ModelRequest, ModelResponse
    from langgraph.runtime import Runtime

__all__ = ["TSMemoryMiddleware"]


class TSMemoryMiddleware(ClosesStore, AgentMiddleware):
    """The memory of an agent made by `langchain.agents.create_agent`.

    Each model call is shown the conversation as the run's state has it, and what others wrote to
    the session; what is new goes into the store, once, as it happens. With or without a
    checkpointer, sync and async, streamed or not. Put it first in the agent's list of middleware:
    then what the others change in a request is changed in the window.

    Args:
        store: a store, which stays its opener's to close; or a URL as `tsmemory.open_store` takes
            it, opened for this object, which then has to be closed.
        window: what a model call is shown: the newest n messages, or a `tsmemory.Window`, cut so
            that a chat API accepts them. None: all of them, repaired in the same way.
        session_id: the session's; or a function of the runtime's context and of
            ``config["configurable"]`` that gives it. None: ``session_id``, ``conversation_id`` or
            ``thread_id``, of the context (a key or an attribute), else of the configurable.
        user_id: whose it is, in the same ways; None: ``user_id`` of the context, else of the
            configurable, else ``"default"``. One that is there and None is refused.
        ttl: seconds that the session lives on after each write; None leaves that to the store.
        transient: which messages of the state are not part of the conversation, and are shown but
            not stored.
        exclusive: raise `tsmemory.ConflictError` where another writer has written to the session
            while the model was answering; the answer is then not stored.
        nested: an agent that is called inside another's tool inherits its configuration, and so its
            session. ``"own"``: it has a transcript of its own for each call, in the session
            ``<parent's>/<checkpoint namespace>``, whose metadata name the parent
            (``parent_session_id``). ``"share"``: it writes to the parent's.
        cache_control: Anthropic's, for example ``{"type": "ephemeral"}``: set at the end of the
            part of the request that the next one repeats (`tsmemory.WindowReport.stable`).

    Raises:
        InvalidInputError: an argument is wrong; in a run, there is no session to be found, or a
            message holds a value that cannot be stored, which is named.

    A context manager in sync and async, for `close`. A run may raise `tsmemory.BackendError` and
    its kinds where the engine fails, and `CorruptRecordError` where a message of the window does
    not decode.
    """

    def __init__(
        self,
        store: Store | str,
        *,
        window: Window | int | None = None,
        session_id: Identity | None = None,
        user_id: Identity | None = None,
        ttl: float | None = None,
        transient: Callable[[BaseMessage], bool] = is_summary,
        exclusive: bool = False,
        nested: Literal["own", "share"] = "own",
        cache_control: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.window = window if isinstance(window, Window) else Window(last=window)
        """What a model call is shown."""
        if self.window.last == 0:
            raise InvalidInputError(
                "a window of 0 shows the model nothing; give 1 or more, or None"
            )
        if nested not in ("own", "share"):
            raise InvalidInputError(f'nested is "own" or "share", not {nested!r}')
        fixed = [name if isinstance(name, str) else "-" for name in (session_id, user_id)]
        self.store, self._opened, _ = connect(
            store,  # no I/O: only to check
            lambda opened: opened.conversation(fixed[0], user_id=fixed[1], ttl=ttl),
        )
        self._session_id = session_id
        self._user_id = user_id
        self.ttl = ttl
        self.transient = transient
        self.exclusive = exclusive
        self.nested = nested
        self.cache_control = cache_control
        self._sessions = Sessions()

    def _transcript(self, runtime: Any) -> Transcript:
        run = run_of(runtime, self._session_id, self._user_id)
        session_id, parent = run.session_id, None
        if run.nested and self.nested == "own":
            session_id, parent = f"{run.session_id}/{run.place.ns}", run.session_id
        chat: Conversation = self.store.conversation(session_id, user_id=run.user_id, ttl=self.ttl)
        return Transcript(
            chat,
            run.place,
            self._sessions(run.user_id, session_id),
            window=self.window,
            transient=self.transient,
            parent=parent,
        )

    # -- the model -----------------------------------------------------------------------------

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Store what is new, and show the model the session's window."""
        transcript = self._transcript(request.runtime)
        view = self.store.run(transcript.show(request.state["messages"], request.messages))
        with heard() as listener:
            try:
                response = handler(self._asked(request, view))
            except BaseException:
                partial = self._partial(transcript, view, listener)
                if partial is not None:
                    self.store.run(partial)
                raise
        if self._answered(response, view):
            self.store.run(transcript.add(response.result, view, view.version))
        return response

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Same as `wrap_model_call`, for asyncio."""
        transcript = self._transcript(request.runtime)
        view = await self.store.arun(transcript.show(request.state["messages"], request.messages))
        with heard() as listener:
            try:
                response = await handler(self._asked(request, view))
            except BaseException:
                partial = self._partial(transcript, view, listener)
                if partial is not None:
                    await self.store.arun(partial)
                raise
        if self._answered(response, view):
            await self.store.arun(transcript.add(response.result, view, view.version))
        return response

    def _asked(self, request: ModelRequest[Any], view: Shown) -> ModelRequest[Any]:
        messages = view.messages
        if self.cache_control is not None:
            messages = with_breakpoint(messages, view.stable, self.cache_control)
        return request.override(messages=messages)

    def _partial(self, transcript: Transcript, view: Shown, listener: Heard) -> Any:
        """The steps that store what was said of an answer that was stopped."""
        heard_so_far = listener.answer()
        return None if heard_so_far is None else transcript.add_partial(heard_so_far, view)

    def _answered(self, response: ModelResponse[Any], view: Shown) -> bool:
        """Give an answer an id of its own, and say whether it is to be stored at once.

        A cache of answers, and servers that draw small numbers, repeat ids: LangGraph would
        replace the older message in the state, and the store would take it for stored.
        """
        for message in response.result:
            if message.id is not None and message_id(message.id) in view.known:
                message.id = str(uuid.uuid4())
            elif message.id is None and self.exclusive:
                message.id = str(uuid.uuid4())  # by which after_model knows it again
        return self.exclusive

    def after_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Store the model's answer, and what other middleware put behind it."""
        self.store.run(self._transcript(runtime).add_answer(state["messages"]))

    async def aafter_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Same as `after_model`, for asyncio."""
        await self.store.arun(self._transcript(runtime).add_answer(state["messages"]))

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Store what was added since the last model call."""
        self.store.run(self._transcript(runtime).complete(state["messages"]))

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Same as `after_agent`, for asyncio."""
        await self.store.arun(self._transcript(runtime).complete(state["messages"]))
