"""Windows: what a model is shown of a conversation. They read, and never write.

A chat API refuses a tool result without its call, a call without its results right behind it, and
often a conversation that does not begin with the user. A stored conversation can be all of that: a
process died in a tool loop, two requests ran at once, the cut fell in a bad place. So a window is
not the last n records but the view that these rules make of them:

1. **Groups.** An assistant message with tool calls and the results that answer them are one group:
   in the view the results follow the call, and all stay or all go. A result answers the nearest
   call before it that has its id and no result yet.
2. **Orphans.** A result whose call is not there, or a second result, is left out of the view; so
   is a call without a result (its message stays if it says anything else), unless
   ``unanswered="error"`` asks for a result that says so.
3. **The cut.** The newest `last` messages are in the view, the groups that they belong to whole.
4. **The start.** It begins at a user message, found by walking back from the cut, however far. If
   none stands before the cut, at the first one behind it; if there is none at all, at the cut.
   ``start="any"`` leaves this out, and so does ``last=None`` without `max_tokens`: everything.
5. **Instructions.** System and developer messages are kept wherever they stand: those before the
   cut lead the view. A summary follows them.
6. **Tokens.** With `max_tokens` the oldest groups go until the rest fits, by whole groups and
   keeping rule 4. If the newest turn alone is too long (a tool loop), its user message and as many
   of its newest groups as fit stay, one at the least: a view is never cut to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

import msgspec

from tsmemory.engine.codec import encode_value
from tsmemory.errors import InvalidInputError
from tsmemory.model import Block, LeftOut, Message, MessageList, WindowReport, is_pinned

__all__ = ["ORPHAN_REACH", "Window", "as_window", "count_tokens", "cut"]

T = TypeVar("T")

ORPHAN_REACH = 256
"""How many messages before the cut are searched for the call that a result in it answers. Ours: a
true orphan must not cost a read of the whole history at every call."""

_MESSAGE_OVERHEAD = 4  # tokens around each message in the OpenAI chat format
_BYTES_A_TOKEN = 4
_MEDIA_TOKENS = 800  # an image of about 1 megapixel, between the vendors' published figures


def count_tokens(message: Message) -> int:
    """Roughly how many tokens `message` takes: 4 bytes of UTF-8 a token, 800 for an image or other
    medium, 4 for the message itself. Give `Window.token_counter` your model's own for more."""
    size = len(message.text.encode("utf-8", "surrogatepass"))
    media = 0
    for call in message.tool_calls:
        size += len(call.name) + len(encode_value(call.arguments))
    if not isinstance(message.content, str):
        for block in message.content:
            if block.get("type") in ("image", "audio", "video", "file"):
                media += 1
            elif block.get("type") == "reasoning":
                size += len(str(block.get("reasoning", "")))
    return _MESSAGE_OVERHEAD + -(-size // _BYTES_A_TOKEN) + media * _MEDIA_TOKENS


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a conversation to read, and how.

    Raises:
        InvalidInputError: a negative or non-integer size, or an unknown choice.
    """

    last: int | None = None
    """The newest messages in the view, at least. 0 is an empty view, None no limit."""
    max_tokens: int | None = None
    """The most tokens in the view, by `token_counter`, instructions and summary included."""
    token_counter: Callable[[Message], int] = count_tokens
    system: Literal["keep", "drop"] = "keep"
    summary: bool = False
    """Show the session's summary, as a system message after the instructions."""
    start: Literal["user", "any"] = "user"
    unanswered: Literal["drop", "error"] = "drop"
    """What becomes of a tool call without a result: left out, or answered with an error."""

    def __post_init__(self) -> None:
        for name in ("last", "max_tokens"):
            size = getattr(self, name)
            if size is None:
                continue
            if not isinstance(size, int) or isinstance(size, bool):
                raise InvalidInputError(f"{name} is an int or None, not {type(size).__name__}")
            if size < 0:
                raise InvalidInputError(f"{name} is {size}; give 0 or more, or None for no limit")
        for name, allowed in (
            ("system", ("keep", "drop")),
            ("start", ("user", "any")),
            ("unanswered", ("drop", "error")),
        ):
            if getattr(self, name) not in allowed:
                raise InvalidInputError(
                    f"{name} is {getattr(self, name)!r}; give one of {', '.join(allowed)}"
                )
        if not callable(self.token_counter):
            raise InvalidInputError("token_counter is not callable; it takes a Message, gives int")


def as_window(window: Window | int | None) -> Window:
    """What a ``window=`` argument means: a policy, or the number of the newest messages.

    Raises:
        InvalidInputError: it is neither, or negative.
    """
    return window if isinstance(window, Window) else Window(last=window)


class _Unit(NamedTuple):
    """What stays or goes together: one message, or a call and its results."""

    first: int
    """Where it stands: the position of its first message."""
    newest: int
    """The position of its last message."""
    messages: list[Message]


def cut(
    tail: Sequence[Message],
    pinned: Sequence[Message],
    window: Window,
    *,
    complete: bool,
    summary: str | None = None,
    explain: bool = True,
) -> WindowReport | None:
    """The view that `window` makes of a conversation, or None where that takes more of it.

    Args:
        tail: its newest messages, in reading order.
        pinned: its system and developer messages from before `tail`, in order.
        complete: `tail` is the whole conversation.
        summary: the session's, where the window asks for it.
        explain: also name what is left out; without it the report's list is not whole.
    """
    if window.last == 0:
        return WindowReport(MessageList(), [], older=bool(tail))
    units, left_out, orphans = _units(tail, window)
    everything = window.last is None and window.max_tokens is None
    edge = _edge(tail, window)
    if edge is None and not complete:
        return None
    edge = edge or 0
    if not complete and edge < ORPHAN_REACH and any(i >= edge for i in orphans):
        return None

    bodies = [u for u in units if not is_pinned(u.messages[0].role)]
    if not bodies and not complete:
        return None
    begin = min((u.first for u in units if u.newest >= edge), default=len(tail))
    if bodies and not any(u.newest >= edge for u in bodies):
        begin = bodies[-1].first  # all that was asked for cannot be shown: show the newest that can
    first = begin
    if window.start == "user" and not everything:
        users = [u.first for u in bodies if u.messages[0].role == "user"]
        before = [i for i in users if i <= begin]
        if before:
            first = before[-1]
        elif not complete:
            return None
        elif users:
            first = users[0]

    instructions: list[Message] = []
    if window.system == "keep":
        if pinned:
            seen = {m.message_id for m in tail}
            instructions = [m for m in pinned if m.message_id not in seen]
        instructions += [m for m in tail[:first] if is_pinned(m.role)]
    shown = [
        u
        for u in units
        if u.first >= first and (window.system == "keep" or not is_pinned(u.messages[0].role))
    ]
    note = [_summary_message(summary)] if summary else []
    if window.max_tokens is not None:
        shown = _fit(shown, instructions + note, window, window.max_tokens)
    body = [m for u in shown for m in u.messages]
    lead = next((i for i, m in enumerate(body) if not is_pinned(m.role)), len(body))
    messages = MessageList([*instructions, *body[:lead], *note, *body[lead:]])

    if explain:
        _explain(left_out, tail, messages, window, first)
    counted = window.max_tokens is not None
    return WindowReport(
        messages,
        left_out,
        older=not complete,
        tokens=sum(map(window.token_counter, messages)) if counted else None,
    )


def _explain(
    left_out: list[LeftOut],
    tail: Sequence[Message],
    messages: Sequence[Message],
    window: Window,
    first: int,
) -> None:
    """Complete `left_out` with what the cut left out, in reading order."""
    if window.system == "drop":
        left_out += [
            LeftOut(m, "instructions are not asked for") for m in tail if is_pinned(m.role)
        ]
    kept = {m.message_id for m in messages} | {m.message_id for m, _ in left_out}
    for i, m in enumerate(tail):
        if m.message_id not in kept:
            left_out.append(LeftOut(m, "before the window" if i < first else "over max_tokens"))
    order = {m.message_id: i for i, m in enumerate(tail)}
    left_out.sort(key=lambda out: order[out.message.message_id])


def _edge(tail: Sequence[Message], window: Window) -> int | None:
    """The oldest message that the sizes ask for; None where it lies before the tail."""
    edge: int | None = None
    if window.last is not None and len(tail) >= window.last:
        edge = len(tail) - window.last
    if window.max_tokens is not None:
        spent = 0
        for i in range(len(tail) - 1, -1, -1):
            spent += window.token_counter(tail[i])
            if spent > window.max_tokens:
                return max(min(i + 1, len(tail) - 1), edge or 0)
    return edge


def _units(tail: Sequence[Message], window: Window) -> tuple[list[_Unit], list[LeftOut], list[int]]:
    """The tail as groups; what they leave out; and where the results without a call stand."""
    if not any(m.tool_calls or m.role == "tool" for m in tail):
        return [_Unit(i, i, [m]) for i, m in enumerate(tail)], [], []
    open_calls: dict[str, list[int]] = {}
    answers: dict[int, list[tuple[str, int]]] = {}
    orphans: list[int] = []
    for i, message in enumerate(tail):
        if message.role == "tool":
            callers = open_calls.get(message.tool_call_id or "")
            if callers:
                answers[callers.pop()].append((message.tool_call_id or "", i))
            else:
                orphans.append(i)
        elif message.tool_calls:
            answers[i] = []
            for call in message.tool_calls:
                open_calls.setdefault(call.id or "", []).append(i)

    units: list[_Unit] = []
    left_out = [LeftOut(tail[i], "a tool result without its call") for i in orphans]
    answering = {i for found in answers.values() for _, i in found}
    skip = answering.union(orphans)
    for i, message in enumerate(tail):
        if i in answers:
            unit = _group(tail, i, answers[i], window, left_out)
            if unit is not None:
                units.append(unit)
        elif i not in skip:
            units.append(_Unit(i, i, [message]))
    return units, left_out, orphans


def _group(
    tail: Sequence[Message],
    index: int,
    answers: list[tuple[str, int]],
    window: Window,
    left_out: list[LeftOut],
) -> _Unit | None:
    caller = tail[index]
    results = [tail[i] for _, i in answers]
    newest = max([index, *(i for _, i in answers)])
    open_ids = [call.id or "" for call in caller.tool_calls]
    for answered, _ in answers:
        open_ids.remove(answered)
    if not open_ids:
        return _Unit(index, newest, [caller, *results])
    if window.unanswered == "error":
        return _Unit(index, newest, [caller, *results, *_no_results(caller, open_ids)])
    left_out.append(LeftOut(caller, f"{len(open_ids)} of its tool calls never got a result"))
    repaired = _without_calls(caller, open_ids)
    if not _says_something(repaired):
        return None
    return _Unit(index, newest, [repaired, *results])


def _without_calls(message: Message, ids: list[str]) -> Message:
    """`message` less one call for each of `ids`, in its calls and in its content."""
    calls = _less(message.tool_calls, ids, lambda call: call.id or "")
    content = message.content
    if not isinstance(content, str):
        content = _less(content, ids, _called)
    return msgspec.structs.replace(message, tool_calls=tuple(calls), content=content)


def _less(items: Sequence[T], ids: list[str], id_of: Callable[[T], str | None]) -> list[T]:
    """`items` less one for each of `ids`, from the end: where an id stands twice, the results went
    to the first."""
    gone, kept = list(ids), []
    for item in reversed(items):
        found = id_of(item)
        if found is not None and found in gone:
            gone.remove(found)
        else:
            kept.append(item)
    return kept[::-1]


def _called(block: Block) -> str | None:
    """The id of the call that a block of the content shows; None where it is no call."""
    return (block.get("id") or "") if block.get("type") in _CALL_BLOCKS else None


_CALL_BLOCKS = frozenset({"tool_call", "invalid_tool_call"})


def _says_something(message: Message) -> bool:
    """Whether there is anything in the message but empty text."""
    if message.tool_calls or isinstance(message.content, str):
        return bool(message.tool_calls or message.content)
    return any(b.get("type") != "text" or b.get("text") for b in message.content)


def _no_results(caller: Message, ids: list[str]) -> list[Message]:
    names = {call.id or "": call.name for call in caller.tool_calls}
    return [
        Message.tool(
            "Error: this call was interrupted and has no result.",
            tool_call_id=mid,
            name=names[mid],
            message_id=f"{caller.message_id}#{i}",
            create_time=caller.create_time,
        )
        for i, mid in enumerate(ids)
    ]


def _summary_message(summary: str) -> Message:
    return Message.system(
        f"Summary of the conversation so far:\n{summary}", message_id="tsmemory:summary"
    )


def _fit(units: list[_Unit], fixed: list[Message], window: Window, max_tokens: int) -> list[_Unit]:
    """The newest of `units` that fit the budget beside `fixed`."""
    count = window.token_counter
    costs = {u.first: sum(map(count, u.messages)) for u in units}
    instructions = [u for u in units if is_pinned(u.messages[0].role)]
    budget = max_tokens - sum(map(count, fixed)) - sum(costs[u.first] for u in instructions)
    bodies = [u for u in units if not is_pinned(u.messages[0].role)]

    spent, at = 0, len(bodies)
    while at > 0 and spent + costs[bodies[at - 1].first] <= budget:
        at -= 1
        spent += costs[bodies[at].first]
    chosen = bodies[at:]
    if window.start == "user":
        users = [i for i, u in enumerate(bodies) if u.messages[0].role == "user"]
        inside = [i for i in users if i >= at]
        if inside:
            chosen = bodies[inside[0] :]
        elif users:
            opening = bodies[users[-1]]
            room = budget - costs[opening.first]
            rest: list[_Unit] = []
            for unit in reversed(bodies[users[-1] + 1 :]):
                room -= costs[unit.first]
                if room < 0 and rest:
                    break
                rest.insert(0, unit)
            chosen = [opening, *rest]
    if not chosen and bodies:
        chosen = bodies[-1:]
    keep = {u.first for u in chosen} | {u.first for u in instructions}
    return [u for u in units if u.first in keep]
