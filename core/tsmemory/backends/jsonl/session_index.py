"""The index of one session's file: its record, and where its messages are.

The file is the truth. A `SessionIndex` is the result of replaying it, and is made in one of two
ways: by reading everything, or by adopting the ``.meta.json`` (the result of an earlier replay, up
to a byte) and reading on from there. `tail.read_tail` needs neither: it reads lines backwards.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from tsmemory.backends.jsonl.lines import (
    FORMAT,
    Count,
    Head,
    Header,
    Line,
    advance_head,
    empty_head,
    is_unterminated,
    read_lines,
)
from tsmemory.engine.codec import decode_session
from tsmemory.engine.records import Key, MessageQuery, Position
from tsmemory.engine.rows import walk
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Session, is_pinned

__all__ = ["EMPTY_RECORD", "Entry", "Meta", "Row", "SessionIndex"]

_TAIL = 64  # bytes remembered of what was replayed last, to recognise the file by
EMPTY_RECORD = b"{}"
"""The free part of a record: no title, no summary, no metadata."""


class Entry(NamedTuple):
    """Where a message is: in the session, and in the file (bytes, the newline counted)."""

    position: Position
    start: int
    size: int


Row = tuple[Entry, bytes]
"""A message's entry, and its line."""


class Meta(Head, frozen=True, kw_only=True):
    """The ``.meta.json``: the result of replaying the file's first `bytes` bytes. Never the only
    copy."""

    v: int
    """The format's version."""
    user_id: str
    session_id: str
    log: str
    """Of the file that it is about."""
    bytes: Count
    skip: Count
    """No message that is left begins before this byte."""
    pinned: list[tuple[Count, str, Count, Count]]
    """System and developer messages: create_time, message_id, start and size of the line."""
    record: msgspec.Raw = msgspec.Raw(EMPTY_RECORD)
    """Title, summary and metadata."""


class SessionIndex:
    """A session's file as far as it was read.

    Args:
        header: its first line; None where that does not decode.
        start: where the second line begins, bytes.
        indexed: whether to keep where every message is, not only what the record needs.
    """

    def __init__(self, header: Header | None, start: int, *, indexed: bool) -> None:
        self.header = header
        self.end = self.skip = start
        """`end`: up to which byte the file was replayed."""
        self.unterminated = False
        """Whether the newline of the last line, at `end`, is missing."""
        self.tail = b""
        """The last bytes before `end`."""
        self.meta_bytes: int | None = None
        """Up to which byte the ``.meta.json`` knows the file; None where there is none of use."""
        self.changing = False
        """True after a change was interrupted half-way: the index is of no use any more."""
        self.head = empty_head(header.create_time if header else 0)
        self.record = EMPTY_RECORD
        self.pinned: dict[str, Entry] = {}
        self.indexed = indexed
        self.entries: dict[str, Entry] = {}
        self.order: list[Position] = []
        self._time = 0

    # -- the meta file -----------------------------------------------------------------------

    def adopt(self, meta: Meta) -> None:
        """Take the record from `meta`, and continue reading where it ends."""
        self.head = Head(**{name: getattr(meta, name) for name in Head.__struct_fields__})
        self.record = bytes(meta.record)
        self.end, self.skip = meta.bytes, meta.skip
        self.meta_bytes = meta.bytes
        if not self.indexed:
            self.pinned = {
                mid: Entry(Position(time, mid), start, size)
                for time, mid, start, size in meta.pinned
            }

    def meta(self, key: Key) -> Meta:
        assert self.header is not None
        return Meta(
            **msgspec.structs.asdict(self.head),
            v=FORMAT,
            user_id=key.user_id,
            session_id=key.session_id,
            log=self.header.log,
            bytes=self.end,
            skip=self.skip,
            pinned=[
                (e.position.create_time, e.position.message_id, e.start, e.size)
                for e in self.pinned.values()
            ],
            record=msgspec.Raw(self.record),
        )

    def session(self, key: Key) -> Session | CorruptRecordError:
        """The session's record, or the error in the place of it."""
        reason = None
        title = summary = None
        metadata: dict[str, Any] = {}
        if self.header is None:
            reason = "does not decode: the first line of its file is no header"
        elif (self.header.user_id, self.header.session_id) != key:
            reason = (
                f"its file belongs to session {self.header.session_id!r} of user "
                f"{self.header.user_id!r}; was it copied or renamed?"
            )
        elif not self.head.version:
            reason = "lost its messages: no whole batch follows the first line of its file"
        elif self.indexed and self.head.message_count != len(self.order):
            reason = self.miscount()
        else:
            try:
                title, summary, metadata = decode_session(self.record)
            except ValueError as error:
                reason = f"does not decode: {error}"
        head = self.head
        if reason is not None:
            return CorruptRecordError(
                reason,
                user_id=key.user_id,
                session_id=key.session_id,
                create_time=head.update_time,
            )
        return Session(
            user_id=key.user_id,
            session_id=key.session_id,
            create_time=head.create_time,
            update_time=head.update_time,
            version=head.version,
            message_count=head.message_count,
            title=title,
            summary=summary,
            expires_at=head.expires_at,
            ttl=head.ttl,
            metadata=metadata,
        )

    def miscount(self) -> str:
        """What a record means that counts other messages than there are."""
        return (
            f"message_count is {self.head.message_count}, but its file has {len(self.order)} "
            "messages: lines of it were removed"
        )

    # -- replaying ---------------------------------------------------------------------------

    def replay(self, content: bytes, *, committed: int = 0, ours: bool = False) -> None:
        """Take in `content`, which is in the file at `end`, as far as its batches are whole.

        Args:
            committed: up to this byte the file is known to be committed, so that a last line which
                does not decode is damage there, and an unfinished write behind it.
            ours: it was just written by this process, so its last line is whole.
        """
        self.changing = True
        if self.unterminated and content[:1] == b"\n":
            self._take(self.end + 1, b"\n")
            content = content[1:]
        begin = self.end
        missing = not ours and is_unterminated(content)
        self._replay(content + b"\n" if missing else content, committed)
        if missing and self.end == begin + len(content) + 1:
            self.end -= 1
            self.unterminated = True
        elif self.end > begin:
            self.unterminated = False
        self.tail = (self.tail + content[: self.end - begin])[-_TAIL:]
        self.changing = False

    def extend(self, messages: Sequence[Message], batch: Sequence[bytes]) -> None:
        """Take in a batch that was just written, and is nothing but new messages in order: what
        `replay` makes of it, without parsing it.

        Args:
            batch: the line of each message.
        """
        self.changing = True
        at = self.end
        for message, line in zip(messages, batch, strict=True):
            mid, size = message.message_id, len(line)
            position = Position(message.create_time or 0, mid)
            self.entries[mid] = entry = Entry(position, at, size)
            self.order.append(position)
            if is_pinned(message.role):
                self.pinned[mid] = entry
            at += size
        self._time = newest = messages[-1].create_time or 0
        self.head = advance_head(self.head, len(messages), newest)
        self.end, self.tail = at, batch[-1][-_TAIL:]
        self.changing = False

    def _take(self, end: int, newline: bytes) -> None:
        self.end, self.tail, self.unterminated = end, (self.tail + newline)[-_TAIL:], False

    def _replay(self, content: bytes, committed: int) -> None:
        batch: list[Line] = []
        plain, newest = 0, 0
        for line in read_lines(content, self.end, self._time):
            if line.final and not batch and line.kind == "message" and self._append(line):
                # The usual line, without a record: what it means for the record is summed up.
                plain += 1
                newest = max(newest, line.create_time)
                self.end = line.start + line.size
                continue
            batch.append(line)
            if line.final:
                self.head = advance_head(self.head, plain, newest, batches=plain)
                plain = 0
                self._commit(batch)
                batch = []
        self.head = advance_head(self.head, plain, newest, batches=plain)
        if batch and batch[-1].start + batch[-1].size <= committed:
            self._commit(batch)

    def _append(self, line: Line) -> bool:
        """Take in a message that is newer than all before it; False where it is not, or where its
        id is there."""
        mid = line.message_id
        position = Position(line.create_time, mid)
        if self.indexed:
            if mid in self.entries or (self.order and position <= self.order[-1]):
                return False
            self.entries[mid] = Entry(position, line.start, line.size)
            self.order.append(position)
        if line.pinned:
            self.pinned[mid] = Entry(position, line.start, line.size)
        self._time = line.create_time
        return True

    def _commit(self, batch: list[Line]) -> None:
        added, newest = 0, 0
        head: Head | None = None
        for line in batch:
            kind = line.kind
            if kind == "message" or kind == "insert" or kind == "broken":
                added += not self._add(line)
                newest = max(newest, line.create_time)
            elif kind == "replace":
                self._remove(line.message_id)
                self._add(line)
                newest = max(newest, line.create_time)
            elif kind == "delete":
                for mid in line.change:
                    self._remove(mid)
            elif kind == "truncate":
                self._truncate(*line.change)
            else:
                head, record = line.change
                if record is not None:
                    self.record = record
        self.end = batch[-1].start + batch[-1].size
        self.head = head or advance_head(self.head, added, newest)

    def _add(self, line: Line) -> bool:
        """Whether the id was there already, as a damaged or foreign file may have it."""
        mid = line.message_id
        position = Position(line.create_time, mid)
        entry = Entry(position, line.start, line.size)
        exists = False
        if line.kind == "message":
            self._time = line.create_time
        if self.indexed:
            exists = mid in self.entries
            if exists:
                self._remove(mid)
            self.entries[mid] = entry
            if not self.order or position > self.order[-1]:
                self.order.append(position)
            else:
                insort(self.order, position)
        if line.pinned:
            self.pinned[mid] = entry
        return exists

    def _remove(self, message_id: str) -> None:
        self.pinned.pop(message_id, None)
        entry = self.entries.pop(message_id, None)
        if entry is not None:
            del self.order[bisect_left(self.order, entry.position)]

    def _truncate(self, through: Position, skip: int) -> None:
        self.skip = max(self.skip, skip)
        self.pinned = {mid: e for mid, e in self.pinned.items() if e.position > through}
        count = bisect_right(self.order, through)
        for position in self.order[:count]:
            del self.entries[position.message_id]
        del self.order[:count]

    def count_through(self, through: Position) -> int:
        """How many messages are up to `through`, inclusive."""
        return bisect_right(self.order, through)

    def skip_after(self, through: Position) -> int:
        """The byte before which no message begins that comes after `through`."""
        remaining = self.order[bisect_right(self.order, through) :]
        return min((self.entries[p.message_id].start for p in remaining), default=self.end)

    def everything(self) -> Iterator[Entry]:
        """Every message, in order."""
        return (self.entries[position.message_id] for position in self.order)

    # -- reading by the index ----------------------------------------------------------------

    def walk(self, query: MessageQuery) -> Iterator[Entry]:
        """The messages of the query's range, in its direction, without its `where` and `limit`."""
        return (self.entries[p.message_id] for p in walk(self.order, query))
