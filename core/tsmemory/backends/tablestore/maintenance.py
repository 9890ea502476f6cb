"""Setting up Tablestore, counting and verifying what is in it."""

from __future__ import annotations

from typing import Any

from tsmemory.backends.tablestore.erasing import session_range
from tsmemory.backends.tablestore.heads import BATCH_GET
from tsmemory.backends.tablestore.layout import (
    DESCRIPTION,
    HEAD_TIME,
    RESERVED,
    UPDATE_TIME,
    Layout,
)
from tsmemory.backends.tablestore.reader import Reader
from tsmemory.backends.tablestore.records import Record, read
from tsmemory.backends.tablestore.recovery import Recovery
from tsmemory.backends.tablestore.rows import decode
from tsmemory.backends.tablestore.sdk import MAX, MIN, PrimaryKey, batch_get, get_range, sdk
from tsmemory.backends.tablestore.search import SearchIndex
from tsmemory.engine.records import Key, Position
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError, UnavailableError
from tsmemory.model import Problem, Session, Stats

__all__ = ["Maintenance"]


class Maintenance:
    """`setup`, `stats` and `verify` over one layout.

    Args:
        time_to_live: seconds, of the tables that `setup` creates; None: rows stay.
    """

    def __init__(
        self, layout: Layout, reader: Reader, recovery: Recovery, time_to_live: int | None
    ) -> None:
        self.search_index = SearchIndex(layout, reader)
        self.layout = layout
        self.reader = reader
        self.recovery = recovery
        self.time_to_live = time_to_live

    # -- setup -------------------------------------------------------------------------------

    def setup(self) -> Steps[None]:
        layout = self.layout
        declared = dict(layout.session_metadata)
        yield from self._table(
            layout.session_table,
            [("user_id", "STRING"), ("session_id", "STRING")],
            [
                (UPDATE_TIME, "INTEGER"),
                (RESERVED, "STRING"),
                (DESCRIPTION, "STRING"),
                *declared.items(),
            ],
            layout.session_index,
            ["user_id", UPDATE_TIME, "session_id"],
            [RESERVED, DESCRIPTION, *declared],
        )
        first = layout.partition
        yield from self._table(
            layout.message_table,
            [(first, "STRING"), ("create_time", "INTEGER"), ("message_id", "STRING")],
            [],
            layout.message_index,
            [first, "message_id", "create_time"],
            [],
        )
        if layout.search:
            yield from self.search_index.setup()

    def _table(
        self,
        name: str,
        key: list[tuple[str, str]],
        defined: list[tuple[str, str]],
        index: str,
        index_key: list[str],
        index_columns: list[str],
    ) -> Steps[None]:
        """Create a table with its index, or what is missing of it. Whoever else does so at the
        same time: one of us succeeds, and the others see that it is there."""
        description = yield from self._described(name)
        if description is None:
            ttl = self.time_to_live
            # The service wants a table with an index and a time to live to forbid UpdateRow.
            options = sdk.TableOptions() if ttl is None else sdk.TableOptions(
                time_to_live=ttl, max_version=1, allow_update=False
            )  # fmt: skip
            arguments = (
                sdk.TableMeta(name, key, defined),
                options,
                sdk.ReservedThroughput(sdk.CapacityUnit(0, 0)),
                [_local_index(index, index_key, index_columns)],
            )
            error = yield from self._attempt(lambda client: client.create_table(*arguments))
            if error is None:
                return
            description = yield from self._described(name)
            if description is None:
                raise UnavailableError(f"the table {name!r} cannot be created") from error
        primary_key = [tuple(part[:2]) for part in description.table_meta.schema_of_primary_key]
        if primary_key != key:
            raise UnavailableError(
                f"the table {name!r} has the key {primary_key}, not {key}; it is not of this "
                "layout: choose other table names, or another layout"
            )
        self._check_options(name, description.table_options)
        if index not in _indexes(description):
            columns = {part[0] for part in description.table_meta.defined_columns or ()}
            meta = _local_index(index, index_key, [c for c in index_columns if c in columns])
            error = yield from self._attempt(
                lambda client: client.create_secondary_index(name, meta, True)
            )
            description = yield from self._described(name)
            if index not in _indexes(description):
                raise UnavailableError(f"the index {index!r} cannot be created") from error
        if self.layout.isolated and index_columns:
            self._check_index(name, index, index_columns, description)

    def _check_options(self, name: str, options: Any) -> None:
        """That the table allows what commits need."""
        ttl = getattr(options, "time_to_live", None)
        expires = ttl is not None and ttl > 0
        if self.time_to_live is None and expires:
            raise UnavailableError(
                f"the table {name!r} drops rows {ttl} s after they are written; pass time_to_live="
                f"{ttl} if that is wanted, or choose another table"
            )
        if getattr(options, "allow_update", None) is False and self.time_to_live is None:
            raise UnavailableError(
                f"the table {name!r} forbids UpdateRow (allow_update), which commits need; "
                "allow it, or choose another table"
            )

    def _check_index(self, name: str, index: str, columns: list[str], description: Any) -> None:
        """That listings find in the index what they read there."""
        for meta in description.secondary_indexes or ():
            if meta.index_name != index:
                continue
            lacking = set(columns) - set(meta.defined_column_names or ())
            if lacking:
                raise UnavailableError(
                    f"the index {index!r} of table {name!r} lacks {', '.join(sorted(lacking))}, "
                    "which listings read there; delete the index and call setup() again"
                )

    def _attempt(self, step: Any) -> Steps[Exception | None]:
        """What others may be doing too: its failure says nothing, so look afterwards."""
        try:
            yield step
        except sdk.OTSServiceError as error:
            return error  # type: ignore[no-any-return]  # the SDK is untyped
        return None

    def _described(self, name: str) -> Steps[Any]:
        try:
            return (yield lambda client: client.describe_table(name))
        except UnavailableError as error:
            if getattr(error.__cause__, "code", None) == "OTSObjectNotExist":
                return None
            raise

    # -- stats and verify -----------------------------------------------------------------------

    def stats(self) -> Steps[Stats]:
        users: set[str] = set()
        sessions = messages = expired = 0
        start: PrimaryKey | None
        start, end = session_range(None)
        while start is not None:
            rows, start = yield get_range(self.layout.session_table, start, end)
            for row in rows:
                key = Key(*row.key)
                record = read(key, row.columns, self.layout)
                if not self.reader.visible(record):
                    expired += 1
                    continue
                record = yield from self.reader.counted(key, record)
                users.add(key.user_id)
                sessions += 1
                if isinstance(record.session, Session):
                    messages += record.session.message_count
        return Stats(
            users=len(users), sessions=sessions, messages=messages, expired_sessions=expired
        )

    def verify(self) -> Steps[list[Problem]]:
        problems: list[Problem] = []
        start: PrimaryKey | None
        start, end = session_range(None)
        while start is not None:
            rows, start = yield get_range(self.layout.session_table, start, end)
            for row in rows:
                key = Key(*row.key)
                listed = read(key, row.columns, self.layout)
                problems += yield from self._verify_session(key, listed)
        if self.layout.isolated:
            problems += yield from self._orphans()
        return problems

    def _verify_session(self, key: Key, listed: Record) -> Steps[list[Problem]]:
        if isinstance(listed.session, CorruptRecordError):
            reason = listed.session.reason
            return [Problem(*key, None, reason), *(yield from self._verify_messages(key, listed))]
        if not self.layout.isolated:
            return (yield from self._verify_messages(key, listed))
        head = yield from self.reader.record(key)
        if head is None:
            return [Problem(*key, None, "is listed, but has no head")]
        if isinstance(head.session, CorruptRecordError):
            reason = head.session.reason
            return [Problem(*key, None, reason), *(yield from self._verify_messages(key, head))]
        problems = yield from self._verify_messages(key, head)
        if head.intent is None and listed.session != head.session and not head.deleting:
            problems.append(Problem(*key, None, "its listing row is not what its head says"))
        return problems

    def _verify_messages(self, key: Key, record: Record) -> Steps[list[Problem]]:
        problems: list[Problem] = []
        present: set[Position] = set()
        start: PrimaryKey | None
        start, end = self.layout.through(key, None)
        while start is not None:
            rows, start = yield get_range(self.layout.message_table, start, end)
            for row in rows:
                message = decode(row, key, self.layout)
                if isinstance(message, CorruptRecordError):
                    problems.append(Problem(*key, message.message_id, message.reason))
                if message is not None:
                    present.add(Position(*row.key[1:]))
        session = record.session
        if not isinstance(session, Session) or not self.layout.isolated or record.deleting:
            return problems
        count = len(present)
        arriving = set(record.intent.inserted()) - present if record.intent is not None else set()
        if not session.message_count - len(arriving) <= count <= session.message_count:
            what = f"message_count is {session.message_count}, but there are {count} messages"
            problems.append(Problem(*key, None, what))
        return problems

    def _orphans(self) -> Steps[list[Problem]]:
        """Messages and heads under a key that is not listed."""
        problems: list[Problem] = []
        partitions: dict[str, str | None] = {}
        start: PrimaryKey | None
        start, end = self.layout.all_messages(MIN, MAX)
        while start is not None:
            rows, start = yield get_range(
                self.layout.message_table, start, end, columns=[self.layout.partition]
            )
            for row in rows:
                message_id = None if row.key[1] == HEAD_TIME else row.key[2]
                partitions.setdefault(row.key[0], message_id)
                if len(partitions) > BATCH_GET:
                    last = {row.key[0]: partitions.pop(row.key[0])}
                    problems += yield from self._unlisted(partitions)
                    partitions = last
        return problems + (yield from self._unlisted(partitions))

    def _unlisted(self, partitions: dict[str, str | None]) -> Steps[list[Problem]]:
        keys: dict[Key, str | None] = {}
        problems = []
        for partition, message_id in partitions.items():
            try:
                keys[self.layout.key_of(partition)] = message_id
            except ValueError as error:
                problems.append(Problem(None, None, message_id, str(error)))
        if keys:
            table = self.layout.session_table
            row_keys = [self.layout.session_key(key) for key in keys]
            rows = (yield batch_get({table: (row_keys, ["user_id"])}))[table]
            listed = {Key(*row.key) for row in rows}
            problems += [
                Problem(*key, message_id, "belongs to no session")
                for key, message_id in keys.items()
                if key not in listed
            ]
        return problems


def _local_index(name: str, key: list[str], columns: list[str]) -> Any:
    return sdk.SecondaryIndexMeta(name, key, columns, index_type=sdk.SecondaryIndexType.LOCAL_INDEX)


def _indexes(description: Any) -> set[str]:
    return (
        {index.index_name for index in description.secondary_indexes or ()}
        if description
        else set()
    )
