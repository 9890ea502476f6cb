r"""The lines of a session's file: how they are written, and how they are read.

Each is one JSON object in UTF-8 and a newline (docs/jsonl-format.md). The first says which session
the file belongs to; then come messages, one per line, and now and then a line about the session::

    {"tsmemory":1,"log":"5f1d3c70a2b94e68","user_id":"u","session_id":"s","create_time":1}
    {"create_time":17,"message_id":"m1","role":"user","content":"Hi"}
    {"create_time":18,"message_id":"m2","left":1,"role":"user","content":"first of two"}
    {"create_time":19,"message_id":"m3","role":"assistant","content":"second of two"}
    {"create_time":17,"message_id":"m1","op":"replace","left":1,"role":"user","content":"Hello"}
    {"session":{"version":4,…}}

``left`` counts the lines of the same batch that follow: a batch counts once its last line, the one
without ``left``, is whole. Whole means: it ends in a newline, or it is the file's last line and a
JSON object by itself, because some editors remove the last newline. (No beginning of a JSON object
is a JSON object, so what a killed writer left is never taken for a line.) ``op`` marks a message
that is not simply the next one: ``insert`` is new but older than what is there, ``replace``
overwrites the one with its id. Lines without a role are changes: ``session``, ``delete``,
``truncate``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec

from tsmemory.engine.codec import decode_message
from tsmemory.engine.records import Position
from tsmemory.model import Message
from tsmemory.times import MAX_TIME

__all__ = [
    "FORMAT",
    "Count",
    "Head",
    "Header",
    "Line",
    "advance_head",
    "body_of",
    "broken_id",
    "decode_line",
    "delete_line",
    "empty_head",
    "header_line",
    "is_unterminated",
    "message_line",
    "read_header",
    "read_lines",
    "session_line",
    "truncate_line",
]

FORMAT = 1
"""The version of the file, ``tsmemory`` in its first line."""

_encode = msgspec.json.encode

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME)]
"""A number of a record or a time in µs. Anything else on file is damage."""


def _decode(content: bytes, kind: Any = Any) -> Any:
    """JSON to values.

    Raises:
        ValueError: it is none (msgspec's errors are subclasses), or nested too deeply.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


_ID = rb'"([^"\\\n]*(?:\\.[^"\\\n]*)*)"'
_LINE = re.compile(
    rb'\{"create_time":(\d{1,19}),"message_id":' + _ID + rb'(?:,"op":"(insert|replace)")?'
    rb'(?:,"left":(\d+))?,((?:"v":1,"escaped":\{)?"role":"(system"|developer")?)[^\n]*\n'
    rb"|[^\n]*\n"
)
"""One line. The groups are there where it begins as `message_line` writes it, whatever follows:
a message whose end is damaged can still be named."""


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session's record without its free part (title, summary, metadata): what every write
    changes. Times in µs."""

    version: Count
    create_time: Count
    update_time: Count
    message_count: Count
    last_time: Count
    """The highest create_time that the session ever gave or took."""
    ttl: float | None = None
    expires_at: Count | None = None


def empty_head(create_time: int) -> Head:
    """The record of a file that holds no batch yet."""
    return Head(version=0, create_time=create_time, update_time=0, message_count=0, last_time=0)


def advance_head(head: Head, added: int, newest: int, *, batches: int = 1) -> Head:
    """The record after batches that only add messages and have no ``session`` line.

    Args:
        added: how many messages.
        newest: the latest create_time among them, µs.
        batches: how many; 0 changes nothing.
    """
    if not batches:
        return head
    return Head(
        version=head.version + batches,
        create_time=head.create_time,
        update_time=max(head.update_time, newest),
        message_count=head.message_count + added,
        last_time=max(head.last_time, newest),
        ttl=head.ttl,
        expires_at=head.expires_at,
    )


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a file."""

    tsmemory: int
    log: str
    """Of this file and no other: a rewritten file gets a new one."""
    user_id: str
    session_id: str
    create_time: Count


class _Record(Head, frozen=True, kw_only=True):
    record: msgspec.Raw = msgspec.Raw()


class _Change(msgspec.Struct, frozen=True, kw_only=True):
    """A line without a role."""

    session: _Record | None = None
    delete: list[str] | None = None
    truncate: Position | None = None
    skip: Count = 0
    left: int = 0


class Line(NamedTuple):
    """One line as read. `start` and `size` in bytes; the newline is counted."""

    start: int
    size: int
    kind: str
    """``message``, ``insert``, ``replace``; ``session``, ``delete``, ``truncate``; ``broken``."""
    create_time: int
    message_id: str
    pinned: bool
    final: bool
    """Whether the batch ends here."""
    change: Any
    """What a line without a role says; None for messages."""


# -- writing -----------------------------------------------------------------------------------


def header_line(log: str, user_id: str, session_id: str, create_time: int) -> bytes:
    header = Header(
        tsmemory=FORMAT, log=log, user_id=user_id, session_id=session_id, create_time=create_time
    )
    return _encode(header) + b"\n"


def message_line(position: Position, body: bytes, op: str | None, following: int) -> bytes:
    """A message's line. `body` is what `encode_message` made of it."""
    marks = b',"op":"%s"' % op.encode() if op else b""
    if following:
        marks += b',"left":%d' % following
    mid = _encode(position.message_id)
    return b'{"create_time":%d,"message_id":%s%s,%s\n' % (position[0], mid, marks, body[1:])


def session_line(head: Head, record: bytes | None, left: int = 0) -> bytes:
    """The session's record as it is after this batch; `record`, its free part, where it changed."""
    free = b',"record":' + record if record is not None else b""
    return _mark(b'{"session":' + _encode(head)[:-1] + free + b"}}", left)


def delete_line(ids: list[str], following: int) -> bytes:
    return _mark(b'{"delete":' + _encode(ids) + b"}", following)


def truncate_line(through: Position, skip: int, following: int) -> bytes:
    """Everything up to `through` is deleted; nothing that is left begins before byte `skip`."""
    return _mark(b'{"truncate":' + _encode(through) + b',"skip":%d}' % skip, following)


def _mark(line: bytes, following: int) -> bytes:
    return line[:-1] + (b',"left":%d' % following if following else b"") + b"}\n"


# -- reading -----------------------------------------------------------------------------------


def read_header(content: bytes) -> Header | None:
    """The header that `content` begins with; None where there is none, whole and readable."""
    end = content.find(b"\n")
    if end < 0:
        return None
    try:
        header: Header = _decode(content[:end], Header)
    except ValueError:
        return None
    return header if header.user_id and header.session_id else None


def broken_id(start: int) -> str:
    """The id given to a line whose own cannot be read. ``~`` sorts it behind its predecessor."""
    return f"~broken at byte {start}"


def read_lines(content: bytes, start: int, time: int = 0) -> Iterator[Line]:
    """The lines of `content`, which is in the file at byte `start`; without an unterminated last
    one.

    Args:
        time: the create_time of the last ``message`` line before; a broken line is placed there.
    """
    for match in _LINE.finditer(content):
        at, size = start + match.start(), match.end() - match.start()
        created, raw_id, op, left, body, role = match.groups()
        if body is None or b"\\" in raw_id or len(created) == 19:
            line = _parse_irregular(match[0], at, time)
        else:
            try:
                mid = raw_id.decode()
            except UnicodeDecodeError:
                line = _parse_irregular(match[0], at, time)
            else:
                kind = op.decode() if op else "message"
                line = Line(at, size, kind, int(created), mid, role is not None, left is None, None)
        if line.kind == "message":
            time = line.create_time
        yield line


def is_unterminated(content: bytes) -> bool:
    """Whether of the last line of `content` only the newline is missing."""
    last = content[content.rfind(b"\n") + 1 :]
    if not last.rstrip().endswith(b"}"):
        return False
    try:
        return isinstance(_decode(last), dict)
    except ValueError:
        return False


def _parse_irregular(raw: bytes, start: int, time: int) -> Line:
    """A line that is not a message as `message_line` writes it: a change, another program's JSON,
    an unusual id, or damage."""
    size = len(raw)
    # A killed writer leaves a beginning, without a newline; a power cut may leave zeros with one.
    # Any other line that does not read was whole once: it is kept, and reported.
    whole = b"\0" not in raw and not raw.isspace()
    broken = Line(start, size, "broken", time, broken_id(start), False, whole, None)
    try:
        fields = _decode(raw)
    except ValueError:
        return _broken_end(raw, broken)
    if not isinstance(fields, dict):
        return broken
    final = not fields.get("left")
    if "role" not in fields:
        return _read_change(raw, start) or broken._replace(final=final)
    try:
        create_time = msgspec.convert(fields["create_time"], Count)
        message_id = msgspec.convert(fields["message_id"], str)
    except (msgspec.ValidationError, LookupError):
        return broken._replace(final=final)
    if not message_id:
        return broken._replace(final=final)
    op = fields.get("op")
    kind = op if op in ("insert", "replace") else "message"
    pinned = fields["role"] in ("system", "developer")
    return Line(start, size, kind, create_time, message_id, pinned, final, None)


def _broken_end(raw: bytes, broken: Line) -> Line:
    """A line that does not decode, under its own id where its beginning can be read."""
    match = _LINE.match(raw)
    if match is None or match[5] is None or int(match[1]) > MAX_TIME:
        return broken
    try:
        mid = str(_decode(b'"%s"' % match[2]))
    except ValueError:
        return broken
    if not mid:
        return broken
    return broken._replace(
        kind=match[3].decode() if match[3] else "message",
        create_time=int(match[1]),
        message_id=mid,
        pinned=match[6] is not None,
        final=match[4] is None,
    )


def _read_change(raw: bytes, start: int) -> Line | None:
    try:
        fields: _Change = _decode(raw, _Change)
    except ValueError:
        return None
    kind: str
    change: Any
    if fields.session is not None:
        free = bytes(fields.session.record) or None
        head = Head(**{name: getattr(fields.session, name) for name in Head.__struct_fields__})
        kind, change = "session", (head, free)
    elif fields.delete is not None:
        kind, change = "delete", fields.delete
    elif fields.truncate is not None:
        kind, change = "truncate", (fields.truncate, fields.skip)
    else:
        return None
    return Line(start, len(raw), kind, 0, "", False, not fields.left, change)


def body_of(raw: bytes) -> bytes | None:
    """The body of the message on line `raw`, as the codec writes them, readable or not; None where
    the line does not say which message it is."""
    if not raw.endswith(b"\n"):
        raw += b"\n"
    match = _LINE.match(raw)
    if match is not None and match[5] is not None:
        return b"{" + raw[match.start(5) :].rstrip(b"\r\n")
    try:
        fields = _decode(raw)
    except ValueError:
        return None
    if not isinstance(fields, dict) or not {"create_time", "message_id", "role"} <= fields.keys():
        return None
    ours = {"create_time", "message_id", "op", "left"}
    return _encode({k: v for k, v in fields.items() if k not in ours})


def decode_line(raw: bytes, position: Position) -> Message:
    """The message on line `raw`.

    Raises:
        ValueError: there is none that decodes (msgspec's errors are subclasses).
    """
    body = body_of(raw)
    if body is None:
        raise ValueError("the line is not a message")
    try:
        return decode_message(body, position.message_id, position.create_time)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
