"""What of a server's set-up puts conversations at risk.

Asked together with a client's first exchange, so without a round trip of its own, and reported once
as warnings; `tsmemory doctor` shows it too. What a user may not ask is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tsmemory.backends.redis.calls import Call
from tsmemory.engine.records import Finding

__all__ = ["findings", "questions"]

_SETTINGS = ("save", "min-replicas-to-write")


def questions(key: str | bytes) -> list[Call]:
    """What to ask of the node that has a key."""
    commands = [("INFO",), *(("CONFIG", "GET", name) for name in _SETTINGS)]
    return [Call(None, [key], command) for command in commands]


def findings(replies: Sequence[Any]) -> list[Finding]:
    """What the replies to `questions` say."""
    info = _info(replies[0])
    save, replicas = (_setting(reply) for reply in replies[1:])
    results = []
    policy = info.get("maxmemory_policy")
    if policy is not None:
        results.append(
            Finding(
                "eviction",
                policy == "noeviction",
                f"maxmemory-policy is {policy}"
                + ("" if policy == "noeviction" else ": the server may drop parts of sessions"),
            )
        )
    log = info.get("aof_enabled")
    if log is not None and (log == "1" or save is not None):
        on_disk = log == "1" or bool(save)
        what = "nothing is on disk: a restart loses every session"
        if on_disk:
            what = "an append-only file" if log == "1" else "snapshots: a crash loses what is newer"
        results.append(Finding("persistence", on_disk, what))
    if int(info.get("connected_slaves", "0")) > 0 and replicas is not None:
        waits = int(replicas or 0) > 0
        results.append(
            Finding(
                "replicas",
                waits,
                f"min-replicas-to-write is {replicas}"
                + ("" if waits else ": a master cut off from them takes writes that are lost"),
            )
        )
    return results


def _info(reply: Any) -> dict[str, str]:
    if not isinstance(reply, bytes):
        return {}
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _setting(reply: Any) -> str | None:
    """A parameter's value, as RESP2 (a list) or RESP3 (a map) has it; None where not told."""
    if isinstance(reply, dict):
        reply = [part for pair in reply.items() for part in pair]
    if not isinstance(reply, list) or len(reply) != 2:
        return None
    return str(reply[1], "utf-8", "replace")
