"""What is known of one session's file: its record, and where its messages stand.

The file is the truth. `Log` is what replaying it gives, so it can be had in two ways: by reading
everything, or by taking up the ``.meta.json`` (what an earlier replay came to, up to a byte) and
reading on from there. `newest` needs neither: it reads lines backwards.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from tsmemory.backends.jsonl.lines import FORMAT, Head, Header, Line, after, blank, read_lines
from tsmemory.engine.codec import decode_session
from tsmemory.engine.records import Key, MessageQuery, Position
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Session

__all__ = ["NO_RECORD", "Entry", "Log", "Meta", "Row", "newest"]

_FIRST_CHUNK = 16 * 1024  # bytes: some 30 messages of a usual length
_MOST_BACKWARDS = 4 * 1024 * 1024  # bytes read from the end before the index is built instead
NO_RECORD = b"{}"
"""The free part of a record: no title, no summary, no metadata."""


class Entry(NamedTuple):
    """Where a message stands: in the session, and in the file (bytes, the newline counted)."""

    position: Position
    start: int
    size: int


Row = tuple[Entry, bytes]
"""A message's place, and its line."""


class Meta(Head, frozen=True, kw_only=True):
    """The ``.meta.json``: what the file's first `bytes` bytes come to. Never the only copy."""

    v: int
    """The format's version."""
    user_id: str
    session_id: str
    log: str
    """Of the file that it is about."""
    bytes: int
    skip: int
    """No message that is left begins before this byte."""
    pinned: list[tuple[int, str, int, int]]
    """System and developer messages: create_time, message_id, start and size of the line."""
    record: msgspec.Raw = msgspec.Raw(NO_RECORD)
    """Title, summary and metadata."""


class Log:
    """A session's file as far as it was read.

    Args:
        header: its first line; None where that does not read.
        start: where the second line begins, bytes.
        indexed: whether to keep where every message stands, not only what the record needs.

    `end` is the byte up to which it was read, `noted` the one that the ``.meta.json`` knows; None
    where there is none of use.
    """

    def __init__(self, header: Header | None, start: int, *, indexed: bool) -> None:
        self.header = header
        self.end = self.skip = start
        self.noted: int | None = None
        self.head = blank(header.create_time if header else 0)
        self.record = NO_RECORD
        self.pinned: dict[str, Entry] = {}
        self.indexed = indexed
        self.entries: dict[str, Entry] = {}
        self.order: list[Position] = []
        self._time = 0

    # -- the meta file -----------------------------------------------------------------------

    def adopt(self, meta: Meta) -> None:
        """Take the record from `meta`, and where reading goes on."""
        self.head = Head(**{name: getattr(meta, name) for name in Head.__struct_fields__})
        self.record = bytes(meta.record)
        self.end, self.skip = meta.bytes, meta.skip
        self.noted = meta.bytes
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
            pinned=[(*e.position, e.start, e.size) for e in self.pinned.values()],
            record=msgspec.Raw(self.record),
        )

    def session(self, key: Key) -> Session | CorruptRecordError:
        """The session's record, or what stands in its place."""
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

    # -- replaying ---------------------------------------------------------------------------

    def replay(self, data: bytes, *, known: int = 0) -> None:
        """Take in `data`, which stands in the file at `end`, as far as its batches are whole.

        Args:
            known: up to this byte the file is known to be committed, so that a last line which
                does not read is damage there, and an unfinished write behind it.
        """
        batch: list[Line] = []
        plain, newest = 0, 0
        for line in read_lines(data, self.end, self._time):
            if line.final and not batch and line.kind == "message" and self._append(line):
                # The usual line, which says nothing about the record: that is summed up.
                plain += 1
                newest = max(newest, line.create_time)
                self.end = line.start + line.size
                continue
            batch.append(line)
            if line.final:
                self.head = after(self.head, plain, newest, batches=plain)
                plain = 0
                self._commit(batch)
                batch = []
        self.head = after(self.head, plain, newest, batches=plain)
        if batch and batch[-1].start + batch[-1].size <= known:
            self._commit(batch)

    def _append(self, line: Line) -> bool:
        """Take in a message that is newer than all before it; False where it is not, or known."""
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
        said: Head | None = None
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
                said, record = line.change
                if record is not None:
                    self.record = record
        self.end = batch[-1].start + batch[-1].size
        self.head = said or after(self.head, added, newest)

    def _add(self, line: Line) -> bool:
        """Whether the id was there already, which a damaged or foreign file may hold."""
        mid = line.message_id
        position = Position(line.create_time, mid)
        entry = Entry(position, line.start, line.size)
        there = False
        if line.kind == "message":
            self._time = line.create_time
        if self.indexed:
            there = mid in self.entries
            if there:
                self._remove(mid)
            self.entries[mid] = entry
            if not self.order or position > self.order[-1]:
                self.order.append(position)
            else:
                insort(self.order, position)
        if line.pinned:
            self.pinned[mid] = entry
        return there

    def _remove(self, message_id: str) -> None:
        self.pinned.pop(message_id, None)
        entry = self.entries.pop(message_id, None)
        if entry is not None:
            del self.order[bisect_left(self.order, entry.position)]

    def _truncate(self, through: Position, skip: int) -> None:
        self.skip = max(self.skip, skip)
        self.pinned = {mid: e for mid, e in self.pinned.items() if e.position > through}
        gone = bisect_right(self.order, through)
        for position in self.order[:gone]:
            del self.entries[position.message_id]
        del self.order[:gone]

    def count_through(self, through: Position) -> int:
        """How many messages stand up to `through`, inclusive."""
        return bisect_right(self.order, through)

    def skip_after(self, through: Position) -> int:
        """The byte before which no message begins that stands behind `through`."""
        left = self.order[bisect_right(self.order, through) :]
        return min((self.entries[p.message_id].start for p in left), default=self.end)

    def everything(self) -> Iterator[Entry]:
        """Every message, in order."""
        return (self.entries[position.message_id] for position in self.order)

    # -- reading by the index ----------------------------------------------------------------

    def walk(self, query: MessageQuery) -> Iterator[Entry]:
        """The messages of the query's range, in its direction; `where` and `limit` are not ours."""
        order = self.order
        low, high = 0, len(order)
        if query.created_from is not None:
            low = bisect_left(order, Position(query.created_from, ""))
        if query.created_to is not None:
            high = bisect_left(order, Position(query.created_to + 1, ""))
        if query.after is not None:
            if query.descending:
                high = min(high, bisect_left(order, query.after))
            else:
                low = max(low, bisect_right(order, query.after))
        indexes = range(high - 1, low - 1, -1) if query.descending else range(low, high)
        return (self.entries[order[i].message_id] for i in indexes)


def newest(read: Callable[[int, int], bytes], log: Log, query: MessageQuery) -> list[Row] | None:
    """The rows of a descending query with a limit, each with its line, read from the end.

    A later line decides about an earlier one, so going backwards every line is known to count or
    not when it is met. A ``message`` line is newer than all before it: what was held back
    (``insert`` and ``replace`` stand where they were written, not where they belong) and is newer
    than it can be given out.

    Args:
        read: the bytes of the file from a place, of a size.

    Returns:
        None where the index has to be asked: far from the end, or a line that does not say what it
        is.
    """
    assert query.limit is not None
    rows: list[Row] = []
    held: list[Row] = []
    decided: set[str] = set()
    gone: Position | None = None

    def give(down_to: Position | None) -> bool:
        """Give out what is held and newer than `down_to`; whether that was enough."""
        nonlocal held
        ready = [row for row in held if down_to is None or row[0].position > down_to]
        if ready:
            held = [row for row in held if down_to is not None and row[0].position <= down_to]
            rows.extend(sorted(ready, reverse=True))
        return len(rows) >= (query.limit or 0)

    for line, raw in _backwards(read, log):
        if line is None or line.kind == "broken":
            return None
        if line.kind == "delete":
            decided.update(line.change)
        elif line.kind == "truncate":
            gone = line.change[0] if gone is None else max(gone, line.change[0])
        elif line.kind != "session":
            position = Position(line.create_time, line.message_id)
            plain = line.kind == "message"
            if plain and give(position):
                break
            dead = gone is not None and position <= gone
            if line.message_id not in decided and not dead and _within(position, query):
                held.append((Entry(position, line.start, line.size), raw))
            decided.add(line.message_id)
            if plain and (dead or line.create_time < (query.created_from or 0)):
                break  # all that stands before it is older
    give(None)
    return rows[: query.limit]


def _within(position: Position, query: MessageQuery) -> bool:
    time = position.create_time
    return (
        (query.after is None or position < query.after)
        and (query.created_from is None or time >= query.created_from)
        and (query.created_to is None or time <= query.created_to)
    )


def _backwards(read: Callable[[int, int], bytes], log: Log) -> Iterator[tuple[Line | None, bytes]]:
    """The file's lines from its end to `skip`, each as it stands; None when that gets long."""
    end, rest, chunk = log.end, b"", _FIRST_CHUNK
    while end > log.skip:
        if log.end - end > _MOST_BACKWARDS:
            yield None, b""
            return
        start = max(log.skip, end - chunk)
        data = read(start, end - start) + rest
        cut = 0 if start == log.skip else data.find(b"\n") + 1
        rest = data[:cut]
        for line in reversed(list(read_lines(data[cut:], start + cut))):
            at = line.start - start
            yield line, data[at : at + line.size]
        end, chunk = start, chunk * 2
