"""Connections: how statements reach the server in one round trip, sync and async.

1. Nothing lasts longer than a transaction: no session setting, no session lock, no prepared
   statement. So PgBouncer in transaction mode works.
2. A connection of ours that reaches the server itself (its process id is the one that the server
   reports) may keep more: settings are made once, and statements that repeat are prepared.
3. Otherwise, settings go ahead of the statements in their transaction, in the same round trip.
4. A transaction is a program of `engine.steps` whose steps take a `Transaction`: it is rolled back
   and repeated as a whole.
5. The server ends a statement that takes too long; where the server itself is silent (a machine
   that is frozen, a network that drops packets), the client waits `_GRACE` longer, and closes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple, TypeAlias, TypeVar

import psycopg
from psycopg import pq

from tsmemory.backends.postgres.rows import escape_text
from tsmemory.engine import steps as runner
from tsmemory.engine.pool import AsyncPool, Pool
from tsmemory.engine.steps import Steps

__all__ = ["AsyncClient", "Client", "Settings", "Statement", "Transaction", "fetch", "usable"]

T = TypeVar("T")
Statement: TypeAlias = tuple[str, Any]
"""SQL, and its parameters by name."""

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"  # each statement sees what came before it
_PLANNER = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
}
"""Every statement of ours has an index in its order. Without statistics (a table that has just
been filled) the planner may prefer to read a session whole, and keep that plan; with them it may
plan a prepared statement again each time, which takes as long as to run it."""
_GRACE = 1.0  # seconds for the word that a statement was ended to arrive
_IDLE = pq.TransactionStatus.IDLE
_BUSY = (pq.TransactionStatus.ACTIVE, pq.TransactionStatus.UNKNOWN)


def fetch(*statements: Statement, user_id: str | None = None) -> Callable[[Any], Any]:
    """The step that sends the statements and gives their results."""
    return lambda client: client.fetch(*statements, user_id=user_id)


class Settings(NamedTuple):
    """What a transaction begins with."""

    timeout: float | None
    """Seconds that a statement may take, and that a transaction may be idle. None: unlimited."""
    row_security: bool
    """Whether the policy is told which user is meant."""
    prepare: bool | None
    """Whether statements are prepared; None: where that is safe."""

    @property
    def patience(self) -> float | None:
        """Seconds without a word from the server, after which the client closes (step 5)."""
        return None if self.timeout is None else self.timeout + _GRACE

    def lasting(self) -> dict[str, str]:
        """Settings that are the same for every statement."""
        if self.timeout is None:
            return _PLANNER
        limit = f"{round(self.timeout * 1000)}ms"
        limits = {"statement_timeout": limit, "idle_in_transaction_session_timeout": limit}
        return {**limits, **_PLANNER}

    def prelude(self, connection: Any, user_id: str | None) -> list[Statement]:
        """Step 3: the statement that goes ahead, where one is needed."""
        values = dict(self.lasting()) if getattr(connection, "behind_pooler", False) else {}
        if self.row_security:
            values["tsmemory.user_id"] = escape_text(user_id or "")
        if not values:
            return []
        calls = ", ".join(f"set_config('{name}', %s, true)" for name in values)
        return [(f"SELECT {calls}", list(values.values()))]

    def probe(self, connection: Any) -> Statement:
        """Step 2: NULL through a pooler; else the time-outs are set."""
        values = self.lasting()
        calls = " || ".join(f"set_config('{name}', %s, false)" for name in values)
        return (
            f"SELECT CASE WHEN pg_backend_pid() = %s THEN {calls} END",
            [connection.info.backend_pid, *values.values()],
        )

    def apply(self, connection: Any, probed: Any) -> None:
        """Take the answer to `probe`."""
        connection.behind_pooler = probed.pgresult.get_value(0, 0) is None
        prepare = not connection.behind_pooler if self.prepare is None else self.prepare
        connection.prepare_threshold = 2 if prepare else None


class _Ours:
    """A connection that this module opened."""

    behind_pooler = False
    patience: float | None = None
    """As `Settings.patience`."""

    def patient(self, exchange: Any) -> Any:
        """An exchange of psycopg's, as a generator of what it waits for (step 5)."""
        try:
            waits_for = next(exchange)
            silent_since = time.monotonic()
            while True:
                ready = yield waits_for
                if ready:
                    silent_since = time.monotonic()
                elif self.patience and time.monotonic() - silent_since > self.patience:
                    self.pgconn.finish()  # type: ignore[attr-defined]  # of psycopg's connections
                    raise psycopg.OperationalError(f"no answer for {self.patience:.3g} s")
                waits_for = exchange.send(ready)
        except StopIteration as end:
            return end.value

    def __del__(self, *_: Any) -> None:
        """An interrupt may lose one between two instructions: libpq's object then closes it (in
        the process that opened it), and there is nothing to warn of."""


class _Connection(_Ours, psycopg.Connection[Any]):
    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        return super().wait(self.patient(gen), *args, **options)


class _AsyncConnection(_Ours, psycopg.AsyncConnection[Any]):
    async def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        return await super().wait(self.patient(gen), *args, **options)


def _bare(connection: Any) -> bool:
    """Whether statements are their own transactions: not in one of the caller's."""
    return bool(connection.autocommit) and connection.info.transaction_status == _IDLE


def usable(connection: Any) -> bool:
    """Whether a connection is between transactions."""
    return not connection.closed and connection.info.transaction_status == _IDLE


def _rows(cursor: Any) -> Any:
    """The rows, or how many there are where the statement returns none."""
    # Not `description`: it makes an object per column.
    return cursor.rowcount if cursor.rownumber is None else cursor.fetchall()


async def _arows(cursor: Any) -> Any:
    return cursor.rowcount if cursor.rownumber is None else await cursor.fetchall()


class Transaction:
    """What the steps of a program work with."""

    def __init__(self, connection: Any, pipeline: Any) -> None:
        self.connection, self._pipeline = connection, pipeline

    def read(self, *statements: Statement) -> list[Any]:
        """Send the statements, and wait for their results: one round trip."""
        cursors = [self.connection.execute(*statement) for statement in statements]
        self._pipeline.sync()
        return [_rows(cursor) for cursor in cursors]

    def write(self, *statements: Statement) -> None:
        """Send the statements; they travel with what follows, at last the COMMIT."""
        for statement in statements:
            self.connection.execute(*statement)


class AsyncTransaction(Transaction):
    """Same as `Transaction`, awaited."""

    async def read(self, *statements: Statement) -> list[Any]:  # type: ignore[override]  # awaited
        cursors = [await self.connection.execute(*statement) for statement in statements]
        await self._pipeline.sync()
        return [await _arows(cursor) for cursor in cursors]

    async def write(self, *statements: Statement) -> None:  # type: ignore[override]  # awaited
        for statement in statements:
            await self.connection.execute(*statement)


class Client:
    """Statements and transactions over a lease of connections."""

    def __init__(self, lease: Callable[[], Any], settings: Settings) -> None:
        self._lease, self._settings = lease, settings
        self.close: Callable[[], Any] = lambda: None

    @classmethod
    def opened(cls, conninfo: str, settings: Settings, size: int, timeout: float) -> Client:
        """A client with a pool of its own. No I/O."""

        def connect() -> Any:
            connection = _Connection.connect(conninfo, autocommit=True, prepare_threshold=None)
            connection.patience = settings.patience
            try:
                query, values = settings.probe(connection)
                settings.apply(connection, connection.execute(query, values))  # pyright: ignore[reportArgumentType]  # `probe` builds it of our own names
            except BaseException:
                connection.close()
                raise
            return connection

        pool = Pool(connect, _Connection.close, usable, size=size, timeout=timeout)
        client = cls(pool.lease, settings)
        client.close = pool.close
        return client

    @classmethod
    def around(cls, given: Any, settings: Settings, timeout: float) -> Client:
        """A client over the caller's connection or pool."""
        if hasattr(given, "getconn"):
            return cls(given.connection, settings)

        def let_go(connection: Any) -> None:
            if connection.info.transaction_status in _BUSY:
                connection.close()

        pool = Pool(lambda: given, let_go, usable, size=1, timeout=timeout)
        return cls(pool.lease, settings)

    def fetch(self, *statements: Statement, user_id: str | None = None) -> list[Any]:
        """The results of the statements, in one round trip and one transaction."""
        with self._lease() as connection:
            prelude = self._settings.prelude(connection, user_id)
            bare = _bare(connection)
            if bare and not prelude and len(statements) == 1:
                return [_rows(connection.execute(*statements[0]))]
            # What is sent before a pipeline's end is one transaction.
            own = nullcontext() if bare else connection.transaction()
            with connection.pipeline(), own:
                sent = [connection.execute(*s) for s in (*prelude, *statements)]
            return [_rows(cursor) for cursor in sent[len(prelude) :]]

    def attempt(self, *statements: Statement, user_id: str | None = None) -> list[Any] | None:
        """Same as `fetch`; None where another transaction has just inserted the same row."""
        try:
            return self.fetch(*statements, user_id=user_id)
        except psycopg.errors.UniqueViolation:
            return None

    def transaction(self, program: Callable[[], Steps[T]], user_id: str | None = None) -> T:
        """Run a program (step 4) to its end, and commit."""
        with self._lease() as connection:
            bare = _bare(connection)
            try:
                with connection.pipeline() as pipeline:
                    if not bare:
                        with connection.transaction():
                            return self._run(program, Transaction(connection, pipeline), user_id)
                    transaction = Transaction(connection, pipeline)
                    transaction.write((_BEGIN, None))
                    outcome = self._run(program, transaction, user_id)
                    transaction.write(("COMMIT", None))
                return outcome
            except Exception:
                if bare and not connection.closed:
                    connection.rollback()
                raise

    def _run(self, program: Callable[[], Steps[T]], transaction: Any, user_id: str | None) -> T:
        transaction.write(*self._settings.prelude(transaction.connection, user_id))
        return runner.run(program(), lambda step: step(transaction))


class AsyncClient:
    """Same as `Client`, awaited."""

    def __init__(self, lease: Callable[[], Any], settings: Settings) -> None:
        self._lease, self._settings = lease, settings
        self.close: Callable[[], Any] = _nothing

    @classmethod
    def opened(cls, conninfo: str, settings: Settings, size: int, timeout: float) -> AsyncClient:
        """Same as `Client.opened`."""

        async def connect() -> Any:
            connection = await _AsyncConnection.connect(
                conninfo, autocommit=True, prepare_threshold=None
            )
            connection.patience = settings.patience
            try:
                query, values = settings.probe(connection)
                settings.apply(connection, await connection.execute(query, values))  # pyright: ignore[reportArgumentType]  # `probe` builds it of our own names
            except BaseException:
                await connection.close()
                raise
            return connection

        pool = AsyncPool(connect, _AsyncConnection.close, usable, size=size, timeout=timeout)
        client = cls(pool.lease, settings)
        client.close = pool.close
        return client

    @classmethod
    def around(cls, given: Any, settings: Settings, timeout: float) -> AsyncClient:
        """Same as `Client.around`."""
        if hasattr(given, "getconn"):
            return cls(given.connection, settings)

        async def same() -> Any:
            return given

        async def let_go(connection: Any) -> None:
            if connection.info.transaction_status in _BUSY:
                await connection.close()

        return cls(AsyncPool(same, let_go, usable, size=1, timeout=timeout).lease, settings)

    async def fetch(self, *statements: Statement, user_id: str | None = None) -> list[Any]:
        """Same as `Client.fetch`."""
        async with self._lease() as connection:
            prelude = self._settings.prelude(connection, user_id)
            bare = _bare(connection)
            if bare and not prelude and len(statements) == 1:
                return [await _arows(await connection.execute(*statements[0]))]
            own = nullcontext() if bare else connection.transaction()
            async with connection.pipeline(), own:
                sent = [await connection.execute(*s) for s in (*prelude, *statements)]
            return [await _arows(cursor) for cursor in sent[len(prelude) :]]

    async def attempt(self, *statements: Statement, user_id: str | None = None) -> Any:
        """Same as `Client.attempt`."""
        try:
            return await self.fetch(*statements, user_id=user_id)
        except psycopg.errors.UniqueViolation:
            return None

    async def transaction(self, program: Callable[[], Steps[T]], user_id: str | None = None) -> T:
        """Same as `Client.transaction`."""
        async with self._lease() as connection:
            bare = _bare(connection)
            try:
                async with connection.pipeline() as pipeline:
                    transaction = AsyncTransaction(connection, pipeline)
                    if not bare:
                        async with connection.transaction():
                            return await self._run(program, transaction, user_id)
                    await transaction.write((_BEGIN, None))
                    outcome = await self._run(program, transaction, user_id)
                    await transaction.write(("COMMIT", None))
                return outcome
            except Exception:
                if bare and not connection.closed:
                    await connection.rollback()
                raise

    async def _run(self, program: Callable[[], Steps[T]], transaction: Any, user_id: Any) -> T:
        await transaction.write(*self._settings.prelude(transaction.connection, user_id))
        return await runner.arun(program(), lambda step: step(transaction))


async def _nothing() -> None:
    return None
