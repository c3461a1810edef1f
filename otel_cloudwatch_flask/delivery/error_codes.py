"""What an error of a ``put_metric_data`` call means for the data: one table.

Sources: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CommonErrors.html, and the codes that
botocore's standard retry mode treats as throttling. CloudWatch's own ``LimitExceeded`` is missing there.
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
        """Whether the same request would fail again, however often it is tried."""
        return self is Kind.REFUSED


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that failed: why, in the service's own words, and when it asked to be called again (in seconds)."""

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
    # botocore's, by name: an error of a client that is not botocore's may be called the same and mean the same.
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
    """What this error of a client, botocore's or another, means."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping) and isinstance(response.get("Error"), Mapping):
        return _answered(response, str(error))
    for parent in type(error).__mro__:
        if kind := _KIND_OF_EXCEPTION.get(parent.__name__):
            return Failure(kind, _described(error))
    return Failure(Kind.UNKNOWN, _described(error))


def _answered(response: Mapping[str, Any], message: str) -> Failure:
    """The service answered, with an error."""
    metadata = response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    kind = _KIND_OF_CODE.get(response["Error"].get("Code", "")) or _KIND_OF_STATUS.get(status)
    if kind is None:
        # Some fakes answer without a status; a code we don't know is then a refusal, as it is with a 400.
        kind = Kind.SERVER if status >= 500 else Kind.REFUSED if not status else Kind.UNKNOWN
    return Failure(kind, _fit_to_be_told(message), _seconds(metadata.get("HTTPHeaders", {}).get("retry-after")))


def _seconds(header: str | None) -> float | None:
    try:
        seconds = float(header) if header else math.nan
    except ValueError:  # the form with a date, which AWS does not use
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _described(error: BaseException) -> str:
    return _fit_to_be_told(f"{type(error).__name__}: {error}")


def _fit_to_be_told(message: str) -> str:
    """In logs and statistics, whatever whoever wrote it had in mind."""
    return one_line(without_secrets(message))
