"""Signatures: those of requests are checked, those of replies are made.

Both versions of the SDK's ``tablestore.auth`` are known: V2 (HMAC-SHA1 with the secret) and V4
(HMAC-SHA256 with a key derived from the secret, the date and the region). A reply is signed with
HMAC-SHA1 and the request's key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache

from .errors import ServiceError, invalid

_PREFIX = "x-ots-"
_SIGNATURES = {"x-ots-signature", "x-ots-signaturev4"}
_REQUIRED = (
    "x-ots-date", "x-ots-apiversion", "x-ots-accesskeyid", "x-ots-instancename",
    "x-ots-contentmd5",
)  # fmt: skip
_CLOCK_SKEW_SECONDS = 15 * 60
DATE_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


def _denied(message: str) -> ServiceError:
    return ServiceError("OTSAuthFailed", message)


def _hmac(key: bytes, text: str, method: str) -> bytes:
    return hmac.new(key, text.encode("utf-8"), method).digest()


@lru_cache(maxsize=64)
def _v4_key(secret: str, date: str, region: str) -> bytes:
    key = ("aliyun_v4" + secret).encode("utf-8")
    for part in (date, region, "ots", "aliyun_v4_request"):
        key = _hmac(key, part, "sha256")
    return base64.b64encode(key)


@lru_cache(maxsize=64)  # clients write whole seconds, so many requests have the same date
def _timestamp(date: str) -> float:
    """Seconds since the epoch.

    Raises:
        ValueError: it is no date of the service's format.
    """
    return datetime.strptime(date, DATE_FORMAT).replace(tzinfo=timezone.utc).timestamp()


def _canonical(headers: Mapping[str, str]) -> str:
    return "\n".join(
        sorted(
            f"{name}:{value.strip()}"
            for name, value in headers.items()
            if name.startswith(_PREFIX) and name not in _SIGNATURES
        )
    )


def content_md5(body: bytes) -> str:
    """The MD5 of a body as the headers carry it."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode("ascii")


@dataclass(frozen=True)
class Credentials:
    """What a client must present. An STS token is compared only when one is set."""

    instance_name: str
    access_key_id: str
    access_key_secret: str
    sts_token: str | None = None

    def __repr__(self) -> str:
        return f"Credentials({self.instance_name!r}, {self.access_key_id!r}, ...)"

    def check(self, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """Authenticate a request.

        Args:
            path: the operation's path, such as ``/PutRow``.
            headers: with names in lower case.

        Returns:
            The key to sign the reply with.

        Raises:
            ServiceError: OTSAuthFailed, or OTSParameterInvalid when a header is missing or odd.
        """
        for name in _REQUIRED:
            if name not in headers:
                raise invalid(f"Missing header: '{name}'.")
        self._check_date(headers["x-ots-date"])
        if headers["x-ots-instancename"] != self.instance_name:
            raise _denied("The instance is not found.")
        if headers["x-ots-accesskeyid"] != self.access_key_id:
            raise _denied("The AccessKeyID does not exist.")
        if self.sts_token is not None and headers.get("x-ots-ststoken") != self.sts_token:
            raise _denied("The security token is invalid.")
        if headers["x-ots-contentmd5"] != content_md5(body):
            raise _denied(
                "Mismatch between MD5 value of request body and x-ots-contentmd5 in header."
            )
        return self._check_signature(path, headers)

    @staticmethod
    def _check_date(text: str) -> None:
        try:
            date = _timestamp(text)
        except ValueError:
            raise invalid(f"Invalid date format: {text}.") from None
        if abs(date - time.time()) > _CLOCK_SKEW_SECONDS:
            raise _denied(f"Mismatch between system time and x-ots-date: {text}.")

    def _check_signature(self, path: str, headers: Mapping[str, str]) -> bytes:
        text = f"{path}\nPOST\n\n{_canonical(headers)}\n"
        if "x-ots-signaturev4" in headers:
            date, region = headers.get("x-ots-signdate"), headers.get("x-ots-signregion")
            if date is None or region is None:
                raise invalid("Missing header: 'x-ots-signdate' or 'x-ots-signregion'.")
            key = _v4_key(self.access_key_secret, date, region)
            expected = _hmac(key, text + "ots", "sha256")
            signature = headers["x-ots-signaturev4"]
        elif "x-ots-signature" in headers:
            key = self.access_key_secret.encode("utf-8")
            expected = _hmac(key, text, "sha1")
            signature = headers["x-ots-signature"]
        else:
            raise invalid("Missing header: 'x-ots-signature'.")
        if not hmac.compare_digest(base64.b64encode(expected), signature.encode("utf-8")):
            raise _denied("Signature mismatch.")
        return key


def sign_reply(path: str, headers: Mapping[str, str], access_key_id: str, key: bytes) -> str:
    """The ``Authorization`` header of a reply."""
    digest = _hmac(key, f"{_canonical(headers)}\n{path}", "sha1")
    return f"OTS {access_key_id}:{base64.b64encode(digest).decode('ascii')}"
