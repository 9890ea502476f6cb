"""The error codes of the service, and how a request is refused.

Codes, HTTP statuses and, where they are published, messages follow the page "Error codes" of the
Tablestore documentation (https://www.alibabacloud.com/help/en/tablestore/developer-reference/error-codes)
and the official SDK's own functional tests. Messages not found there are worded in the same style.
"""

from __future__ import annotations

#: The HTTP status that goes with each code, where it is not 400.
HTTP_STATUS: dict[str, int] = {
    "OTSAuthFailed": 403,
    "OTSConditionCheckFail": 403,
    "OTSInternalServerError": 500,
    "OTSMethodNotAllowed": 405,
    "OTSNoPermissionAccess": 403,
    "OTSNotEnoughCapacityUnit": 403,
    "OTSObjectAlreadyExist": 409,
    "OTSObjectNotExist": 404,
    "OTSPartitionUnavailable": 503,
    "OTSQuotaExhausted": 403,
    "OTSRequestBodyTooLarge": 413,
    "OTSRequestTimeout": 408,
    "OTSRowOperationConflict": 409,
    "OTSServerBusy": 503,
    "OTSServerUnavailable": 503,
    "OTSTableNotReady": 404,
    "OTSTimeout": 503,
}

#: The message that goes with a code when a fault is injected by code alone.
DEFAULT_MESSAGE: dict[str, str] = {
    "OTSInternalServerError": "Internal server error.",
    "OTSNotEnoughCapacityUnit": "Remaining capacity unit is not enough.",
    "OTSPartitionUnavailable": "The partition is not available.",
    "OTSQuotaExhausted": "Too frequent table operations.",
    "OTSRowOperationConflict": "Data is being modified by the other request.",
    "OTSServerBusy": "Server is busy.",
    "OTSServerUnavailable": "Server is not available.",
    "OTSTableNotReady": "The table is not ready.",
    "OTSTimeout": "Operation timeout.",
}


class ServiceError(Exception):
    """A request, or one row of a batch, refused by the service.

    Args:
        code: the service's error code, such as ``OTSParameterInvalid``.
        message: the text for a person.
        status: the HTTP status; by default the one that belongs to the code.
    """

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = HTTP_STATUS.get(code, 400) if status is None else status


def invalid(message: str) -> ServiceError:
    """A parameter out of bounds (``OTSParameterInvalid``, HTTP 400)."""
    return ServiceError("OTSParameterInvalid", message)


def invalid_key(message: str) -> ServiceError:
    """A primary key that is not the table's (``OTSInvalidPK``, HTTP 400)."""
    return ServiceError("OTSInvalidPK", message)


def table_missing() -> ServiceError:
    """The table or index table is not there (``OTSObjectNotExist``, HTTP 404)."""
    return ServiceError("OTSObjectNotExist", "Requested table does not exist.")


def condition_failed() -> ServiceError:
    """A row-existence or column condition did not hold (HTTP 403)."""
    return ServiceError("OTSConditionCheckFail", "Condition check failed.")
