"""The demo: one conversation, two processes, two frameworks. ``python -m tsmemory.demo``."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from tsmemory.errors import MissingDependencyError

__all__ = ["check_installed", "main"]


def check_installed() -> None:
    """Check that what the demo shows, and shows it with, is installed.

    Raises:
        MissingDependencyError: it is not; names the extra.
    """
    for module in ("rich", "langchain_core", "llama_index"):
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(f'the demo needs {module}; pip install "tsmemory[demo]"')


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line.

    Args:
        arguments: without the program's name; the process's own by default.

    Raises:
        SystemExit: with a line that says what was wrong.
    """
    try:
        check_installed()
    except MissingDependencyError as error:
        raise SystemExit(f"demo: {error}") from error
    from tsmemory.demo._program import main as run

    run(arguments)
