"""The request of a model call: the session's window, with what other middleware made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)

from langchain_tsmemory.mapping import from_neutral, message_id
from tsmemory import Message, WindowReport

__all__ = ["is_summary", "request_messages", "with_breakpoint"]

_PINNED = frozenset({"system", "developer"})


def is_summary(message: BaseMessage) -> bool:
    """Whether `SummarizationMiddleware` made this message, in place of those it took out."""
    return message.additional_kwargs.get("lc_source") == "summarization"


def request_messages(
    report: WindowReport,
    stored: Mapping[str, Message],
    requested: Sequence[AnyMessage],
    names: Mapping[str | None, str],
    transient: Callable[[BaseMessage], bool],
) -> tuple[list[AnyMessage], int]:
    """What the model is shown, and how many of the first will begin the next request too.

    Args:
        report: the session's window.
        stored: the messages that were read for it, by id.
        requested: the messages of the request as it came, which other middleware may have edited.
        names: the store's ids of the messages of the state, by theirs.
        transient: of what is shown and not stored.
    """
    view = _since_summary(_until_asked(report.messages, requested), requested, names, transient)
    edited = {names.get(m.id) or message_id(m.id): m for m in requested if m.id is not None}
    # What is not in the store stays where it stood: behind the message that it stood behind.
    here = {m.message_id for m in view}
    extra: dict[str, list[Any]] = {}
    anchor = ""
    for message in requested:
        name = (names.get(message.id) or message_id(message.id)) if message.id is not None else ""
        if name in here:
            anchor = name
        elif transient(message) or message.id is None or message.id not in names:
            extra.setdefault(anchor, []).append(message)
    stable_ids = [m.message_id for m in report.messages[: report.stable]]
    lead = next((i for i, m in enumerate(view) if m.role not in _PINNED), len(view))
    messages: list[Any] = []
    stable = 0
    for i, row in enumerate(view):
        if i == lead:
            messages += extra.get("", ())
        # The window may have changed it: taken a call out, made a stub of it.
        as_stored = stored.get(row.message_id) is row
        mine = edited.get(row.message_id) if as_stored else None
        messages.append(from_neutral(row) if mine is None else mine)
        if i < len(stable_ids) and stable_ids[i] == row.message_id and not extra.get("", ()):
            stable = len(messages) if stable == len(messages) - 1 else stable
        messages += extra.get(row.message_id, ())
    if lead == len(view):
        messages += extra.get("", ())
    return messages, stable


def _until_asked(view: Sequence[Message], requested: Sequence[BaseMessage]) -> Sequence[Message]:
    """`view` without the answers at its end, where the model is asked for one: another run's, or
    what a crash has left of a message whose tool calls have no results. A chat API refuses a
    request that ends so, or goes on with the answer."""
    if requested and isinstance(requested[-1], AIMessage):
        return view
    end = len(view)
    while end and view[end - 1].role == "assistant":
        end -= 1
    return view[:end]


def _since_summary(
    view: Sequence[Message],
    requested: Sequence[BaseMessage],
    names: Mapping[str | None, str],
    transient: Callable[[BaseMessage], bool],
) -> Sequence[Message]:
    """`view` from what a summary in the state has left: what is older is in the summary."""
    at = max((i for i, m in enumerate(requested) if is_summary(m) and transient(m)), default=-1)
    if at < 0:
        return view
    newer_ids = {
        names.get(m.id) or message_id(m.id) for m in requested[at + 1 :] if m.id is not None
    }
    first = next((i for i, m in enumerate(view) if m.message_id in newer_ids), None)
    if first is None:
        return view
    return [*(m for m in view[:first] if m.role in _PINNED), *view[first:]]


def with_breakpoint(
    messages: list[AnyMessage], stable: int, control: Mapping[str, Any]
) -> list[AnyMessage]:
    """`messages` with Anthropic's ``cache_control`` at the end of the stable part.

    On the newest message of it that has a block to carry it; copies, because the state keeps the
    originals.
    """
    for i in range(stable - 1, -1, -1):
        message = messages[i]
        if not isinstance(message, (HumanMessage, ToolMessage)) or not message.content:
            continue
        content = message.content
        blocks: list[Any] = [content] if isinstance(content, str) else list(content)
        last = blocks[-1]
        block = {"type": "text", "text": last} if isinstance(last, str) else dict(last)
        blocks[-1] = {**block, "cache_control": dict(control)}
        marked = message.model_copy(update={"content": blocks})
        return [*messages[:i], marked, *messages[i + 1 :]]
    return messages
