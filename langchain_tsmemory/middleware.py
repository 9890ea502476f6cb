"""`TSMemoryMiddleware`: a conversation of the store as the memory of a LangChain agent.

The state of an agent is its working paper: middleware trims it, summarises it, rewrites it, and
without a checkpointer it is gone with the run. The transcript is in the store. So this middleware
only ever adds to the transcript, by id, and only ever changes the request of a model call, never
the state:

    wrap_model_call   what is new in the state → the store; the session's window → the request
    after_model       the answer, with its tool calls, → the store, before any tool runs
    wrap_tool_call    each result → the store, as soon as it is there
    after_agent       what other middleware added at the end → the store

What is new is found by id among the newest messages of the store. Everything of the state that
stands before the first message found there is old, and was stored by earlier runs.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, RemoveMessage, ToolMessage

from langchain_tsmemory._mapping import from_neutral, message_id, to_neutral
from tsmemory import (
    Conversation,
    InvalidInputError,
    Message,
    MissingDependencyError,
    Store,
    Window,
    WindowReport,
    open_store,
)

try:
    from langchain.agents.middleware.types import AgentMiddleware
    from langgraph.config import get_config
    from langgraph.types import Command
except ImportError as error:
    raise MissingDependencyError(
        'TSMemoryMiddleware needs LangChain\'s agents: pip install "tsmemory[langchain-agents]"'
    ) from error

if TYPE_CHECKING:
    from langchain.agents.middleware.types import AgentState, ModelRequest, ModelResponse
    from langgraph.prebuilt.tool_node import ToolCallRequest
    from langgraph.runtime import Runtime

__all__ = ["TSMemoryMiddleware", "is_summary"]

T = TypeVar("T")

_DEFAULT_USER = "default"
_SESSION_NAMES = ("session_id", "conversation_id", "thread_id")
_USER_NAMES = ("user_id",)
_TAIL = 64  # messages read at the end of a run, to find what is new: more than most runs add
_PINNED = frozenset({"system", "developer"})

Identity: TypeAlias = "str | Callable[[Any, Mapping[str, Any]], str]"
"""A name, or what gives it: a function of the runtime's context and ``config["configurable"]``."""


def is_summary(message: BaseMessage) -> bool:
    """Whether `SummarizationMiddleware` made this message, in place of those it took out."""
    return message.additional_kwargs.get("lc_source") == "summarization"


class TSMemoryMiddleware(AgentMiddleware):
    """The memory of an agent made by `langchain.agents.create_agent`.

    Each model call is shown the session's window, whoever wrote to the session; what is new goes
    into the store, once, as it happens. With or without a checkpointer, in both colours, streamed
    or not. Put it first in the agent's list of middleware: then what the others change in a request
    is changed in the window, and a tool's result is stored as the others leave it.

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

    Raises:
        InvalidInputError: an argument is wrong; in a run, there is no session to be found, or a
            message holds a value that cannot be stored, which is named.

    A context manager in both colours, for `close`. A run may raise `tsmemory.BackendError` and its
    kinds where the engine fails, and `CorruptRecordError` where a message of the window does not
    decode.
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
    ) -> None:
        super().__init__()
        self.window = window if isinstance(window, Window) else Window(last=window)
        """What a model call is shown."""
        if self.window.last == 0:
            raise InvalidInputError(
                "a window of 0 shows the model nothing; give 1 or more, or None"
            )
        if not isinstance(store, (Store, str)):
            raise InvalidInputError(
                f"store is a tsmemory.Store or a URL, not a {type(store).__name__}; "
                "open one with tsmemory.open_store"
            )
        self._opened: Store | None = None
        if isinstance(store, str):
            store = self._opened = open_store(store)
        self.store = store
        """Where the sessions are."""
        self._session_id = session_id
        self._user_id = user_id
        self.ttl = ttl
        self.transient = transient
        self.exclusive = exclusive
        try:
            fixed = [name if isinstance(name, str) else "-" for name in (session_id, user_id)]
            self.store.conversation(fixed[0], user_id=fixed[1], ttl=ttl)  # no I/O: only to check
        except InvalidInputError:
            self.close()
            raise

    # -- whose conversation --------------------------------------------------------------------

    def conversation(self, context: Any, configurable: Mapping[str, Any]) -> Conversation:
        """The session of a run.

        Args:
            context: the runtime's.
            configurable: ``config["configurable"]``.

        Raises:
            InvalidInputError: neither names a session, or one names a user that is None.
        """
        session = _named(self._session_id, _SESSION_NAMES, context, configurable)
        if session is None:
            raise InvalidInputError(
                "no session: give the run one, as config={'configurable': {'session_id': …}} or "
                "in its context, or give TSMemoryMiddleware(session_id=…)"
            )
        user = _named(self._user_id, _USER_NAMES, context, configurable)
        user = _DEFAULT_USER if user is None else user
        return self.store.conversation(session, user_id=user, ttl=self.ttl)

    def _of(self, runtime: Any) -> Conversation:
        config = getattr(runtime, "config", None) or _config()
        configurable = dict(config.get("configurable") or {})
        info = getattr(runtime, "execution_info", None)
        if info is not None and info.thread_id is not None:
            # Where the context variable does not reach: asyncio before Python 3.11.
            configurable.setdefault("thread_id", info.thread_id)
        return self.conversation(getattr(runtime, "context", None), configurable)

    # -- the model -----------------------------------------------------------------------------

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Store what is new, and show the model the session's window."""
        chat = self._of(request.runtime)
        messages, version = _run(chat, self._show(request))
        response = handler(request.override(messages=messages))
        if version is not None:
            _run(chat, self._add(response.result, version))
        return response

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Same as `wrap_model_call`, for asyncio."""
        chat = self._of(request.runtime)
        messages, version = await _arun(chat, self._show(request))
        response = await handler(request.override(messages=messages))
        if version is not None:
            await _arun(chat, self._add(response.result, version))
        return response

    def after_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Store the model's answer, and what other middleware put behind it."""
        answer = _answer(state["messages"])
        if answer:
            _run(self._of(runtime), self._add(answer))

    async def aafter_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Same as `after_model`, for asyncio."""
        answer = _answer(state["messages"])
        if answer:
            await _arun(self._of(runtime), self._add(answer))

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Store what was added since the last model call."""
        _run(self._of(runtime), self._complete(state["messages"]))

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Same as `after_agent`, for asyncio."""
        await _arun(self._of(runtime), self._complete(state["messages"]))

    # -- the tools -----------------------------------------------------------------------------

    def wrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]],
    ) -> ToolMessage | Command[Any]:
        """Store the result of a tool call."""
        result, new = _identified(handler(request), request)
        _run(self._of(request.runtime), self._put(new))
        return result

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        """Same as `wrap_tool_call`, for asyncio."""
        result, new = _identified(await handler(request), request)
        await _arun(self._of(request.runtime), self._put(new))
        return result

    # -- what is asked of the conversation, once for both colours --------------------------------

    def _show(self, request: ModelRequest[Any]) -> Steps[tuple[list[AnyMessage], int | None]]:
        """Store what is new; the messages that the model is shown, and the version they are of."""
        state = request.state["messages"]
        repairs = _repairs(request.messages)
        report: WindowReport = yield _Call("window", (self.window,), {"explain": True})
        read = [*report.messages, *(out.message for out in report.left_out)]
        new = self._new([*state, *repairs], read)
        if new:
            yield _Call("append", tuple(new))
        version = None
        if self.exclusive:
            # Before the window: what is written in between is a conflict too many, not one missed.
            session = yield _Call("session")
            version = session.version if session else 0
        if new or self.exclusive:
            report = yield _Call("window", (self.window,), {"explain": False})
        view = report if isinstance(report, list) else report.messages
        own = {m.id for m in (*state, *repairs)}
        return _request(view, request.messages, own, self.transient), version

    def _add(self, messages: Sequence[BaseMessage], version: int | None = None) -> Steps[None]:
        for message in messages:
            if message.id is None:
                message.id = str(uuid.uuid4())  # by which after_model knows it again
        new = [to_neutral(m) for m in messages if self._belongs(m)]
        if new:
            yield _Call("append", tuple(new), {"if_version": version})

    def _put(self, messages: Sequence[BaseMessage]) -> Steps[None]:
        # Not appended: a middleware outside this one may have run the tool again, and what the
        # agent sees is its last result.
        new = [to_neutral(m) for m in messages if self._belongs(m)]
        if new:
            yield _Call("put_messages", (new,))

    def _complete(self, state: Sequence[BaseMessage]) -> Steps[None]:
        page = yield _Call("list_messages", (), {"order": "desc", "limit": _TAIL})
        new = self._new(state, page.items)
        if new:
            yield _Call("append", tuple(new))

    def _new(self, state: Sequence[BaseMessage], read: Iterable[Message]) -> list[Message]:
        """What of `state` is to be stored, given the newest of what is."""
        there = {m.message_id for m in read}
        known = [m.id is not None and message_id(m.id) in there for m in state]
        first = known.index(True) if True in known else 0
        return [
            to_neutral(m)
            for m, old in zip(state[first:], known[first:], strict=True)
            if not old and self._belongs(m)
        ]

    def _belongs(self, message: BaseMessage) -> bool:
        return not isinstance(message, RemoveMessage) and not self.transient(message)

    # -- closing -------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the store, if it was opened here, from a URL. Idempotent."""
        if self._opened is not None:
            self._opened.close()

    async def aclose(self) -> None:
        """Same as `close`, for asyncio."""
        if self._opened is not None:
            await self._opened.aclose()

    def __enter__(self) -> TSMemoryMiddleware:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> TSMemoryMiddleware:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


# -- both colours ------------------------------------------------------------------------------


class _Call(NamedTuple):
    method: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012  # never changed


Steps: TypeAlias = Generator[_Call, Any, T]


def _run(chat: Conversation, steps: Steps[T]) -> T:
    answer = None
    while True:
        try:
            call = steps.send(answer)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        answer = getattr(chat, call.method)(*call.args, **call.kwargs)


async def _arun(chat: Conversation, steps: Steps[T]) -> T:
    answer = None
    while True:
        try:
            call = steps.send(answer)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        answer = await getattr(chat, f"a{call.method}")(*call.args, **call.kwargs)


# -- whose conversation ------------------------------------------------------------------------


def _config() -> Mapping[str, Any]:
    try:
        return get_config()
    except RuntimeError:  # not in a run, or asyncio before Python 3.11
        return {}


def _named(
    given: Identity | None, names: Sequence[str], context: Any, configurable: Mapping[str, Any]
) -> str | None:
    if callable(given):
        return given(context, configurable)
    if given is not None:
        return given
    fields: Mapping[str, Any] = {}
    if isinstance(context, Mapping):
        fields = context
    elif context is not None:
        fields = {name: getattr(context, name) for name in names if hasattr(context, name)}
    for source in (fields, configurable):
        for name in names:
            if name in source:
                found = source[name]
                if found is None:
                    raise InvalidInputError(f"the run's {name} is None; give it, or leave it out")
                return str(found) if isinstance(found, (int, uuid.UUID)) else found
    return None


# -- messages of the state ---------------------------------------------------------------------


def _answer(state: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """The newest message of the model and all behind it; nothing where there is none."""
    for i in range(len(state) - 1, -1, -1):
        if isinstance(state[i], AIMessage):
            return state[i:]
    return ()


def _result_id(state: Sequence[BaseMessage], call_id: str | None) -> str | None:
    """The id of the result of a tool call: the same whenever the call is run again, after a crash
    say, so that it has one result."""
    for message in reversed(state):
        if isinstance(message, AIMessage):
            calls = [c.get("id") for c in (*message.tool_calls, *message.invalid_tool_calls)]
            if message.id and call_id and calls.count(call_id) == 1:
                return f"{message.id}:{call_id}"
    return None


def _identified(
    result: ToolMessage | Command[Any], request: ToolCallRequest
) -> tuple[ToolMessage | Command[Any], list[BaseMessage]]:
    """What a tool gave, each of its messages with an id; and these messages.

    Copies, because a tool may give the same object twice.
    """
    state = _messages_of(request.state)
    if isinstance(result, Command):
        if not isinstance(result.update, dict) or "messages" not in result.update:
            return result, []
        given = result.update["messages"]
        listed = list(given) if isinstance(given, (list, tuple)) else [given]
        listed = [_with_id(m, state) for m in listed]
        new = [m for m in listed if isinstance(m, BaseMessage)]
        return replace(result, update={**result.update, "messages": listed}), new
    found = _with_id(result, state)
    return found, [found] if isinstance(found, BaseMessage) else []


def _messages_of(state: Any) -> Sequence[BaseMessage]:
    found = state.get("messages", ()) if isinstance(state, Mapping) else ()
    return [m for m in found if isinstance(m, BaseMessage)]


def _with_id(message: Any, state: Sequence[BaseMessage]) -> Any:
    if not isinstance(message, BaseMessage) or message.id is not None:
        return message
    known = _result_id(state, message.tool_call_id) if isinstance(message, ToolMessage) else None
    return message.model_copy(update={"id": known or str(uuid.uuid4())})


def _repairs(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The answers that LangChain has given to calls it could not parse, on their way to the state.

    They get their ids here, before it gives them others.
    """
    found: list[BaseMessage] = []
    for i, message in enumerate(messages):
        if isinstance(message, ToolMessage) and message.id is None:
            message.id = _result_id(messages[:i], message.tool_call_id)
            if message.id is not None:
                found.append(message)
    return found


# -- the request -------------------------------------------------------------------------------


def _request(
    view: Sequence[Message],
    given: Sequence[AnyMessage],
    own: set[str | None],
    transient: Callable[[BaseMessage], bool],
) -> list[AnyMessage]:
    """What the model is shown.

    Args:
        view: the session's window.
        given: the messages of the request as it came, which other middleware may have edited.
        own: ids of the state.
        transient: of what is shown and not stored.
    """
    shown = _since_summary(_until_asked(view, given), given, transient)
    edited = {message_id(m.id): m for m in given if m.id is not None}
    # What is not in the store stays where it stood: behind the message that it stood behind.
    here = {m.message_id for m in shown}
    extra: dict[str, list[Any]] = {}
    anchor = ""
    for message in given:
        name = message_id(message.id) if message.id is not None else ""
        if name in here:
            anchor = name
        elif transient(message) or message.id is None or message.id not in own:
            extra.setdefault(anchor, []).append(message)
    lead = next((i for i, m in enumerate(shown) if m.role not in _PINNED), len(shown))
    messages: list[Any] = []
    for i, row in enumerate(shown):
        if i == lead:
            messages += extra.get("", ())
        mine = edited.get(row.message_id)
        messages.append(mine if mine is not None and _same_calls(mine, row) else from_neutral(row))
        messages += extra.get(row.message_id, ())
    if lead == len(shown):
        messages += extra.get("", ())
    return messages


def _until_asked(view: Sequence[Message], given: Sequence[BaseMessage]) -> Sequence[Message]:
    """`view` without the answers at its end, where the model is asked for one: another run's, or
    what a crash has left of a message whose tool calls have no results. A chat API refuses a
    request that ends so, or goes on with the answer."""
    if given and isinstance(given[-1], AIMessage):
        return view
    end = len(view)
    while end and view[end - 1].role == "assistant":
        end -= 1
    return view[:end]


def _since_summary(
    view: Sequence[Message],
    given: Sequence[BaseMessage],
    transient: Callable[[BaseMessage], bool],
) -> Sequence[Message]:
    """`view` from what a summary in the state has left: what is older is in the summary."""
    at = max((i for i, m in enumerate(given) if is_summary(m) and transient(m)), default=-1)
    if at < 0:
        return view
    left = {message_id(m.id) for m in given[at + 1 :] if m.id is not None}
    first = next((i for i, m in enumerate(view) if m.message_id in left), None)
    if first is None:
        return view
    return [*(m for m in view[:first] if m.role in _PINNED), *view[first:]]


def _same_calls(mine: BaseMessage, row: Message) -> bool:
    """Whether a window has taken no call out of the message."""
    if not isinstance(mine, AIMessage):
        return True
    return len(mine.tool_calls) + len(mine.invalid_tool_calls) == len(row.tool_calls)
