"""Classify the errors of ``put_metric_data`` calls and of writing to a stream.

The error codes come from https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CommonErrors.html and from
botocore's standard retry mode, whose list of throttling codes lacks CloudWatch's ``LimitExceeded``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final

from otel_cloudwatch_flask.model.datum import Datum
from otel_cloudwatch_flask.runtime.safe_text import one_line, without_secrets


class Kind(Enum):
    """The reason that a call failed."""

    THROTTLED = "throttled"
    SERVER = "server"
    NETWORK = "network"
    STREAM = "stream"
    CREDENTIALS = "credentials"
    CONFIGURATION = "configuration"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call.

    ``message`` is safe to log. ``retry_after_seconds`` is the value of the response's ``Retry-After`` header, or 0.
    ``may_be_stored`` is true if CloudWatch may have stored the datums, because its response was lost or incomplete. If
    writing to a stream failed, ``written`` and ``unwritten`` contain the batch's datums.
    """

    kind: Kind
    message: str
    retry_after_seconds: float = 0.0
    may_be_stored: bool = False
    written: tuple[Datum, ...] = ()
    unwritten: tuple[Datum, ...] = ()


_CODES: Final = {
    # The codes lack the suffix "Exception" or "Fault", which depends on the protocol.
    # Only these codes mean that the data itself is invalid. After any other error, a retry may succeed:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html#API_PutMetricData_Errors
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CommonErrors.html
    Kind.REFUSED: "InvalidFormat InvalidParameterCombination InvalidParameterValue MissingParameter "
    "MissingRequiredParameter InvalidQueryParameter MalformedQueryString RequestEntityTooLarge Serialization "
    "Validation ValidationError",
    Kind.THROTTLED: "Throttling Throttled RequestThrottled RequestLimitExceeded TooManyRequests LimitExceeded SlowDown",
    Kind.SERVER: "InternalFailure InternalServerError InternalService InternalServiceError ServiceUnavailable "
    "RequestAborted RequestTimeout",
    Kind.CREDENTIALS: "AccessDenied ExpiredToken IncompleteSignature InvalidClientTokenId InvalidSignature "
    "MissingAuthenticationToken NotAuthorized OptInRequired RequestExpired RequestTimeTooSkewed SignatureDoesNotMatch "
    "UnrecognizedClient",
}
_EXCEPTIONS: Final = {
    # Matched by name, so that this module need not import botocore, and a client passed by the program can raise its
    # own errors with these names. ResponseParserError is the response of a proxy or captive portal.
    Kind.REFUSED: "ParamValidationError",
    Kind.CONFIGURATION: "NoRegionError InvalidRegionError UnknownRegionError ProfileNotFound",
    Kind.CREDENTIALS: "NoCredentialsError PartialCredentialsError CredentialRetrievalError TokenRetrievalError "
    "MetadataRetrievalError SSOError LoginError",
    Kind.NETWORK: "ResponseParserError HTTPClientError ConnectionError OSError",
}
_KIND_OF_CODE: Final = {code: kind for kind, codes in _CODES.items() for code in codes.split()}
_KIND_OF_EXCEPTION: Final = {name: kind for kind, names in _EXCEPTIONS.items() for name in names.split()}
_KIND_OF_STATUS: Final = {
    413: Kind.REFUSED,  # so that the batch is bisected: a proxy with a size limit may accept smaller requests
    401: Kind.CREDENTIALS,
    403: Kind.CREDENTIALS,
    429: Kind.THROTTLED,
}

_RESPONSE_LOST: Final = frozenset(
    # botocore's and Python's errors that can occur after the complete request was sent
    {
        "ReadTimeoutError",
        "ConnectionClosedError",
        "ResponseStreamingError",
        "IncompleteReadError",
        "ResponseParserError",  # the body is missing if the headers were cut off
        "ConnectionResetError",
        "BrokenPipeError",
        "TimeoutError",
    }
)
_GATEWAY_STATUSES: Final = frozenset({502, 504})
"""The statuses of gateways that forwarded the request, but received no valid response to it."""


def unconfirmed(response: object) -> Failure | None:
    """Return a failure if ``response`` does not confirm that CloudWatch has stored the datums, else ``None``.

    A failure that a stream returned in place of a response is returned unchanged.

    botocore accepts a captive portal's page, a 204 response and an empty body, none of which has a request ID. It also
    accepts a response that is cut off before the request ID, in which case CloudWatch may have stored the datums. A
    response without botocore's structure, such as a mock's, counts as a confirmation.
    """
    if isinstance(response, Failure):
        return response
    metadata = _metadata(response)
    if "HTTPHeaders" not in metadata or metadata.get("RequestId"):
        return None
    status = metadata.get("HTTPStatusCode")
    message = f"The response, with status {status}, has no request ID: it is not from CloudWatch, or was cut off."
    return Failure(Kind.NETWORK, message, may_be_stored=True)


def service_time(response: object) -> float | None:
    """Return the ``Date`` of a CloudWatch response or error as Unix time, or ``None`` if it is missing or invalid."""
    metadata = _metadata(getattr(response, "response", response))
    if not metadata.get("RequestId"):
        return None  # without a request ID, the response may come from a proxy, whose clock may be wrong
    try:
        return parsedate_to_datetime(metadata["HTTPHeaders"]["date"]).timestamp()
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        return None


def _metadata(response: object) -> Mapping[str, Any]:
    metadata = response.get("ResponseMetadata") if isinstance(response, Mapping) else None
    return metadata if isinstance(metadata, Mapping) else {}


def failure(error: BaseException) -> Failure:
    """Classify an exception raised by any client, and make its message safe to log. Raises no exception itself."""
    try:
        return _classified(error)
    except Exception:  # noqa: BLE001 - boundary: the text and the response of any client's exception
        return Failure(Kind.UNKNOWN, _safe(f"{type(error).__name__}, whose message or response cannot be read"))


def _classified(error: BaseException) -> Failure:
    response = getattr(error, "response", None)
    if isinstance(response, Mapping) and isinstance(response.get("Error"), Mapping):
        return _from_response(response, str(error))
    names = [each.__name__ for each in type(error).__mro__]
    kind = next((_KIND_OF_EXCEPTION[name] for name in names if name in _KIND_OF_EXCEPTION), Kind.UNKNOWN)
    message = _safe(f"{type(error).__name__}: {error}")
    return Failure(kind, message, may_be_stored=not _RESPONSE_LOST.isdisjoint(names))


def _from_response(response: Mapping[str, Any], message: str) -> Failure:
    """Classify an error response, taken from the exception that the client raised."""
    metadata = _metadata(response)
    status = metadata.get("HTTPStatusCode") or 0
    code = str(response["Error"].get("Code", "")).removesuffix("Exception").removesuffix("Fault")
    kind = _KIND_OF_CODE.get(code) or _KIND_OF_STATUS.get(status) or (Kind.SERVER if status >= 500 else Kind.UNKNOWN)
    retry_after = _seconds((metadata.get("HTTPHeaders") or {}).get("retry-after"))
    return Failure(kind, _safe(message), retry_after, may_be_stored=status in _GATEWAY_STATUSES)


def _seconds(header: str | None) -> float:
    try:
        seconds = float(header or 0.0)
    except ValueError:  # an HTTP date, which AWS does not send
        return 0.0
    return seconds if 0.0 < seconds < math.inf else 0.0


def _safe(message: str) -> str:
    """Return the message as one line without secrets, so that it is safe to log."""
    return one_line(without_secrets(message))
