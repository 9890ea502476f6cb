"""From a command line to an exit code: every error a line, and no secret in it."""

from __future__ import annotations

import functools
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import typer
from rich.text import Text

from tsmemory.cli.app import app
from tsmemory.cli.output import errors, warn
from tsmemory.cli.redact import scrub, secrets
from tsmemory.errors import InvalidInputError, TSMemoryError

__all__ = ["run"]

_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells tell it

_command = functools.cache(typer.main.get_command)


class _Warnings(logging.Handler):
    """The package's log as lines on stderr, as every other warning of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(scrub(record.getMessage(), secrets(sys.argv[1:])))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code.

    Errors become one line on stderr, without anything that could be a secret.
    ``TSMEMORY_DEBUG=1`` adds the traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a terminal in a small encoding still gets every line
            reconfigure(errors="backslashreplace")
    logger = logging.getLogger("tsmemory")
    if not logger.handlers:
        logger.addHandler(_Warnings(logging.WARNING))
    try:
        code = _command(app).main(given, prog_name="tsmemory", standalone_mode=False)
    except typer.Abort:
        warn("nothing was done")
        return 1
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as error:
        if isinstance(error.code, str):
            warn(scrub(error.code, secrets(given)))
            return 1
        return error.code or 0
    except Exception as error:  # noqa: BLE001  # a person reads a line, not a traceback
        if os.environ.get("TSMEMORY_DEBUG"):
            errors.print(Text(scrub(traceback.format_exc(), secrets(given))), soft_wrap=True)
        line, code = _explained(error)
        warn(scrub(line, secrets(given)))
        return code
    if code == _INTERRUPTED:
        warn("interrupted; what was written stays, and running it again goes on")
    return code if isinstance(code, int) else 0


def _explained(error: Exception) -> tuple[str, int]:
    """The line for an error, and the exit code."""
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        hint = f' (see "{context.command_path} --help")' if context is not None else ""
        return f"{error.format_message().rstrip('.')}{hint}", error.exit_code
    if isinstance(error, InvalidInputError):
        return str(error), 2
    if isinstance(error, (TSMemoryError, OSError)):
        return str(error), 1
    return f"unexpected {type(error).__name__}: {error} (TSMEMORY_DEBUG=1 shows where)", 1
