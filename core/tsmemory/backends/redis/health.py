"""What of a server's set-up and state puts conversations at risk.

Asked together with a client's first exchange, so without a round trip of its own, and reported once
as warnings; `tsmemory doctor` shows it too. What a user may not ask is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tsmemory.backends.redis.calls import Call
from tsmemory.engine.records import Finding

__all__ = ["findings", "questions"]

_SETTINGS = ("save", "min-replicas-to-write")
_MAX_SILENCE = 10
"""Seconds without a word from a replica or a master: ``min-replicas-max-lag`` of a new server."""
_FULL = 0.9  # of maxmemory


def questions(key: str | bytes, node: Any = None) -> list[Call]:
    """What to ask of a node; None: the one that has the key."""
    commands = [("INFO",), *(("CONFIG", "GET", name) for name in _SETTINGS)]
    return [Call(None, [key], command, node) for command in commands]


def findings(replies: Sequence[Any]) -> list[Finding]:
    """What the replies to `questions` say."""
    info = _info(replies[0])
    save, replicas = (_setting(reply) for reply in replies[1:])
    return [
        *_memory(info),
        *_persistence(info, save),
        *(_master(info, replicas) if info.get("role") != "slave" else _replica(info)),
    ]


def _memory(info: Mapping[str, str]) -> Iterator[Finding]:
    policy = info.get("maxmemory_policy")
    if policy is not None:
        advice = "" if policy == "noeviction" else ": the server may drop parts of sessions"
        yield Finding("eviction", not advice, f"maxmemory-policy is {policy}{advice}")
    limit, used = _number(info, "maxmemory"), _number(info, "used_memory")
    if limit:
        full = used > _FULL * limit
        advice = ": writes will soon fail; set a time to live, or raise maxmemory" if full else ""
        yield Finding("memory", not full, f"{used / limit:.0%} of maxmemory{advice}")


def _persistence(info: Mapping[str, str], save: str | None) -> Iterator[Finding]:
    log = info.get("aof_enabled")
    if log is None or (log != "1" and save is None):
        return
    if log != "1" and not save:
        yield Finding("persistence", False, "nothing is on disk: a restart loses every session")
        return
    # Without save points a snapshot is made for a replica or a backup: it may fail, and nothing is
    # lost.
    in_use = {"aof_last_write_status": log == "1", "rdb_last_bgsave_status": bool(save)}
    failed = [name for name, used in in_use.items() if used and info.get(name, "ok") != "ok"]
    if failed:
        what = f"{failed[0]} is {info[failed[0]]}: the disk gets nothing new, or writes are refused"
        yield Finding("persistence", False, f"{what}; see the server's log")
    else:
        what = "an append-only file" if log == "1" else "snapshots: a crash loses what is newer"
        yield Finding("persistence", True, what)


def _master(info: Mapping[str, str], minimum: str | None) -> Iterator[Finding]:
    """Replication as the master sees it; nothing where there are no replicas."""
    # One whose address the server cannot tell is counted, but has no line.
    lines = (info.get(f"slave{i}") for i in range(_number(info, "connected_slaves")))
    replicas = [_fields(line) for line in lines if line is not None]
    if not replicas:
        return
    if minimum is not None:
        waits = minimum not in ("", "0")
        advice = "" if waits else ": a master cut off from them takes writes that are lost"
        yield Finding("replicas", waits, f"min-replicas-to-write is {minimum}{advice}")
    states = []
    for replica in replicas:
        # A replica further behind than the backlog is copied anew once its link breaks.
        behind = max(0, _number(info, "master_repl_offset") - _number(replica, "offset"))
        silence = _number(replica, "lag")
        sound = (
            replica.get("state") == "online"
            and silence <= _MAX_SILENCE
            and behind <= max(1, _number(info, "repl_backlog_size"))
        )
        states.append(
            (
                sound,
                f"{replica.get('ip')}:{replica.get('port')} {replica.get('state')}, "
                f"{behind:,} bytes behind, heard {silence} s ago",
            )
        )
    well = all(sound for sound, _ in states)
    advice = "" if well else ": a failover loses what it has not got; see its load and network"
    yield Finding("replica_lag", well, ", ".join(state for _, state in states) + advice)


def _replica(info: Mapping[str, str]) -> Iterator[Finding]:
    """Replication as a replica sees it."""
    master = f"{info.get('master_host')}:{info.get('master_port')}"
    yield Finding("writable", False, f"no: a replica; connect to its master, {master}")
    if info.get("master_link_status") != "up":
        down = _number(info, "master_link_down_since_seconds")
        yield Finding("replica_lag", False, f"the link to {master} has been down for {down} s")
        return
    silence = _number(info, "master_last_io_seconds_ago")
    what = f"the link to {master} is up, heard {silence} s ago"
    yield Finding("replica_lag", silence <= _MAX_SILENCE, what)


def _info(reply: Any) -> dict[str, str]:
    if not isinstance(reply, bytes):
        return {}
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _fields(text: str) -> dict[str, str]:
    """``ip=127.0.0.1,port=6380,state=online,offset=14,lag=0``."""
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def _number(values: Mapping[str, str], name: str) -> int:
    text = values.get(name, "")
    return int(text) if text.isdecimal() else 0


def _setting(reply: Any) -> str | None:
    """A parameter's value, as RESP2 (a list) or RESP3 (a map) has it; None where not told."""
    if isinstance(reply, dict):
        reply = [part for pair in reply.items() for part in pair]
    if not isinstance(reply, list) or len(reply) != 2:
        return None
    return str(reply[1], "utf-8", "replace")
