"""Findings that `check_server` of several backends reports in the same words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence

from tsmemory.engine.records import Finding

__all__ = ["expired_sessions", "free_space", "is_open_to_others", "merge_nodes", "not_counted"]

_FREE_BYTES = 500 << 20
_OTHERS = 0o007  # a group may be shared on purpose


def is_open_to_others(status: os.stat_result) -> bool:
    """Whether every user of the machine may read, write or enter it, as far as its mode says."""
    return os.name != "nt" and bool(status.st_mode & _OTHERS)


def expired_sessions(count: int, *, at_least: bool = False) -> Finding:
    """How many expired sessions still take space; `at_least`: there may be more."""
    more = "or more" if at_least else ""
    advice = '; "tsmemory purge" removes them' if count else ""
    return Finding("expired_sessions", True, " ".join(filter(None, (f"{count:,}", more))) + advice)


def not_counted(reason: str) -> Finding:
    """Why expired sessions are not counted here."""
    return Finding("expired_sessions", True, f"not counted: {reason}")


def free_space(path: str | os.PathLike[str]) -> Finding:
    """Free space on the file system of `path`, which exists."""
    free = shutil.disk_usage(path).free
    advice = "" if free >= _FREE_BYTES else ": nearly full; writes will soon fail"
    return Finding("free_space", free >= _FREE_BYTES, f"{free / 1e9:,.1f} GB{advice}")


def merge_nodes(findings_by_node: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """One finding per name out of those of several servers: what all report, or who reports what.

    Args:
        found: findings by the server's name.
    """
    by_name: dict[str, dict[str, Finding]] = {}
    for node, findings in findings_by_node.items():
        for finding in findings:
            by_name.setdefault(finding.name, {})[node] = finding
    merged = []
    for name, of_nodes in by_name.items():
        values = {finding.value for finding in of_nodes.values()}
        same = len(values) == 1 and len(of_nodes) == len(findings_by_node)
        said = "; ".join(f"{node}: {finding.value}" for node, finding in of_nodes.items())
        ok = all(finding.ok for finding in of_nodes.values())
        merged.append(Finding(name, ok, values.pop() if same else said))
    return merged
