"""The parent's side of `benchmarks.worker`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

__all__ = ["ContenderError", "Process"]

_PATIENCE = 60.0  # seconds for a reply, over what was asked for
_ENDING = 10.0  # seconds for a process to close what it holds


class ContenderError(Exception):
    """A contender failed: its own error, or the end of its process."""


class Process:
    """A contender's process. It starts at once; the first `wait` gives what it offers."""

    def __init__(self, engine: str, name: str, root: Path, url: str = "") -> None:
        self.started = time.perf_counter()
        self._connection, theirs = Pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
        root.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "benchmarks.worker", str(theirs.fileno()), engine, name,
                str(root), url,
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )  # fmt: skip
        theirs.close()

    @property
    def lives(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def ask(self, method: str, *values: Any) -> None:
        """Begin a method of `benchmarks.worker.Worker`."""
        try:
            self._connection.send((method, *values))
        except OSError as error:
            raise ContenderError(self._last_words()) from error

    def wait(self, seconds: float = 0) -> Any:
        """Its reply.

        Args:
            seconds: that it is expected to take.

        Raises:
            ContenderError: it failed, ended, or took far too long; then it is ended.
        """
        try:
            if not self._connection.poll(seconds + _PATIENCE):
                self._process.kill()
                raise ContenderError(f"no answer in {seconds + _PATIENCE:.0f} s")
            well, reply = self._connection.recv()
        except (EOFError, OSError) as error:
            raise ContenderError(self._last_words()) from error
        if not well:
            raise ContenderError(reply)
        return reply

    def call(self, method: str, *values: Any, seconds: float = 0) -> Any:
        """Both."""
        self.ask(method, *values)
        return self.wait(seconds)

    def _last_words(self) -> str:
        """The last line of what it wrote to standard error: an exception, most likely."""
        self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else f"it ended with {self._process.returncode}"

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._connection.send(None)
        try:
            self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._connection.close()
        self._log.close()
