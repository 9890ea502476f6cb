"""Reaching Tablestore: URLs, credentials, sync and async clients, and what errors mean."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
import urllib3.exceptions
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs

from tsmemory import errors
from tsmemory.backends.tablestore.sdk import CHECK_FAILED, sdk
from tsmemory.engine.network import ErrorClass, NetworkBackend
from tsmemory.engine.urls import parse_url
from tsmemory.errors import InvalidInputError, TSMemoryError

# The SDK logs as errors what is none here: a row condition that did not hold, a missing table. What
# does fail is raised.
_LOGGER = "tsmemory.tablestore"
logging.getLogger(_LOGGER).setLevel(logging.CRITICAL)

__all__ = ["TablestoreClients", "endpoint_of"]

_AUTHENTICATION = frozenset(
    {"OTSAuthFailed", "OTSNoPermissionAccess", "OTSInvalidAccessKeyID", "OTSAccessKeyDisabled"}
)
_THROTTLED = frozenset(
    {
        "OTSServerBusy", "OTSNotEnoughCapacityUnit", "OTSOperationThrottled",
        "OTSCapacityUnitExhausted", "OTSQuotaExhausted",
    }
)  # fmt: skip
_PASSING = frozenset(
    {
        "OTSRowOperationConflict", "OTSOperationConflict", "OTSTableNotReady",
        "OTSPartitionUnavailable", "OTSServerUnavailable", "OTSInternalServerError",
    }
)  # fmt: skip
_OWN = frozenset({CHECK_FAILED, "OTSObjectAlreadyExist"})
"""Errors that the operations handle themselves."""
_MAX_CONNECTIONS = 100
"""Of one client. The SDK's own 500 are filled in slot by slot, 6 ms for each opened store, and are
more than the threads of one process can keep busy: they send a thousand requests per second."""
_TIMEOUTS = (asyncio.TimeoutError, TimeoutError, urllib3.exceptions.TimeoutError)
_BROKEN = (urllib3.exceptions.HTTPError, aiohttp.ClientError, OSError)


def endpoint_of(url: str) -> tuple[str, str | None, str | None, str | None]:
    """The endpoint of ``tablestore+https://[key_id:key_secret@]host[:port]``, the instance that
    its host names (``instance.region.ots.aliyuncs.com``), and the key, if they are there.

    Raises:
        InvalidInputError: no host, or a path.
    """
    parts = parse_url(url)
    if not parts.hostname or parts.path not in ("", "/") or parts.fragment:
        raise InvalidInputError(
            "a Tablestore URL is tablestore+https://instance.region.ots.aliyuncs.com, with options "
            "behind a ?"
        )
    host = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
    port = "" if parts.port is None else f":{parts.port}"
    labels = parts.hostname.split(".")
    instance = labels[0] if len(labels) > 3 and not labels[-1].isdigit() else None
    return (
        f"{parts.scheme.removeprefix('tablestore+')}://{host}{port}",
        instance,
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
    )


class TablestoreClients(NetworkBackend):
    """The part of the backend that talks to the service.

    Args:
        endpoint: ``https://instance.region.ots.aliyuncs.com``; else ``TABLESTORE_ENDPOINT``.
        instance_name: else ``TABLESTORE_INSTANCE_NAME``, else the endpoint's first label.
        access_key_id: else ``TABLESTORE_ACCESS_KEY_ID``.
        access_key_secret: else ``TABLESTORE_ACCESS_KEY_SECRET``.
        sts_token: else ``TABLESTORE_STS_TOKEN``; taken only together with a key.
        credentials_provider: the SDK's, instead of a key.
        region: requests are signed with version 4 for this region; None: version 2.
        timeout: seconds for one attempt of one request.
        retry_for: see `NetworkBackend`.

    Raises:
        InvalidInputError: no endpoint, no instance, no credentials.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        instance_name: str | None = None,
        access_key_id: str | None = None,
        access_key_secret: str | None = None,
        sts_token: str | None = None,
        credentials_provider: Any = None,
        client: Any = None,
        async_client: Any = None,
        region: str | None = None,
        timeout: float = 10.0,
        retry_for: float = 10.0,
    ) -> None:
        super().__init__(client=client, async_client=async_client, retry_for=retry_for)
        if not timeout > 0:
            raise InvalidInputError(f"timeout is {timeout} s; give more than 0")
        self.endpoint: str | None = None
        self.instance_name: str | None = None
        self._options: dict[str, Any] = {}
        if client is not None or async_client is not None:
            if endpoint is not None:
                raise InvalidInputError("give an endpoint or a ready client, not both")
            return
        endpoint = endpoint or os.environ.get("TABLESTORE_ENDPOINT")
        if not endpoint:
            raise InvalidInputError("no endpoint: pass one, or set TABLESTORE_ENDPOINT")
        if not endpoint.startswith(("https://", "http://")):
            raise InvalidInputError("an endpoint begins with https:// or http://")
        if "@" in urlsplit(endpoint).netloc:
            raise InvalidInputError("an endpoint holds no credentials; pass access_key_id= …")
        named = endpoint_of("tablestore+" + endpoint)
        instance = instance_name or os.environ.get("TABLESTORE_INSTANCE_NAME") or named[1]
        if not instance:
            raise InvalidInputError("no instance: pass instance_name, or TABLESTORE_INSTANCE_NAME")
        if credentials_provider is None and access_key_id is None:
            access_key_id = os.environ.get("TABLESTORE_ACCESS_KEY_ID")
            access_key_secret = access_key_secret or os.environ.get("TABLESTORE_ACCESS_KEY_SECRET")
            sts_token = sts_token or os.environ.get("TABLESTORE_STS_TOKEN")
        if credentials_provider is None and not (access_key_id and access_key_secret):
            raise InvalidInputError(
                "no credentials: pass access_key_id and access_key_secret or credentials_provider, "
                "or set TABLESTORE_ACCESS_KEY_ID and TABLESTORE_ACCESS_KEY_SECRET"
            )
        self.endpoint, self.instance_name = named[0], instance
        self._options = {
            "access_key_id": access_key_id, "access_key_secret": access_key_secret,
            "sts_token": sts_token, "credentials_provider": credentials_provider,
            "region": region, "socket_timeout": timeout, "max_connection": _MAX_CONNECTIONS,
            # What is repeated, and until when, is decided by `NetworkBackend` alone.
            "retry_policy": sdk.NoRetryPolicy(),
            "logger_name": _LOGGER,
        }  # fmt: skip

    def _make(self, kind: Callable[..., Any]) -> Any:
        return kind(self.endpoint, instance_name=self.instance_name, **self._options)

    def _connect(self) -> Any:
        return self._make(sdk.OTSClient)

    def _aconnect(self) -> Any:
        return self._make(sdk.AsyncOTSClient)

    def _disconnect(self, client: Any) -> None:
        # The SDK's client has no close(); its urllib3 pool keeps the connections.
        client.connection.pool.clear()

    async def _adisconnect(self, client: Any) -> None:
        await client.close()

    def _classify(self, error: Exception) -> ErrorClass:
        if isinstance(error, TSMemoryError):
            return ErrorClass(error)
        # Without stubs of the SDK a checker knows its errors by nothing but their attributes.
        sdk_error: Any = error
        if isinstance(error, sdk.OTSServiceError):
            return self._classify_code(sdk_error.code, sdk_error.message, sdk_error.http_status)
        if isinstance(error, sdk.OTSClientError):
            # The SDK checks the reply's headers, signature and MD5, and names what is wrong "in
            # response": damaged on its way, or a proxy's. The rest is about requests.
            status = sdk_error.http_status or 0
            damaged = status >= 500 or " in response" in str(sdk_error.message)
            what = f"the service's reply cannot be read: {sdk_error.message}"
            return ErrorClass(errors.UnavailableError(what), damaged)
        if isinstance(error, DecodeError):
            return ErrorClass(errors.UnavailableError("the service's reply cannot be read"), True)
        if isinstance(error, _TIMEOUTS):
            return ErrorClass(
                errors.TimeoutError(f"{self.endpoint or 'Tablestore'}: no answer"), True
            )
        if isinstance(error, _BROKEN):
            what = f"{self.endpoint or 'Tablestore'}: {type(error).__name__}"
            return ErrorClass(errors.UnavailableError(what), True)
        return ErrorClass(None)

    def _classify_code(self, code: str, message: str, status: int) -> ErrorClass:
        what = f"{code}: {message}"
        if code in _OWN:
            return ErrorClass(None)
        if code in _AUTHENTICATION:
            return ErrorClass(errors.AuthenticationError(f"{code}: the credentials are refused"))
        if code in _THROTTLED:
            return ErrorClass(errors.ThrottledError(what), True)
        if code == "OTSTimeout":
            return ErrorClass(errors.TimeoutError(what), True)
        if code == "OTSObjectNotExist":
            hint = f"{what}; call setup() once to create the tables"
            return ErrorClass(errors.UnavailableError(hint))
        if code in _PASSING or status >= 500:
            return ErrorClass(errors.UnavailableError(what), True)
        return ErrorClass(errors.BackendError(what))
