"""Setting up Tablestore, and looking after what is in it."""

from __future__ import annotations

from typing import Any

from tsmemory.backends.tablestore.erasing import session_range
from tsmemory.backends.tablestore.layout import RESERVED, UPDATE_TIME, Layout
from tsmemory.backends.tablestore.reader import BATCH_GET, Reader
from tsmemory.backends.tablestore.records import Record, read
from tsmemory.backends.tablestore.recovery import Settler
from tsmemory.backends.tablestore.rows import decode
from tsmemory.backends.tablestore.sdk import MAX, MIN, PrimaryKey, batch_get, get_range, sdk
from tsmemory.engine.records import Key
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError, UnavailableError
from tsmemory.model import Problem, Session, Stats

__all__ = ["Upkeep"]


class Upkeep:
    """`setup`, `stats` and `verify` over one layout.

    Args:
        time_to_live: seconds, of the tables that `setup` creates; None: rows stay.
    """

    def __init__(
        self, layout: Layout, reader: Reader, settler: Settler, time_to_live: int | None
    ) -> None:
        self.layout = layout
        self.reader = reader
        self.settler = settler
        self.time_to_live = time_to_live

    # -- setup -------------------------------------------------------------------------------

    def setup(self) -> Steps[None]:
        layout = self.layout
        declared = dict(layout.session_metadata)
        yield from self._table(
            layout.session_table,
            [("user_id", "STRING"), ("session_id", "STRING")],
            [(UPDATE_TIME, "INTEGER"), (RESERVED, "STRING"), *declared.items()],
            layout.session_index,
            ["user_id", UPDATE_TIME, "session_id"],
            [RESERVED, *declared],
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
        found = yield from self._described(name)
        if found is None:
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
            yield from self._attempt(lambda client: client.create_table(*arguments))
            found = yield from self._described(name)
        if found is None:
            raise UnavailableError(f"the table {name!r} is not there after it was created")
        there = [tuple(part[:2]) for part in found.table_meta.schema_of_primary_key]
        if there != key:
            raise UnavailableError(
                f"the table {name!r} has the key {there}, not {key}; it is not of this layout: "
                "choose other table names, or another layout"
            )
        if index not in _indexes(found):
            columns = {part[0] for part in found.table_meta.defined_columns or ()}
            meta = _local_index(index, index_key, [c for c in index_columns if c in columns])
            error = yield from self._attempt(
                lambda client: client.create_secondary_index(name, meta, True)
            )
            if index not in _indexes((yield from self._described(name))):
                raise UnavailableError(f"the index {index!r} cannot be created") from error

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

    # -- looking after -----------------------------------------------------------------------

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
                record = read(key, row.columns, self.layout)
                if isinstance(record.session, CorruptRecordError):
                    problems.append(Problem(*key, None, record.session.reason))
                problems += yield from self._verify_messages(key, record)
        if self.layout.isolated:
            problems += yield from self._orphans()
        return problems

    def _verify_messages(self, key: Key, record: Record) -> Steps[list[Problem]]:
        problems: list[Problem] = []
        count = 0
        start: PrimaryKey | None
        start, end = self.layout.through(key, None)
        while start is not None:
            rows, start = yield get_range(self.layout.message_table, start, end)
            for row in rows:
                message = decode(row, key, self.layout)
                if isinstance(message, CorruptRecordError):
                    problems.append(Problem(*key, message.message_id, message.reason))
                count += message is not None
        session = record.session
        on_its_way = len(record.intent.inserted()) if record.intent is not None else 0
        if not isinstance(session, Session) or not self.layout.isolated or record.deleting:
            return problems
        if not session.message_count - on_its_way <= count <= session.message_count:
            what = f"message_count is {session.message_count}, but there are {count} messages"
            problems.append(Problem(*key, None, what))
        return problems

    def _orphans(self) -> Steps[list[Problem]]:
        """Messages under a key that has no session."""
        problems: list[Problem] = []
        held: dict[str, str] = {}
        start: PrimaryKey | None
        start, end = self.layout.all_messages(MIN, MAX)
        while start is not None:
            rows, start = yield get_range(
                self.layout.message_table, start, end, columns=[self.layout.partition]
            )
            for row in rows:
                held.setdefault(row.key[0], row.key[2])
                if len(held) > BATCH_GET:
                    last = {row.key[0]: held.pop(row.key[0])}
                    problems += yield from self._without_session(held)
                    held = last
        return problems + (yield from self._without_session(held))

    def _without_session(self, held: dict[str, str]) -> Steps[list[Problem]]:
        keys: dict[Key, str] = {}
        problems = []
        for partition, mid in held.items():
            try:
                keys[self.layout.key_of(partition)] = mid
            except ValueError as error:
                problems.append(Problem(None, None, mid, str(error)))
        if keys:
            table = self.layout.session_table
            wanted = [self.layout.session_key(key) for key in keys]
            rows = (yield batch_get({table: (wanted, ["user_id"])}))[table]
            there = {Key(*row.key) for row in rows}
            problems += [
                Problem(*key, mid, "belongs to no session")
                for key, mid in keys.items()
                if key not in there
            ]
        return problems


def _local_index(name: str, key: list[str], columns: list[str]) -> Any:
    return sdk.SecondaryIndexMeta(name, key, columns, index_type=sdk.SecondaryIndexType.LOCAL_INDEX)


def _indexes(found: Any) -> set[str]:
    return {index.index_name for index in found.secondary_indexes or ()} if found else set()
