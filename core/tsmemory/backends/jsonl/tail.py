"""Reading a session's newest messages from the end of its file, without an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tsmemory.backends.jsonl.lines import Line, read_lines
from tsmemory.backends.jsonl.session_index import Entry, Row, SessionIndex
from tsmemory.engine.records import MessageQuery, Position

__all__ = ["read_tail"]

_FIRST_CHUNK = 16 * 1024  # bytes: some 30 messages of a usual length
_MAX_BACKWARDS = 4 * 1024 * 1024  # bytes read from the end before the index is built instead


def read_tail(
    read: Callable[[int, int], bytes], index: SessionIndex, query: MessageQuery
) -> list[Row] | None:
    """The rows of a descending query with a limit, each with its line, read from the end.

    A later line overrides an earlier one, so going backwards every line is known to count or not
    when it is met. ``insert`` and ``replace`` lines are where they were written, not where they
    belong, so they wait in `pending`. A ``message`` line is newer than everything before it: what
    is pending and newer than it can be returned.

    Args:
        read: the bytes of the file from a position, of a size.

    Returns:
        None where the full index is needed: far from the end, or a line that cannot be parsed.
    """
    assert query.limit is not None
    if index.unterminated:
        return None
    rows: list[Row] = []
    pending: list[Row] = []
    decided: set[str] = set()
    deleted_through: Position | None = None

    def emit(down_to: Position | None) -> bool:
        """Move to `rows` what is pending and newer than `down_to`; whether that was enough."""
        nonlocal pending
        ready = [row for row in pending if down_to is None or row[0].position > down_to]
        if ready:
            pending = [r for r in pending if down_to is not None and r[0].position <= down_to]
            rows.extend(sorted(ready, reverse=True))
        return len(rows) >= (query.limit or 0)

    for line, raw in _backwards(read, index):
        if line is None or line.kind == "broken":
            return None
        if line.kind == "delete":
            decided.update(line.change)
        elif line.kind == "truncate":
            through = line.change[0]
            deleted_through = max(deleted_through or through, through)
        elif line.kind != "session":
            position = Position(line.create_time, line.message_id)
            plain = line.kind == "message"
            if plain and emit(position):
                break
            deleted = deleted_through is not None and position <= deleted_through
            if line.message_id not in decided and not deleted and _within(position, query):
                pending.append((Entry(position, line.start, line.size), raw))
            decided.add(line.message_id)
            if plain and (deleted or line.create_time < (query.created_from or 0)):
                break  # everything before it is older
    emit(None)
    return rows[: query.limit]


def _within(position: Position, query: MessageQuery) -> bool:
    time = position.create_time
    return (
        (query.after is None or position < query.after)
        and (query.created_from is None or time >= query.created_from)
        and (query.created_to is None or time <= query.created_to)
    )


def _backwards(
    read: Callable[[int, int], bytes], index: SessionIndex
) -> Iterator[tuple[Line | None, bytes]]:
    """The file's lines from its end to `skip`, each with its bytes; None when that gets long."""
    end, partial, chunk = index.end, b"", _FIRST_CHUNK
    while end > index.skip:
        if index.end - end > _MAX_BACKWARDS:
            yield None, b""
            return
        start = max(index.skip, end - chunk)
        content = read(start, end - start) + partial
        cut = 0 if start == index.skip else content.find(b"\n") + 1
        partial = content[:cut]
        for line in reversed(list(read_lines(content[cut:], start + cut))):
            at = line.start - start
            yield line, content[at : at + line.size]
        end, chunk = start, chunk * 2
