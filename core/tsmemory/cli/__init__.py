"""The ``tsmemory`` command: look at a store, look after it, and move what it holds.

Exit codes: 0 all is well; 1 something is wrong with the store or its data, or was not found; 2 the
command line is wrong. What a script reads goes to stdout, everything else to stderr. See
``docs/cli.md``.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave the process.

    Args:
        arguments: without the program's name; the process's own by default.

    Raises:
        SystemExit: always, with the exit code.
    """
    # A start makes fewer objects than this, and nearly all of them stay.
    gc.set_threshold(100_000)
    try:
        from tsmemory.cli.run import run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("typer", "rich"):
            raise
        print(
            f'tsmemory: the command needs {missing}; pip install "tsmemory[cli]"', file=sys.stderr
        )
        sys.exit(1)
    code = run(arguments)
    gc.freeze()  # the process ends: nothing is looked through once more
    sys.exit(code)
