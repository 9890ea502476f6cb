"""Processes of their own, forked from one that has imported the frameworks and nothing more."""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tests._forks import FORKS


def exit_code(target: Callable[..., None], *arguments: Any) -> int | None:
    """How a process ends that calls `target`; None if it does not."""
    process = FORKS.Process(target=target, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


def printed(program: str, *arguments: str) -> str:
    """What a program prints, which has its `arguments` under that name, and warns of nothing."""
    receiver, sender = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_run, args=(sender, program, arguments))
    process.start()
    sender.close()  # so that the process's end is the pipe's
    output, errors = receiver.recv()
    process.join(120)
    assert (errors, process.exitcode) == ("", 0)
    return str(output)


def _run(sender: Connection, program: str, arguments: tuple[str, ...]) -> None:
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            exec(program, {"arguments": arguments})
        except Exception:  # noqa: BLE001  # the caller shows it
            traceback.print_exc()
    sender.send((output.getvalue(), errors.getvalue()))
