"""What of a server's set-up and state puts conversations at risk: for `tsmemory doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tsmemory.backends.postgres.client import fetch
from tsmemory.backends.postgres.layout import EXPIRED, Layout
from tsmemory.engine.findings import expired_sessions
from tsmemory.engine.records import Finding
from tsmemory.engine.steps import Steps
from tsmemory.errors import BackendError

__all__ = ["check_server"]

_MAX_DELAY = 10.0  # seconds of replay that a standby may be behind
_MAX_BEHIND = 64 << 20  # bytes of WAL: four segments
_MAX_KEPT = 1 << 30  # bytes of WAL that a slot keeps for a standby that is away
_SETTINGS = ("server_version", "fsync", "synchronous_commit", "full_page_writes")

_SERVER = (
    "SELECT pg_is_in_recovery(), "
    + ", ".join(f"current_setting('{name}')" for name in _SETTINGS)
    + f", (SELECT count(*) FROM {{sessions}} s WHERE {EXPIRED})"
)
_WAL = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END"
# A role that is not in pg_monitor sees that there are standbys, and NULL for all about them.
_STANDBYS = (
    "SELECT coalesce(nullif(application_name, ''), host(client_addr), 'a standby'), state, "
    f"sync_state, pg_wal_lsn_diff({_WAL}, replay_lsn)::bigint, "
    "extract(epoch FROM replay_lag)::float FROM pg_stat_replication "
    "WHERE state IS DISTINCT FROM 'backup' ORDER BY 1, pid"
)
_SLOTS = (
    f"SELECT slot_name, pg_wal_lsn_diff({_WAL}, restart_lsn)::bigint FROM pg_replication_slots "
    "WHERE NOT active AND restart_lsn IS NOT NULL ORDER BY 1"
)
# Without new transactions the age of the last one says nothing: so it counts only where received
# WAL waits to be replayed.
_STANDBY = (
    "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver), pg_is_wal_replay_paused(), "
    "coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)::bigint, "
    "coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 0)::float"
)


class _Standby(NamedTuple):
    """A row of ``pg_stat_replication``."""

    name: str
    state: str | None
    sync_state: str | None
    behind: int | None
    delay: float | None

    @property
    def sound(self) -> bool:
        return (
            self.state == "streaming"
            and (self.behind or 0) <= _MAX_BEHIND
            and (self.delay or 0) <= _MAX_DELAY
        )

    def __str__(self) -> str:
        delay = "" if self.delay is None else f", {self.delay:.1f} s"
        return f"{self.name} {self.state}, {self.sync_state}, {self.behind or 0:,} bytes{delay}"


def check_server(layout: Layout) -> Steps[list[Finding]]:
    """Version, durability, replication and expired sessions."""
    (((standby, *settings, expired),),) = yield fetch((layout.fill(_SERVER), None))
    findings = [*_settings(standby, *settings)]
    try:
        findings += yield from _replication(standby)
    except BackendError as error:
        # A service may keep these views to itself, or have no such functions.
        findings.append(Finding("replica_lag", True, f"not told: {error}"))
    return [*findings, expired_sessions(expired)]


def _replication(standby: bool) -> Steps[list[Finding]]:
    findings = []
    if standby:
        (((linked, paused, bytes_waiting, age),),) = yield fetch((_STANDBY, None))
        findings.append(_own_delay(linked, paused, bytes_waiting, age))
    standbys, slots = yield fetch((_STANDBYS, None), (_SLOTS, None))
    findings += _of_standbys([_Standby(*row) for row in standbys])
    findings += _of_slots(slots)
    return findings


def _settings(standby: bool, version: str, fsync: str, commit: str, pages: str) -> list[Finding]:
    risk = "a crash of the machine may lose or damage what was acknowledged"
    late = ": a crash may lose the last commits" if commit == "off" else ""
    where = "no: a standby; connect to its primary (target_session_attrs=read-write)"
    return [
        Finding("server_version", True, version),
        Finding("writable", not standby, where if standby else "yes"),
        Finding("fsync", fsync == "on", fsync if fsync == "on" else f"{fsync}: {risk}"),
        Finding("full_page_writes", pages == "on", pages if pages == "on" else f"off: {risk}"),
        Finding("synchronous_commit", commit != "off", f"{commit}{late}"),
    ]


def _own_delay(linked: bool, paused: bool, bytes_waiting: int, age: float) -> Finding:
    """Of the standby that answers."""
    if not linked:
        what = f"no WAL receiver: cut off from its primary; the last commit is {age:.0f} s old"
        return Finding("replica_lag", False, what)
    delay = age if bytes_waiting else 0.0
    sound = not paused and delay <= _MAX_DELAY and bytes_waiting <= _MAX_BEHIND
    what = f"{bytes_waiting:,} bytes wait to be replayed, {delay:.1f} s"
    advice = ": replay is paused; pg_wal_replay_resume() ends that" if paused else ""
    return Finding("replica_lag", sound, what + advice)


def _of_standbys(standbys: list[_Standby]) -> Iterator[Finding]:
    if not standbys:
        return
    if all(standby.state is None for standby in standbys):
        what = f"hidden from this role ({len(standbys)} standby): GRANT pg_monitor shows it"
        yield Finding("replica_lag", True, what)
        return
    well = all(standby.sound for standby in standbys)
    advice = "" if well else ": a failover loses what it has not got; see its load and network"
    yield Finding("replica_lag", well, "; ".join(map(str, standbys)) + advice)


def _of_slots(slots: list[Any]) -> Iterator[Finding]:
    """WAL that is kept for standbys that are away fills the disk."""
    if slots:
        text = ", ".join(f"{name} keeps {wal_bytes:,} bytes of WAL" for name, wal_bytes in slots)
        well = max(wal_bytes for _, wal_bytes in slots) <= _MAX_KEPT
        advice = "" if well else ": it fills the disk; bring the standby back, or drop the slot"
        yield Finding("unused_slots", well, text + advice)
