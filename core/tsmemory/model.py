"""The records: what a conversation is made of, whatever keeps it and whatever reads it.

All are frozen `msgspec.Struct`s. Times are integers: microseconds since the Unix epoch, UTC.

Records go in and out as JSON: `to_dict` gives plain values with every field under its name, in the
order of the class; values that JSON cannot hold are tagged (`tsmemory.values`). `from_dict` takes
that back; fields it does not know are ignored.
"""

from __future__ import annotations

import datetime as dt
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from tsmemory.blocks import Block, Content
from tsmemory.errors import InvalidInputError
from tsmemory.record import Record
from tsmemory.times import Time, as_datetime, micros
from tsmemory.values import restored

if TYPE_CHECKING:
    from tsmemory.blocks import Content

__all__ = [
    "Block", "Erased", "Id", "LeftOut", "Message", "MessageList", "Page", "Problem", "Record",
    "Session", "Stats", "ToolCall", "WindowReport",
]  # fmt: skip

Id: TypeAlias = str | int | uuid.UUID
"""An id, as an argument: 1 to 255 bytes of UTF-8, any characters. An int or a UUID stands for its
text: session 7 is session "7"."""

T = TypeVar("T")

_PINNED_ROLES = frozenset({"system", "developer"})


def is_pinned(role: str) -> bool:
    """Whether messages of this role are instructions, which windows keep wherever they stand."""
    return role in _PINNED_ROLES


def as_id(value: Any) -> Any:
    """An id as it is stored: an int or a UUID as its text; whatever else is checked later."""
    if type(value) is int or isinstance(value, uuid.UUID):
        return str(value)
    return value


def new_id() -> str:
    """A message id that no other writer makes: a random UUID (RFC 9562, version 4)."""
    bits = os.urandom(16).hex()  # as `uuid.uuid4`, without an object in between: half of the cost
    variant = "89ab"[int(bits[16], 16) & 3]
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-{variant}{bits[17:20]}-{bits[20:]}"


class ToolCall(Record, frozen=True, omit_defaults=True):
    """A model's request to run a tool."""

    id: str | None
    """What the result's ``tool_call_id`` answers. None where the provider gave none."""
    name: str
    arguments: dict[str, Any] | str
    """The arguments by name; text where the model's output did not parse as a JSON object."""
    error: str | None = None
    """Why the call could not be parsed. None for a valid call."""

    @classmethod
    def _built(cls, shape: ToolCall) -> ToolCall:
        return ToolCall(shape.id, shape.name, restored(shape.arguments), shape.error)


class Message(Record, frozen=True):
    """One message of a conversation, in no framework's dialect.

    `message_id` is given at construction, so that appending the same object again after a lost
    reply is recognised and does not double it. `create_time` is the store's to give.
    """

    role: str
    """``user``, ``assistant``, ``system``, ``developer``, ``tool``, ``function``, or your own."""
    content: str | list[Block] = ""
    message_id: str = msgspec.field(default_factory=new_id)
    """Unique in its session; 1 to 255 bytes of UTF-8."""
    create_time: int | None = None
    """µs since the epoch; the order of the session. None until stored."""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    """The application's own: str, int, float, bool, bytes, None, lists and dicts of them."""
    extensions: dict[str, Any] = msgspec.field(default_factory=dict)
    """By framework: what the fields above cannot express, and only that."""

    @classmethod
    def _built(cls, shape: Message) -> Message:
        return msgspec.structs.replace(
            shape,
            content=restored(shape.content),
            tool_calls=tuple(map(ToolCall._built, shape.tool_calls)),
            metadata=restored(shape.metadata),
            extensions=restored(shape.extensions),
        )

    @property
    def created_at(self) -> dt.datetime | None:
        """`create_time` as an aware datetime, in UTC."""
        return None if self.create_time is None else as_datetime(self.create_time)

    @property
    def text(self) -> str:
        """The text of the content, joined; empty where there is none."""
        if isinstance(self.content, str):
            return self.content
        return "".join(
            block["text"] for block in self.content if isinstance(block.get("text"), str)
        )

    @classmethod
    def user(
        cls,
        content: Content,
        *,
        message_id: Id | None = None,
        create_time: Time | None = None,
        name: str | None = None,
        metadata: dict[str, Any] | None = None,
        extensions: dict[str, Any] | None = None,
    ) -> Message:
        """A message of the person (role ``user``)."""
        return _make("user", content, message_id, create_time, name, metadata, extensions)

    @classmethod
    def assistant(
        cls,
        content: Content = "",
        *,
        tool_calls: Iterable[ToolCall] = (),
        message_id: Id | None = None,
        create_time: Time | None = None,
        name: str | None = None,
        metadata: dict[str, Any] | None = None,
        extensions: dict[str, Any] | None = None,
    ) -> Message:
        """A message of the model (role ``assistant``), with its `tool_calls`."""
        return _make(
            "assistant",
            content,
            message_id,
            create_time,
            name,
            metadata,
            extensions,
            tuple(tool_calls),
        )

    @classmethod
    def system(
        cls,
        content: Content,
        *,
        message_id: Id | None = None,
        create_time: Time | None = None,
        name: str | None = None,
        metadata: dict[str, Any] | None = None,
        extensions: dict[str, Any] | None = None,
    ) -> Message:
        """Instructions (role ``system``). Windows keep them."""
        return _make("system", content, message_id, create_time, name, metadata, extensions)

    @classmethod
    def developer(
        cls,
        content: Content,
        *,
        message_id: Id | None = None,
        create_time: Time | None = None,
        name: str | None = None,
        metadata: dict[str, Any] | None = None,
        extensions: dict[str, Any] | None = None,
    ) -> Message:
        """Instructions (role ``developer``). Windows keep them."""
        return _make("developer", content, message_id, create_time, name, metadata, extensions)

    @classmethod
    def tool(
        cls,
        content: Content,
        *,
        tool_call_id: str,
        message_id: Id | None = None,
        create_time: Time | None = None,
        name: str | None = None,
        metadata: dict[str, Any] | None = None,
        extensions: dict[str, Any] | None = None,
    ) -> Message:
        """The result of the tool call with this id (role ``tool``)."""
        return _make(
            "tool", content, message_id, create_time, name, metadata, extensions, (), tool_call_id
        )

    def _repr_html_(self) -> str:
        from tsmemory import html  # only notebooks need it

        return html.messages([self])


def _make(
    role: str,
    content: Content,
    message_id: Id | None,
    create_time: Time | None,
    name: str | None,
    metadata: dict[str, Any] | None,
    extensions: dict[str, Any] | None,
    tool_calls: tuple[ToolCall, ...] = (),
    tool_call_id: str | None = None,
) -> Message:
    return Message(
        role,
        list(content) if isinstance(content, tuple) else content,  # type: ignore[arg-type]  # `checks` looks at what else it is
        new_id() if message_id is None else as_id(message_id),
        micros("create_time", create_time),
        name,
        tool_calls,
        tool_call_id,
        {} if metadata is None else metadata,
        {} if extensions is None else extensions,
    )


class Session(Record, frozen=True, kw_only=True):
    """What is known of a session beside its messages."""

    user_id: str
    session_id: str
    create_time: int
    """µs since the epoch."""
    update_time: int
    """µs since the epoch: the last write. Sessions are listed by it."""
    version: int
    """Counts the writes; what ``if_version`` compares."""
    message_count: int
    title: str | None = None
    summary: str | None = None
    expires_at: int | None = None
    """µs since the epoch; None where the session has no time to live."""
    ttl: float | None = None
    """Seconds that the session lives on after each write; None without a time to live."""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)

    @classmethod
    def _built(cls, shape: Session) -> Session:
        return msgspec.structs.replace(shape, metadata=restored(shape.metadata))

    @property
    def created_at(self) -> dt.datetime | None:
        """`create_time` as an aware datetime, in UTC."""
        return as_datetime(self.create_time)

    @property
    def updated_at(self) -> dt.datetime | None:
        """`update_time` as an aware datetime, in UTC."""
        return as_datetime(self.update_time)

    def _repr_html_(self) -> str:
        from tsmemory import html  # only notebooks need it

        return html.sessions([self])


class MessageList(list[Message]):
    """A list of messages that shows itself in a notebook."""

    def _repr_html_(self) -> str:
        from tsmemory import html  # only notebooks need it

        return html.messages(self)


class LeftOut(NamedTuple):
    """A message, or a part of one, that a window did not show, and why."""

    message: Message
    reason: str


class WindowReport(Record, frozen=True):
    """A window with its reasons (``explain=True``)."""

    messages: MessageList
    """What the model sees, in reading order."""
    left_out: list[LeftOut]
    """What was read and not shown, in reading order. Messages older than what had to be read
    are not read to be listed here: see `older`."""
    older: bool
    """Whether the session holds messages before the window that were not read."""
    tokens: int | None = None
    """The token counter's sum over `messages`; None where no counter was asked."""
    stable: int = 0
    """How many of `messages` begin the next view too, unless the start of the window moves: a
    prompt cache's breakpoint belongs behind them. All with `Window.step`, else the leading
    instructions."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WindowReport:
        """The report that `to_dict` gave."""
        try:
            fields = {name: data[name] for name in cls.__struct_fields__ if name in data}
            fields["messages"] = MessageList(map(Message.from_dict, data["messages"]))
            fields["left_out"] = [
                LeftOut(Message.from_dict(out["message"]), out["reason"])
                for out in data["left_out"]
            ]
            return cls(**fields)
        except (TypeError, KeyError) as error:
            raise InvalidInputError(f"not a WindowReport as to_dict gives it: {error}") from None

    def _repr_html_(self) -> str:
        from tsmemory import html  # only notebooks need it

        return html.window(self)


HIT_TYPES: dict[str, type[Record]] = {}
"""What a search gives, by a field that only it has: `tsmemory.search`, a layer above, adds it."""


class Page(Record, Generic[T], frozen=True):
    """A part of a listing."""

    items: list[T]
    next_cursor: str | None = None
    """Give it back as ``cursor=`` for what follows; None at the end. Opaque, and valid while
    others write."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Page[Any]:
        """The page that `to_dict` gave, of messages, of sessions or of what a search found."""
        items = data.get("items") if isinstance(data, Mapping) else None
        if not isinstance(items, list):
            raise InvalidInputError("not a Page as to_dict gives it: it has no list of items")
        first = items[0] if items and isinstance(items[0], dict) else {}
        fallback: type[Record] = Session if "session_id" in first else Message
        kind = next((kind for field, kind in HIT_TYPES.items() if field in first), fallback)
        return Page([kind.from_dict(item) for item in items], data.get("next_cursor"))

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def _repr_html_(self) -> str:
        from tsmemory import html  # only notebooks need it

        return html.page(self)


class Erased(NamedTuple):
    """The receipt of a deletion. True where anything went."""

    sessions: int = 0
    messages: int = 0

    def __bool__(self) -> bool:
        return self.sessions > 0 or self.messages > 0


class Stats(Record, frozen=True, kw_only=True):
    """What a store holds."""

    users: int
    sessions: int
    """Live sessions."""
    messages: int
    """Messages of live sessions."""
    expired_sessions: int = 0
    """Past their time to live, not yet purged; no reader sees them."""
    bytes: int | None = None
    """Size on disk or in the server, where the engine can tell."""


class Problem(NamedTuple):
    """One finding of ``verify()``."""

    user_id: str | None
    session_id: str | None
    message_id: str | None
    what: str
