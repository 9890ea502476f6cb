"""LangChain's messages to the neutral ones and back: home again exactly, and across faithfully.

    neutral role          LangChain
    user                  HumanMessage
    assistant             AIMessage (chunks are folded to whole messages)
    system · developer    SystemMessage (``additional_kwargs["__openai_role__"] == "developer"``)
    tool                  ToolMessage
    function              FunctionMessage
    anything else         ChatMessage, whose role it is

What the neutral fields cannot say is in ``extensions["langchain"]``, by the name of LangChain's
field, and only where it is not the default: ``additional_kwargs``, ``response_metadata``,
``usage_metadata``, ``artifact``, ``status``, and

- ``id``: LangChain's, where the store's is another one: None (the store gave a random one), or
  what cannot be an id of the store (empty, over 255 bytes, lone surrogates; it gets a digest);
- ``type``: where the role alone would give another class (a ChatMessage of role "user");
- ``role``: an empty one;
- ``extra``: fields that no class declares, which LangChain's messages may have;
- ``tool_calls``, ``invalid_tool_calls``: as they were, where the neutral calls cannot say it (an
  invalid call without a name or without arguments);
- ``calls``: how many there were, where `additional_kwargs` holds the provider's own copy of them;
- ``packed``: that values have to be read by `_values.unpack`;
- ``blocks``: that the content is a list and LangChain wrote it, in whichever dialect it did.

An answer's blocks that LangChain did not write are shown as `_across` says. What LangChain keeps of
an answer in `additional_kwargs` alone (``reasoning_content``, and of an answer without content a
refusal, the transcript of its audio or a legacy ``function_call``) is in the neutral content too,
so that it does not arrive empty elsewhere; at home it is in `additional_kwargs` alone again.

A valid tool call is a neutral one with arguments; an invalid call has its text in their place.
Both are calls to a chat API, so windows hold both to their results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)

from langchain_tsmemory._across import present
from langchain_tsmemory._blocks import from_block, to_block
from langchain_tsmemory._values import LEFT_OUT, pack, plain, unpack
from tsmemory import InvalidInputError, Message, ToolCall

__all__ = ["from_neutral", "is_same", "message_id", "to_neutral"]

_EXTENSION = "langchain"
_OPENAI_ROLE = "__openai_role__"
_DEVELOPER = {_OPENAI_ROLE: "developer"}
_SHORT = 63  # characters that are at most 255 bytes of UTF-8, whichever they are
_MAX_ID_BYTES = 255

_MAPPED = frozenset(
    {"content", "id", "invalid_tool_calls", "name", "role", "tool_call_id", "tool_calls", "type"}
)
"""LangChain's fields that neutral ones carry. The others are kept under their own names, those of
later releases too."""


class _Kind(NamedTuple):
    cls: type[BaseMessage]
    type: str
    role: str
    rest: tuple[tuple[str, Any], ...]
    """The fields that are not `_MAPPED`, with their defaults."""


def _kind(cls: type[BaseMessage], type_: str, role: str) -> _Kind:
    rest = tuple(
        (name, field.get_default(call_default_factory=True))
        for name, field in cls.model_fields.items()
        if name not in _MAPPED
    )
    return _Kind(cls, type_, role, rest)


_KINDS = {
    kind.cls: kind
    for kind in (
        _kind(HumanMessage, "human", "user"),
        _kind(AIMessage, "ai", "assistant"),
        _kind(SystemMessage, "system", "system"),
        _kind(ToolMessage, "tool", "tool"),
        _kind(FunctionMessage, "function", "function"),
        _kind(ChatMessage, "chat", ""),
    )
}
_TYPES = {kind.type: kind for kind in _KINDS.values()}
_ROLES = {kind.role: kind for kind in _KINDS.values() if kind.role}
_ROLES["developer"] = _TYPES["system"]
_AI, _CHAT, _SYSTEM, _TOOL = (_TYPES[t] for t in ("ai", "chat", "system", "tool"))
_FUNCTION = _TYPES["function"]


# -- LangChain → neutral -----------------------------------------------------------------------


def to_neutral(message: BaseMessage) -> Message:
    """The neutral form of a LangChain message.

    Args:
        message: of one of langchain-core's classes; a chunk is folded to a whole message. Nested
            values are shared with the result, which the store copies when it writes.

    Returns:
        The message, without a time of the store. One whose ``id`` is None gets a random
        `message_id`, another one each time.

    Raises:
        InvalidInputError: not a message, a subclass of yours, or a `RemoveMessage`, which is an
            instruction to a history and not a part of one.
    """
    kind = _KINDS.get(type(message))
    if kind is None:
        message = _whole(message)
        kind = _KINDS[type(message)]
    fields = message.__dict__
    notes: dict[str, Any] = {}
    packed = False
    for name, default in kind.rest:
        value = fields[name]
        if value is default or (type(value) is type(default) and value == default):
            continue
        keepable = pack(value, name)
        if keepable is not LEFT_OUT:
            notes[name] = keepable
            packed = packed or keepable is not value
    extra = message.__pydantic_extra__
    if extra:
        keepable = pack(extra, "extra")
        if keepable is not LEFT_OUT:
            notes["extra"] = keepable
            packed = packed or keepable is not extra
    if packed:
        notes["packed"] = True

    role = kind.role
    calls: tuple[ToolCall, ...] = ()
    tool_call_id = None
    if kind is _AI:
        if fields["tool_calls"] or fields["invalid_tool_calls"]:
            calls = _calls(fields, notes)
        if fields["additional_kwargs"].get("tool_calls"):
            notes["calls"] = len(calls)
    elif kind is _TOOL:
        tool_call_id = fields["tool_call_id"]
    elif kind is _SYSTEM:
        if fields["additional_kwargs"].get(_OPENAI_ROLE) == "developer":
            role = "developer"
            if fields["additional_kwargs"] == _DEVELOPER:
                del notes["additional_kwargs"]
    elif kind is _CHAT:
        role = fields["role"]
        if not role:
            role, notes["role"] = "chat", role
        if role in _ROLES:
            notes["type"] = "chat"

    content = fields["content"]
    if type(content) is not str:
        content = [to_block(part) for part in plain(content)]
    if kind is _AI and type(content) is list and (content or fields["additional_kwargs"]):
        notes["blocks"] = True
    if kind is _AI and fields["additional_kwargs"]:
        content = _with_kwargs(content, fields["additional_kwargs"], bool(calls))
    lc_id = fields["id"]
    stored: dict[str, Any] = {}
    if lc_id is None:
        notes["id"] = None
    else:
        stored["message_id"] = message_id(lc_id)
        if stored["message_id"] != lc_id:
            notes["id"] = lc_id
    return Message(
        role,
        content,
        **stored,
        name=fields["name"],
        tool_calls=calls,
        tool_call_id=tool_call_id,
        extensions={_EXTENSION: notes} if notes else {},
    )


def message_id(lc_id: str) -> str:
    """The store's id of the message whose id in LangChain is `lc_id`: the same, where it can be
    one (1 to 255 bytes of UTF-8); else a digest of it."""
    if 0 < len(lc_id) <= _SHORT and lc_id.isascii():
        return lc_id
    data = lc_id.encode("utf-8", "surrogatepass")
    if 0 < len(data) <= _MAX_ID_BYTES and not any("\ud800" <= c <= "\udfff" for c in lc_id):
        return lc_id
    return f"langchain:{hashlib.sha256(data).hexdigest()}"


def _whole(message: Any) -> BaseMessage:
    """A message of one of the classes that we know, from anything else."""
    kind = type(message)
    if not isinstance(message, BaseMessage):
        raise InvalidInputError(
            f"{kind.__module__}.{kind.__qualname__} is not a LangChain message; "
            "give HumanMessage(…), AIMessage(…) …"
        )
    if isinstance(message, RemoveMessage):
        raise InvalidInputError(
            "a RemoveMessage is not stored; give it to add_messages of a history, which removes "
            "the message that it names"
        )
    if isinstance(message, BaseMessageChunk) and kind.__mro__[1] in _KINDS:
        whole = message_chunk_to_message(message)
        if message.__pydantic_extra__ and whole.__pydantic_extra__ is not None:
            whole.__pydantic_extra__.update(message.__pydantic_extra__)
        return whole
    raise InvalidInputError(
        f"{kind.__module__}.{kind.__qualname__} is a message class of your own, which nobody else "
        "could read back; give one of langchain-core's (additional_kwargs keeps your fields)"
    )


def _calls(fields: Mapping[str, Any], notes: dict[str, Any]) -> tuple[ToolCall, ...]:
    valid = [_call(call) for call in fields["tool_calls"]]
    invalid = [_invalid_call(call) for call in fields["invalid_tool_calls"]]
    for name, calls, back in (
        ("tool_calls", valid, _lc_call),
        ("invalid_tool_calls", invalid, _lc_invalid_call),
    ):
        if list(map(back, calls)) != fields[name]:
            notes[name] = fields[name]
    return (*valid, *invalid)


def _call(call: Mapping[str, Any]) -> ToolCall:
    return ToolCall(call.get("id"), call.get("name") or "", plain(call.get("args")))


def _invalid_call(call: Mapping[str, Any]) -> ToolCall:
    return ToolCall(
        call.get("id"), call.get("name") or "", call.get("args") or "", call.get("error")
    )


# -- neutral → LangChain -----------------------------------------------------------------------


def from_neutral(message: Message) -> BaseMessage:
    """The LangChain form of a neutral message, whoever wrote it.

    Args:
        message: what `to_neutral` made gives an equal message of the same class; one from
            elsewhere gives a message with LangChain's standard content blocks. Nested values are
            shared with the result.

    Raises:
        InvalidInputError: not a neutral message, or its LangChain extension does not read.
    """
    if type(message) is not Message:
        raise InvalidInputError(f"{type(message).__name__} is not a tsmemory.Message")
    try:
        return _from_neutral(message)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"message {message.message_id!r}: what langchain_tsmemory keeps in it does not read: "
            f"{type(error).__name__}: {error}"
        ) from error


def is_same(a: Message, b: Message) -> bool:
    """Whether LangChain reads the same message of both, whoever wrote them."""
    return from_neutral(a) == from_neutral(b)


def _from_neutral(message: Message) -> BaseMessage:
    found = message.extensions.get(_EXTENSION)
    notes: Mapping[str, Any] = found if type(found) is dict else {}
    kind = _ROLES.get(message.role, _CHAT)
    if "type" in notes:
        kind = _TYPES.get(notes["type"], kind)
    content: Any = message.content
    marks: list[dict[str, Any]] = [{}, {}]
    if type(content) is not str:
        content = [from_block(block) for block in content]
        kwargs = notes.get("additional_kwargs")
        if kind is _AI and type(kwargs) is dict:
            content = _without_kwargs(content, kwargs, "blocks" in notes)
        if kind is _AI and content and type(content) is list and "blocks" not in notes:
            content, *marks = present(message, content)
    fields: dict[str, Any] = {"content": content}
    names = ("response_metadata", "additional_kwargs")
    fields.update((name, value) for name, value in zip(names, marks, strict=True) if value)
    lc_id: str | None = message.message_id
    if notes:
        lc_id = notes.get("id", lc_id)
    # What is None is left to the constructor, which takes its time over each argument.
    if lc_id is not None:
        fields["id"] = lc_id
    if message.name is not None:
        fields["name"] = message.name
    if kind is _TOOL:
        fields["tool_call_id"] = message.tool_call_id or ""
    elif kind is _CHAT:
        fields["role"] = notes.get("role", message.role)
    elif kind is _FUNCTION:
        fields.setdefault("name", "")
    built = kind.cls(**fields)
    # Set and not passed: the constructor would parse the provider's copy of tool calls again, and
    # copy every dict.
    if len(notes) > ("id" in notes):
        read = unpack if notes.get("packed") else _as_it_is
        for name, _ in kind.rest:
            if name in notes:
                setattr(built, name, read(notes[name]))
        if "extra" in notes and built.__pydantic_extra__ is not None:
            built.__pydantic_extra__.update(read(notes["extra"]))
    if kind is _AI:
        if message.tool_calls:
            _set_calls(cast("AIMessage", built), message.tool_calls, notes)
        if "calls" in notes and notes["calls"] != len(message.tool_calls):
            _forget_calls(built, message.tool_calls)
    elif message.role == "developer" and kind is _SYSTEM and "additional_kwargs" not in notes:
        built.additional_kwargs = dict(_DEVELOPER)
    return built


def _kwargs_thought(kwargs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The reasoning that an answer has in its `additional_kwargs`, as a neutral block."""
    thought = kwargs.get("reasoning_content")
    return [{"type": "reasoning", "reasoning": thought}] if type(thought) is str and thought else []


def _kwargs_texts(kwargs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an answer without content says in its `additional_kwargs`, as neutral blocks."""
    audio, legacy = kwargs.get("audio"), kwargs.get("function_call")
    texts = [kwargs.get("refusal")]
    if isinstance(audio, Mapping):
        texts.append(audio.get("transcript"))
    if isinstance(legacy, Mapping) and isinstance(legacy.get("name"), str):
        texts.append(f"{legacy['name']}({legacy.get('arguments') or ''})")
    return [{"type": "text", "text": text} for text in texts if type(text) is str and text]


def _with_kwargs(content: Any, kwargs: Mapping[str, Any], calling: bool) -> Any:
    """The neutral `content` with what `kwargs` alone say; the same where they say nothing more."""
    added = _kwargs_thought(kwargs)
    if not content and not calling:
        added += _kwargs_texts(kwargs)
    if not added:
        return content
    if type(content) is list:
        return added + content
    return [*added, {"type": "text", "text": content}] if content else added


def _without_kwargs(content: list[Any], kwargs: Mapping[str, Any], own: bool) -> Any:
    """What `_with_kwargs` was given; `content` as it is where somebody changed it since.

    Args:
        own: the content was a list.
    """
    thought = _kwargs_thought(kwargs)
    rest = content[len(thought) :] if content[: len(thought)] == thought else content
    if rest and rest == _kwargs_texts(kwargs):
        rest = []
    if own or rest is content:
        return rest
    if not rest:
        return ""
    text = rest[0].get("text") if len(rest) == 1 and isinstance(rest[0], dict) else None
    return text if type(text) is str else rest


def _as_it_is(value: Any) -> Any:
    return value


def _lc_call(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "args": call.arguments, "id": call.id, "type": "tool_call"}


def _lc_invalid_call(call: ToolCall) -> dict[str, Any]:
    return {
        "name": call.name,
        "args": call.arguments,
        "id": call.id,
        "error": call.error,
        "type": "invalid_tool_call",
    }


def _set_calls(built: AIMessage, calls: tuple[ToolCall, ...], notes: Mapping[str, Any]) -> None:
    valid = [c for c in calls if c.error is None and not isinstance(c.arguments, str)]
    invalid = [c for c in calls if c.error is not None or isinstance(c.arguments, str)]
    built.tool_calls = _as_they_were(  # type: ignore[assignment]  # dicts of that shape
        [_lc_call(c) for c in valid], notes.get("tool_calls")
    )
    built.invalid_tool_calls = _as_they_were(  # type: ignore[assignment]
        [_lc_invalid_call(c) for c in invalid], notes.get("invalid_tool_calls")
    )


def _as_they_were(
    calls: list[dict[str, Any]], kept: list[dict[str, Any]] | None
) -> list[dict[str, Any]]:
    """`calls`, those that were kept in their own form in that form.

    A window may have left some out, so they are matched in order, by what both forms say.
    """
    if kept is None:
        return calls
    waiting = iter(kept)
    found = []
    for call in calls:
        was = next((k for k in waiting if _names(k) == _names(call)), None)
        found.append(call if was is None else was)
    return found


def _names(call: Mapping[str, Any]) -> tuple[Any, ...]:
    return (call.get("id"), call.get("name") or "", call.get("args") or "")


def _forget_calls(built: BaseMessage, calls: tuple[ToolCall, ...]) -> None:
    """Take the calls that a window left out from the provider's own copy too, which integrations
    send where they find one."""
    ids = {call.id for call in calls}
    kwargs = dict(built.additional_kwargs)
    raw = [c for c in kwargs.pop("tool_calls", ()) if isinstance(c, dict) and c.get("id") in ids]
    if raw:
        kwargs["tool_calls"] = raw
    built.additional_kwargs = kwargs
