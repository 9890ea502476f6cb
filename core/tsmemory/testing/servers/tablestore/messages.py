"""What requests and replies have in common."""

from __future__ import annotations

from typing import Any

from ._wire import DecodeError
from .errors import DEFAULT_MESSAGE, ServiceError, invalid
from .usage import Usage

_CAPACITY_UNIT_BYTES = 4096


def parse(message: Any, body: bytes) -> Any:
    """Decode a request.

    Raises:
        ServiceError: OTSParameterInvalid, when it is not that message.
    """
    try:
        message.ParseFromString(body)
    except DecodeError:
        raise invalid("Failed to parse the ProtoBuf message.") from None
    return message


def units(size: int) -> int:
    """Capacity units for so many bytes."""
    return max(1, -(-size // _CAPACITY_UNIT_BYTES))


def consumed(message: Any, *, read: int = 0, write: int = 0) -> None:
    """Fill in a protobuf ``ConsumedCapacity``."""
    message.capacity_unit.read = read
    message.capacity_unit.write = write


def injected(usage: Usage) -> ServiceError:
    """The error of a row that a fault makes fail."""
    code = usage.partial.code if usage.partial else "OTSServerBusy"
    return ServiceError(code, DEFAULT_MESSAGE.get(code, "Injected fault."))


def fail(answer: Any, error: ServiceError) -> None:
    """Report a failed row in a batch's reply."""
    answer.is_ok = False
    answer.ClearField("row")
    answer.error.code = error.code
    answer.error.message = error.message
