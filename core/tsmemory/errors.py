"""Every error that tsmemory raises.

    TSMemoryError
    ├── InvalidInputError (ValueError)     the call is wrong; nothing was sent
    │   └── MessageTooLargeError           over the engine's limit for one message
    ├── NotFoundError (LookupError)        an update names a message that is not there
    ├── ConflictError                      if_version: the session has moved on
    ├── CorruptRecordError                 a stored record cannot be decoded
    ├── BackendError                       the engine or the way to it failed
    │   ├── UnavailableError               cannot be reached, or not ready; try again
    │   ├── TimeoutError (TimeoutError)    no answer in time; the outcome is unknown
    │   ├── AuthenticationError            credentials refused
    │   └── ThrottledError                 the service asks to slow down
    └── MissingDependencyError (ImportError)   an extra is not installed

Driver errors are translated where the driver is called, the cause kept (``raise … from``).
No message of these errors holds a credential.
"""

from __future__ import annotations

import builtins

__all__ = [
    "AuthenticationError",
    "BackendError",
    "ConflictError",
    "CorruptRecordError",
    "InvalidInputError",
    "MessageTooLargeError",
    "MissingDependencyError",
    "NotFoundError",
    "TSMemoryError",
    "ThrottledError",
    "TimeoutError",
    "UnavailableError",
]


def shown(value: object) -> str:
    """A wrong argument, as an error shows it: a short text, whatever the value is. Python refuses
    to print an int of thousands of digits, and cannot print a list nested as deep."""
    if isinstance(value, int) and abs(value) >> 70:
        return "an int of many digits"
    if value is None or isinstance(value, (str, bytes, int, float)):
        return repr(value[:80] if isinstance(value, (str, bytes)) else value)
    return f"a {type(value).__name__}"


class TSMemoryError(Exception):
    """The root of the tree."""


class InvalidInputError(TSMemoryError, ValueError):
    """The arguments cannot be served. Raised before any I/O; says what to do instead."""


class MessageTooLargeError(InvalidInputError):
    """A message is larger than its engine can hold. Nothing of the batch was written."""


class NotFoundError(TSMemoryError, LookupError):
    """An update names a message that is not in the session."""


class ConflictError(TSMemoryError):
    """The session is not at the version that the caller expected. Nothing was written."""

    def __init__(self, message: str, *, expected: int | None = None, actual: int | None = None):
        super().__init__(message)
        self.expected = expected
        """The version that the caller named."""
        self.actual = actual
        """The version found, 0 where there is no session."""


class CorruptRecordError(TSMemoryError):
    """A stored record cannot be decoded.

    Backends return it in the place of the record, so that its neighbours stay readable; the
    store raises it, or skips it where the caller asked for that.
    """

    def __init__(
        self,
        reason: str,
        *,
        user_id: str,
        session_id: str,
        message_id: str | None = None,
        create_time: int = 0,
    ):
        what = "session record" if message_id is None else f"message {message_id!r}"
        super().__init__(f"{what} of session {session_id!r} of user {user_id!r}: {reason}")
        self.reason = reason
        self.user_id = user_id
        self.session_id = session_id
        self.message_id = message_id
        """The message, or None where the session's own record is the broken one."""
        self.create_time = create_time
        """Where it stands in the session (µs since the epoch); a session's update_time."""


class BackendError(TSMemoryError):
    """The engine, or the way to it, failed."""


class UnavailableError(BackendError):
    """The engine cannot be reached or is not ready. The same call may succeed later."""


class TimeoutError(BackendError, builtins.TimeoutError):
    """No answer in time. A write may have taken effect; repeating it is safe (same ids)."""


class AuthenticationError(BackendError):
    """The engine refused the credentials."""


class ThrottledError(BackendError):
    """The service asks its callers to slow down, and went on asking past the deadline."""


class MissingDependencyError(TSMemoryError, ImportError):
    """A driver or framework is not installed. The message names the extra that brings it."""
