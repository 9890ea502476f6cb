"""A server in this process, and what it has in common with one in another."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from .auth import Credentials
from .control import ServerControl
from .engine import Engine
from .options import ServerOptions
from .server import TablestoreHTTPServer
from .service import Service

if TYPE_CHECKING:
    from typing_extensions import Self

_SDK_LOG = logging.getLogger("tablestore")

DEFAULT_INSTANCE = "local"
DEFAULT_ACCESS_KEY_ID = "local-access-key-id"
DEFAULT_ACCESS_KEY_SECRET = "local-access-key-secret"


def _sdk() -> Any:
    """The official SDK. A server itself does without."""
    level = _SDK_LOG.level
    try:
        with warnings.catch_warnings():
            # Where its native codec is not built for this Python, it warns at import, twice over.
            warnings.simplefilter("ignore", ImportWarning)
            _SDK_LOG.setLevel(logging.ERROR)
            import tablestore  # type: ignore[import-untyped]  # no stubs are published
    finally:
        _SDK_LOG.setLevel(level)
    return tablestore


class ServerFace(ServerControl):
    """Where a server is and how to reach it.

    Attributes:
        endpoint: ``http://host:port``.
        instance_name, access_key_id, access_key_secret: what clients present.
    """

    endpoint: str
    instance_name: str
    access_key_id: str
    access_key_secret: str

    def client(self, **arguments: Any) -> Any:
        """An official ``OTSClient`` of this server; the arguments go to its constructor.

        ``region="…"`` makes it sign with V4.
        """
        # The SDK makes 500 slots for connections in 6 ms, more than most tests take.
        arguments.setdefault("max_connection", 20)
        return _sdk().OTSClient(
            self.endpoint,
            self.access_key_id,
            self.access_key_secret,
            self.instance_name,
            **arguments,
        )

    def async_client(self, **arguments: Any) -> Any:
        """An official ``AsyncOTSClient`` of this server. The caller closes it."""
        return _sdk().AsyncOTSClient(
            self.endpoint,
            self.access_key_id,
            self.access_key_secret,
            self.instance_name,
            **arguments,
        )


class LocalTablestore(ServerFace):
    """A Tablestore instance served by threads of this process; a context manager.

    Args:
        instance_name, access_key_id, access_key_secret: what clients must present.
        sts_token: required of clients when set; any is accepted when None.
        data: a file that keeps the data; in memory when None.
        options: see `options.ServerOptions`.
        control_key: what a program must present to use the control endpoints over HTTP; without
            one there are none. The methods of this object need none.
        host: the address to listen on.
        port: 0 chooses a free one.

    Raises:
        OSError: when the address or the file is taken.
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
        control_key: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.instance_name = instance_name
        self.access_key_id = access_key_id
        self.access_key_secret = access_key_secret
        credentials = Credentials(instance_name, access_key_id, access_key_secret, sts_token)
        engine = Engine(options or ServerOptions(), data)
        self._service = Service(engine, credentials, control_key)
        try:
            self._server = TablestoreHTTPServer(self._service, host, port)
        except BaseException:
            engine.close()
            raise
        self.endpoint = f"http://{host}:{self._server.port}"

    def start(self) -> Self:
        """Begin to answer, in a thread of its own."""
        self._server.start()
        return self

    def stop(self) -> None:
        """End every connection and let go of the port and the file. Can be called twice."""
        self._server.stop()
        with self._service.engine.lock:
            self._service.engine.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _control(self, verb: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return self._service.control.call(verb, dict(arguments))
