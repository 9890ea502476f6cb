"""Running a script in a process of its own: interrupts, forks and limits must not hit pytest's."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

SOAK = bool(os.environ.get("TSMEMORY_SOAK"))
ROOT = Path(__file__).parents[3]


def run_script(script: str, *arguments: object) -> str:
    """What it prints, without the last newline; its arguments are ``sys.argv[1:]``."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
