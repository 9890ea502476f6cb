"""The Lua that runs in the server: one script an operation, each atomic there.

The scripts are the files in ``lua/``; each is put together with the shared parts it needs. They use
core commands of Redis 6.2 only, and do no work in proportion to a session's length except where
rows are asked for. No script runs longer than a slice: see `tsmemory.backends.redis.bulk`.
"""

from __future__ import annotations

import hashlib
from importlib import resources

from tsmemory.backends.redis.calls import Script

__all__ = [
    "APPEND", "APPLY", "ERASE", "FINISH", "HEAD", "LEASE", "LIST", "LOAD", "LOOK", "PLACE", "READ",
    "REPAIR", "SCAN", "STAGE", "SWEEP",
]  # fmt: skip


def _script(*parts: str) -> Script:
    """A script that returns the number it was called with, then its reply (`wire`, 4)."""
    folder = resources.files("tsmemory.backends.redis") / "lua"
    body = "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
    code_lines = [line for line in map(str.strip, body.splitlines()) if line and line[:2] != "--"]
    text = "\n".join(
        ("local number = table.remove(ARGV)", "local function run()", *code_lines, "end",
         "return {number, run()}", "")
    )  # fmt: skip
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


APPEND = _script("common", "obstacle", "write", "index", "append")
APPLY = _script("common", "obstacle", "write", "rows", "index", "apply")
ERASE = _script("common", "erase")
FINISH = _script("common", "write", "index", "finish")
HEAD = _script("common", "head")
LEASE = _script("common", "lease")
LIST = _script("common", "list")
LOAD = _script("common", "obstacle", "rows", "load")
LOOK = _script("common", "rows", "look")
PLACE = _script("common", "index", "place")
READ = _script("common", "rows", "read")
REPAIR = _script("common", "write", "rows", "repair")
SCAN = _script("common", "scan")
STAGE = _script("common", "write", "rows", "stage")
SWEEP = _script("common", "index", "sweep")
