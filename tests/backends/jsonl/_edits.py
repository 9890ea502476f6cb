"""Changes to files as an editor makes them: by no store, and not within the same instant."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["overwrite"]


def overwrite(path: Path, data: bytes) -> None:
    """Replace what a file holds, in place, a second later by the file's own clock.

    That has ticks of 1 to 10 ms before Linux 6.13: within one, a change that keeps the size looks
    like none.
    """
    changed = path.stat().st_mtime_ns
    path.write_bytes(data)
    os.utime(path, ns=(changed + 10**9, changed + 10**9))
