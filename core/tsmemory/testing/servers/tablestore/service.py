"""One request in, one reply out: authentication, faults, the operation, the accounts.

Nothing here knows about sockets; `server` does.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from . import limits, operations_read, operations_search, operations_table, operations_write
from ._wire import pb
from .auth import DATE_FORMAT, Credentials, content_md5, sign_reply
from .control import Control
from .engine import Engine
from .errors import ServiceError
from .faults import ArmedFault
from .usage import Usage

_LOG = logging.getLogger(__name__)

_OPERATIONS: dict[str, Callable[[Engine, bytes, Usage], bytes]] = {
    **operations_read.OPERATIONS,
    **operations_search.OPERATIONS,
    **operations_table.OPERATIONS,
    **operations_write.OPERATIONS,
}


class _DroppedError(Exception):
    """The request gets no reply; its connection is closed after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__("dropped")
        self.seconds = seconds


class _DamagedError(Exception):
    """The reply is damaged on its way.

    Args:
        content: the reply as it left.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__("damaged")
        self.content = content


@dataclass(frozen=True)
class Reply:
    """An HTTP reply; the header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Service:
    """The instance behind its HTTP interface.

    Args:
        engine: the data.
        credentials: what clients must present.
        control_key: what users of the control endpoints must present; empty: there are none.
    """

    def __init__(self, engine: Engine, credentials: Credentials, control_key: str = "") -> None:
        self.control_key = control_key
        self.engine = engine
        self.credentials = credentials
        self.control = Control(engine)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Wake the requests that a fault keeps hanging."""
        self._stopping.set()

    def handle(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply | None:
        """Answer a request.

        Args:
            path: ``/`` and the operation.
            headers: with names in lower case.

        Returns:
            None when the connection is to be closed without a reply.
        """
        operation = path.rpartition("/")[2]
        path = "/" + operation
        usage = Usage()
        key: bytes | None = None
        try:
            key = self.credentials.check(path, headers, body)
            content = self._perform(operation, body, usage)
        except _DroppedError as drop:
            self.control.account(operation, usage, "dropped", len(body), 0)
            self._stopping.wait(drop.seconds)
            return None
        except _DamagedError as damage:
            self.control.account(operation, usage, "damaged", len(body), len(damage.content))
            reply = self._reply(path, 200, damage.content, key)
            return Reply(reply.status, reply.headers, b"\xff" + damage.content[1:])
        except ServiceError as error:
            as_json = headers.get("content-type", "").startswith("application/json")
            content = _error_body(error, as_json)
            self.control.account(operation, usage, error.code, len(body), len(content))
            return self._reply(path, error.status, content, key)
        self.control.account(operation, usage, None, len(body), len(content))
        return self._reply(path, 200, content, key)

    def refuse(self, error: ServiceError) -> Reply:
        """Answer what is not even a request of the service."""
        return self._reply("/", error.status, _error_body(error, False), None)

    def _perform(self, operation: str, body: bytes, usage: Usage) -> bytes:
        delay = self.control.latency(operation)
        if delay:
            self._stopping.wait(delay)
        armed = self.control.strike(operation)
        if armed is None:
            return self._execute(operation, body, usage)
        return self._perform_struck(armed, operation, body, usage)

    def _perform_struck(
        self, armed: ArmedFault, operation: str, body: bytes, usage: Usage
    ) -> bytes:
        fault = armed.fault
        if fault.kind == "partial":
            usage.partial = armed.partial()
            return self._execute(operation, body, usage)
        if fault.kind == "damage":
            content = self._execute(operation, body, usage)
            raise _DamagedError(content)
        if fault.kind == "drop_after" or (fault.applied and fault.kind in ("error", "hang")):
            self._execute(operation, body, usage)
        if fault.kind in ("throttle", "error"):
            raise armed.error()
        raise _DroppedError(fault.seconds if fault.kind == "hang" else 0.0)

    def _execute(self, operation: str, body: bytes, usage: Usage) -> bytes:
        if len(body) > limits.REQUEST_BODY_BYTES:
            raise ServiceError("OTSRequestBodyTooLarge", "The size of POST data is too large.")
        handler = _OPERATIONS.get(operation)
        if handler is None:
            raise ServiceError("OTSUnsupportOperation", f"Unsupported operation: '{operation}'.")
        engine = self.engine
        with engine.lock:
            try:
                return handler(engine, body, usage)
            except ServiceError:
                raise
            except Exception as error:
                # A defect of this server: the client gets a reply, the developer the traceback.
                _LOG.exception("%s failed", operation)
                message = f"The local server failed: {error!r}"
                raise ServiceError("OTSInternalServerError", message) from error
            finally:
                # A batch that fails in part has written the rest.
                engine.flush()

    def _reply(self, path: str, status: int, body: bytes, key: bytes | None) -> Reply:
        headers = {
            "x-ots-contentmd5": content_md5(body),
            "x-ots-contenttype": "protocol buffer",
            "x-ots-date": datetime.now(timezone.utc).strftime(DATE_FORMAT),
            "x-ots-requestid": str(uuid.uuid4()),
        }
        if key is not None:
            headers["authorization"] = sign_reply(
                path, headers, self.credentials.access_key_id, key
            )
        return Reply(status, headers, body)


def _error_body(error: ServiceError, as_json: bool) -> bytes:
    if as_json:
        return json.dumps({"code": error.code, "message": error.message}).encode("utf-8")
    return bytes(pb.Error(code=error.code, message=error.message).SerializeToString())
