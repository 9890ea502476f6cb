"""A server in a process of its own, so that its work does not compete with the test's."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .local import (
    DEFAULT_ACCESS_KEY_ID,
    DEFAULT_ACCESS_KEY_SECRET,
    DEFAULT_INSTANCE,
    ServerFace,
)
from .options import ServerOptions
from .server import CONTROL_KEY_HEADER

if TYPE_CHECKING:
    from typing_extensions import Self

_IMPORT_ROOT = Path(__file__).resolve().parents[4]
_STOP_SECONDS = 10


class TablestoreProcess(ServerFace):
    """A Tablestore instance in its own process, on a free loopback port; a context manager.

    It ends with this process, however that ends.

    Args:
        instance_name, access_key_id, access_key_secret, sts_token, data, options: as for
            `local.LocalTablestore`.
        port: 0 chooses a free one; a restart keeps it.
    """

    def __init__(
        self,
        *,
        instance_name: str = DEFAULT_INSTANCE,
        access_key_id: str = DEFAULT_ACCESS_KEY_ID,
        access_key_secret: str = DEFAULT_ACCESS_KEY_SECRET,
        sts_token: str | None = None,
        data: str | PathLike[str] | None = None,
        options: ServerOptions | None = None,
        port: int = 0,
    ) -> None:
        self.instance_name = instance_name
        self.access_key_id = access_key_id
        self.access_key_secret = access_key_secret
        self._sts_token = sts_token
        self._data = data
        self._options = options or ServerOptions()
        self._control_key = secrets.token_urlsafe()
        self._port = port
        self._process: subprocess.Popen[str] | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """The process's id.

        Raises:
            RuntimeError: when it does not run.
        """
        if self._process is None:
            raise RuntimeError("the local Tablestore is not running")
        return self._process.pid

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "tsmemory.testing.servers.tablestore", "--json"]
        command += ["--end-with-stdin", "--port", str(self._port), "--instance", self.instance_name]
        command += ["--access-key-id", self.access_key_id]
        if self._data is not None:
            command += ["--data", os.fspath(self._data)]
        for name, value in asdict(self._options).items():
            command += ["--" + name.replace("_", "-"), str(value)]
        return command

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: when it ends instead; what it wrote is on stderr.
        """
        if self._process is not None:
            return self
        environment = dict(os.environ)
        # The package may have been found through sys.path alone, which a child does not inherit.
        path = [str(_IMPORT_ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
        # Not on the command line, where every user of the machine could read them.
        environment["TSMEMORY_LOCAL_ACCESS_KEY_SECRET"] = self.access_key_secret
        environment["TSMEMORY_LOCAL_CONTROL_KEY"] = self._control_key
        if self._sts_token is not None:
            environment["TSMEMORY_LOCAL_STS_TOKEN"] = self._sts_token
        process = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            status = process.wait()
            self._close_pipes(process)
            raise RuntimeError(f"the local Tablestore ended with status {status}")
        self._process = process
        self.endpoint = json.loads(line)["endpoint"]
        self._port = int(self.endpoint.rpartition(":")[2])
        return self

    def stop(self) -> None:
        """End it by SIGTERM. Can be called twice."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    def restart(self) -> Self:
        """Stop it and start it again on the same port; the data stays only if it is in a file."""
        self.stop()
        return self.start()

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if process is None:
            return
        process.send_signal(by)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._close_pipes(process)

    @staticmethod
    def _close_pipes(process: subprocess.Popen[str]) -> None:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _control(self, verb: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if self._process is None:
            raise RuntimeError("the local Tablestore is not running")
        with self._lock:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                self._connection.request(
                    "POST", f"/_control/{verb}", json.dumps(dict(arguments)),
                    {CONTROL_KEY_HEADER: self._control_key},
                )  # fmt: skip
                response = self._connection.getresponse()
                result: dict[str, Any] = json.loads(response.read())
            except (OSError, http.client.HTTPException):
                self._connection.close()
                raise
        if response.status != 200:
            raise ValueError(result["error"])
        return result
