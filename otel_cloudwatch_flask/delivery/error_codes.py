"""Classification of the errors of a ``put_metric_data`` call.

Sources: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CommonErrors.html, and the codes that
botocore's standard retry mode treats as throttling, which lack CloudWatch's own ``LimitExceeded``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from otel_cloudwatch_flask.runtime.safe_text import one_line, without_secrets


class Kind(Enum):
    """Why a call failed."""

    THROTTLED = "throttled"
    SERVER = "server"
    NETWORK = "network"
    CREDENTIALS = "credentials"
    CONFIGURATION = "configuration"
    REFUSED = "refused"
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        """Whether the same request would always fail."""
        return self is Kind.REFUSED


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call: its kind, a log-safe message, and the value of ``Retry-After`` in seconds, if any."""

    kind: Kind
    message: str
    retry_after_seconds: float | None = None


_KIND_OF_CODE: Final = {
    **dict.fromkeys(
        (
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "RequestThrottled",
            "RequestThrottledException",
            "RequestLimitExceeded",
            "TooManyRequestsException",
            "LimitExceeded",
            "LimitExceededException",
            "SlowDown",
        ),
        Kind.THROTTLED,
    ),
    **dict.fromkeys(
        (
            "InternalFailure",
            "InternalServiceError",
            "InternalServiceFault",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "RequestTimeout",
            "RequestTimeoutException",
        ),
        Kind.SERVER,
    ),
    **dict.fromkeys(
        (
            "AccessDenied",
            "AccessDeniedException",
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "MissingAuthenticationToken",
            "NotAuthorized",
            "OptInRequired",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ),
        Kind.CREDENTIALS,
    ),
}

_KIND_OF_STATUS: Final = {
    400: Kind.REFUSED,
    413: Kind.REFUSED,
    401: Kind.CREDENTIALS,
    403: Kind.CREDENTIALS,
    429: Kind.THROTTLED,
}

_KIND_OF_EXCEPTION: Final = {
    # By name, so that botocore need not be imported, and a program's own client can raise errors of the same names.
    "ParamValidationError": Kind.REFUSED,
    "NoRegionError": Kind.CONFIGURATION,
    "InvalidRegionError": Kind.CONFIGURATION,
    "UnknownRegionError": Kind.CONFIGURATION,
    "ProfileNotFound": Kind.CONFIGURATION,
    "NoCredentialsError": Kind.CREDENTIALS,
    "PartialCredentialsError": Kind.CREDENTIALS,
    "CredentialRetrievalError": Kind.CREDENTIALS,
    "TokenRetrievalError": Kind.CREDENTIALS,
    "MetadataRetrievalError": Kind.CREDENTIALS,
    "SSOError": Kind.CREDENTIALS,
    "LoginError": Kind.CREDENTIALS,
    "HTTPClientError": Kind.NETWORK,
    "ConnectionError": Kind.NETWORK,
    "OSError": Kind.NETWORK,
}


def failure(error: BaseException) -> Failure:
    """Classify an error that a client, botocore's or another, has raised."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping) and isinstance(response.get("Error"), Mapping):
        return _from_response(response, str(error))
    for parent in type(error).__mro__:
        if kind := _KIND_OF_EXCEPTION.get(parent.__name__):
            return Failure(kind, _described(error))
    return Failure(Kind.UNKNOWN, _described(error))


def _from_response(response: Mapping[str, Any], message: str) -> Failure:
    """Classify an error response."""
    metadata = response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    kind = _KIND_OF_CODE.get(response["Error"].get("Code", "")) or _KIND_OF_STATUS.get(status)
    if kind is None:
        # Some fakes answer without a status; a code we don't know is then a refusal, as it is with a 400.
        kind = Kind.SERVER if status >= 500 else Kind.REFUSED if not status else Kind.UNKNOWN
    return Failure(kind, _safe(message), _seconds(metadata.get("HTTPHeaders", {}).get("retry-after")))


def _seconds(header: str | None) -> float | None:
    try:
        seconds = float(header) if header else math.nan
    except ValueError:  # an HTTP date, which AWS does not send
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _described(error: BaseException) -> str:
    return _safe(f"{type(error).__name__}: {error}")


def _safe(message: str) -> str:
    """Return the message sanitized for logs: one line, without secrets."""
    return one_line(without_secrets(message))
