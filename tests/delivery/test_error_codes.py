import socket
import unittest.mock
from typing import Any

import botocore.exceptions as botocore
import pytest
import urllib3.exceptions
from botocore.parsers import ResponseParserError

from otel_cloudwatch_flask.delivery.error_codes import Failure, Kind, failure, service_time, unconfirmed
from otel_cloudwatch_flask.testing.fake import client_error


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("Throttling", 400, Kind.THROTTLED),
        ("ThrottlingException", 400, Kind.THROTTLED),
        ("RequestLimitExceeded", 503, Kind.THROTTLED),
        ("LimitExceeded", 400, Kind.THROTTLED),
        ("LimitExceededException", 400, Kind.THROTTLED),
        ("TooManyRequestsException", 429, Kind.THROTTLED),
        ("SlowDown", 503, Kind.THROTTLED),
        ("Unheard", 429, Kind.THROTTLED),
        ("InternalServiceError", 500, Kind.SERVER),
        ("InternalServiceFault", 500, Kind.SERVER),
        ("InternalFailure", 500, Kind.SERVER),
        ("ServiceUnavailable", 503, Kind.SERVER),
        ("RequestTimeout", 400, Kind.SERVER),
        ("Unheard", 500, Kind.SERVER),
        ("502", 502, Kind.SERVER),
        ("", 504, Kind.SERVER),
        ("AccessDenied", 403, Kind.CREDENTIALS),
        ("AccessDeniedException", 400, Kind.CREDENTIALS),
        ("ExpiredToken", 403, Kind.CREDENTIALS),
        ("ExpiredTokenException", 400, Kind.CREDENTIALS),
        ("InvalidClientTokenId", 403, Kind.CREDENTIALS),
        ("UnrecognizedClientException", 400, Kind.CREDENTIALS),
        ("SignatureDoesNotMatch", 403, Kind.CREDENTIALS),
        ("RequestExpired", 400, Kind.CREDENTIALS),
        ("MissingAuthenticationToken", 403, Kind.CREDENTIALS),
        ("OptInRequired", 403, Kind.CREDENTIALS),
        ("Unheard", 403, Kind.CREDENTIALS),
        ("Unheard", 401, Kind.CREDENTIALS),
        ("InvalidParameterValue", 400, Kind.REFUSED),
        ("InvalidParameterCombination", 400, Kind.REFUSED),
        ("MissingParameter", 400, Kind.REFUSED),
        ("ValidationError", 400, Kind.REFUSED),
        ("SerializationException", 400, Kind.REFUSED),
        ("RequestEntityTooLarge", 413, Kind.REFUSED),
        ("MissingRequiredParameterException", 400, Kind.REFUSED),
        ("InvalidFormatFault", 400, Kind.REFUSED),
        ("ValidationException", 400, Kind.REFUSED),
        ("", 413, Kind.REFUSED),
        ("InternalServerError", 400, Kind.SERVER),
        ("RequestAbortedException", 400, Kind.SERVER),
        ("MissingAuthenticationTokenException", 400, Kind.CREDENTIALS),
        ("RequestTimeTooSkewed", 400, Kind.CREDENTIALS),
        ("400", 400, Kind.UNKNOWN),  # a proxy's response, with HTML or without a body
        ("Unheard", 400, Kind.UNKNOWN),
        ("Unheard", 404, Kind.UNKNOWN),
        ("301", 301, Kind.UNKNOWN),
    ],
)
def test_answers(code: str, status: int, kind: Kind) -> None:
    """An error response is classified by its code, or else by its HTTP status."""
    found = failure(client_error(code, "why", status=status))
    assert found.kind is kind
    assert "why" in found.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (botocore.EndpointConnectionError(endpoint_url="https://monitoring"), Kind.NETWORK),
        (botocore.ConnectTimeoutError(endpoint_url="https://monitoring"), Kind.NETWORK),
        (botocore.ReadTimeoutError(endpoint_url="https://monitoring"), Kind.NETWORK),
        (botocore.ConnectionClosedError(endpoint_url="https://monitoring"), Kind.NETWORK),
        (botocore.SSLError(endpoint_url="https://monitoring", error=OSError("certificate")), Kind.NETWORK),
        (botocore.ProxyConnectionError(proxy_url="http://proxy", error="refused"), Kind.NETWORK),
        (botocore.HTTPClientError(error="broken"), Kind.NETWORK),
        (ConnectionResetError(104, "reset"), Kind.NETWORK),
        (TimeoutError("timed out"), Kind.NETWORK),
        (socket.gaierror(-2, "unknown name"), Kind.NETWORK),
        (botocore.NoCredentialsError(), Kind.CREDENTIALS),
        (botocore.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), Kind.CREDENTIALS),
        (botocore.CredentialRetrievalError(provider="sso", error_msg="expired"), Kind.CREDENTIALS),
        (botocore.TokenRetrievalError(provider="sso", error_msg="expired"), Kind.CREDENTIALS),
        (botocore.UnauthorizedSSOTokenError(), Kind.CREDENTIALS),
        (botocore.SSOTokenLoadError(error_msg="missing"), Kind.CREDENTIALS),
        (botocore.MetadataRetrievalError(error_msg="no answer"), Kind.CREDENTIALS),
        *(
            (getattr(botocore, name)(error_msg="missing"), Kind.CREDENTIALS)
            for name in ("LoginRefreshRequired", "LoginTokenLoadError")
            if hasattr(botocore, name)  # older botocore versions do not support `aws login`
        ),
        (botocore.NoRegionError(), Kind.CONFIGURATION),
        (botocore.InvalidRegionError(region_name="eu west"), Kind.CONFIGURATION),
        (botocore.ProfileNotFound(profile="nobody"), Kind.CONFIGURATION),
        (botocore.ParamValidationError(report="Invalid type for parameter"), Kind.REFUSED),
        (ValueError("what is this?"), Kind.UNKNOWN),
        (RuntimeError(), Kind.UNKNOWN),
        (urllib3.exceptions.LocationParseError("x"), Kind.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
def test_exceptions(error: Exception, kind: Kind) -> None:
    """Other errors are classified by their class, which is named in the message."""
    found = failure(error)
    assert found.kind is kind
    assert type(error).__name__ in found.message


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("", 0.0),
        ("inf", 0.0),
        ("nan", 0.0),
    ],
)
def test_retry_after(header: str, seconds: float) -> None:
    """``Retry-After`` in seconds is parsed; other values are ignored."""
    error = client_error("ThrottlingException")
    error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] = header
    assert failure(error).retry_after_seconds == seconds


class OtherError(Exception):
    """A fake client's error in the form of botocore's."""

    def __init__(self, response: Any) -> None:
        super().__init__("other")
        self.response = response


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        ({"Error": {"Code": "InvalidParameterValue"}}, Kind.REFUSED),
        ({"Error": {"Code": "ThrottlingException"}}, Kind.THROTTLED),
        ({"Error": {"Code": "ThrottlingException"}, "ResponseMetadata": None}, Kind.THROTTLED),
        (
            {
                "Error": {"Code": "ThrottlingException"},
                "ResponseMetadata": {"HTTPStatusCode": None, "HTTPHeaders": None},
            },
            Kind.THROTTLED,
        ),
        ({"Error": {}, "ResponseMetadata": {"HTTPStatusCode": None}}, Kind.UNKNOWN),
        ({"Error": {}, "ResponseMetadata": {"HTTPStatusCode": "503"}}, Kind.UNKNOWN),
        ({"Error": {}}, Kind.UNKNOWN),
        ({"Error": "text"}, Kind.UNKNOWN),
        ({}, Kind.UNKNOWN),
        ("text", Kind.UNKNOWN),
        (None, Kind.UNKNOWN),
    ],
)
def test_others_errors(response: object, kind: Kind) -> None:
    """Error responses of any shape are classified, even without a status."""
    assert failure(OtherError(response)).kind is kind


def test_message_of_an_exception() -> None:
    """The message contains the exception's class name and text."""
    assert failure(ValueError("what?")) == Failure(Kind.UNKNOWN, "ValueError: what?")


def test_an_exception_without_text() -> None:
    """An exception whose message cannot be read is classified by the name of its class."""
    unprintable = type("Unprintable", (Exception,), {"__str__": unittest.mock.Mock(side_effect=ValueError)})
    problem = failure(unprintable())
    assert (problem.kind, problem.message.split(",")[0]) == (Kind.UNKNOWN, "Unprintable")


def answer(status: int, request_id: str | None, **headers: str) -> dict[str, Any]:
    """Return the dictionary that botocore returns for a successful response."""
    metadata: dict[str, Any] = {"HTTPStatusCode": status, "HTTPHeaders": headers, "RetryAttempts": 0}
    return {"ResponseMetadata": {**metadata, "RequestId": request_id} if request_id else metadata}


@pytest.mark.parametrize(
    ("response", "is_confirmed"),
    [
        (answer(200, "b7a1"), True),
        (answer(200, None, server="nginx"), False),  # the parsed body of an HTML page, or an empty body
        (answer(204, None), False),
        ({"ResponseMetadata": {"HTTPStatusCode": 200}}, True),
        ({}, True),
        (None, True),
        (unittest.mock.Mock(), True),
    ],
)
def test_what_confirms_a_request(response: object, *, is_confirmed: bool) -> None:
    """A response confirms a request only if it has CloudWatch's request ID; a mock may return anything."""
    problem = unconfirmed(response)
    assert (problem is None) is is_confirmed
    assert problem is None or (problem.kind is Kind.NETWORK and problem.may_be_stored)


@pytest.mark.parametrize(
    ("response", "unix_time"),
    [
        (answer(200, "b7a1", date="Tue, 22 Sep 2026 14:13:20 GMT"), 1_790_086_400),
        (answer(200, None, date="Tue, 22 Sep 2026 14:13:20 GMT"), None),
        (answer(200, "b7a1", date="soon"), None),
        ({"ResponseMetadata": {"RequestId": "b7a1", "HTTPHeaders": {"date": 5}}}, None),
        (answer(200, "b7a1"), None),
        (OtherError(answer(400, "b7a1", date="Tue, 22 Sep 2026 14:13:20 GMT")), 1_790_086_400),
        (ValueError("no response"), None),
        (None, None),
    ],
)
def test_service_time(response: object, unix_time: float | None) -> None:
    """The time is read from CloudWatch's responses and errors, but not from those of proxies."""
    assert service_time(response) == unix_time


@pytest.mark.parametrize(
    ("error", "may_be_stored"),
    [
        (botocore.ReadTimeoutError(endpoint_url="https://monitoring"), True),
        (botocore.ConnectionClosedError(endpoint_url="https://monitoring"), True),
        (ResponseParserError("no element found"), True),
        (ConnectionResetError(104, "reset"), True),
        (client_error("504", status=504), True),
        (client_error("502", status=502), True),
        (client_error("InternalFailure", status=500), False),
        (botocore.ConnectTimeoutError(endpoint_url="https://monitoring"), False),
        (botocore.EndpointConnectionError(endpoint_url="https://monitoring"), False),
        (ConnectionRefusedError(111, "refused"), False),
    ],
)
def test_lost_responses(error: Exception, *, may_be_stored: bool) -> None:
    """Only errors that follow a completely sent request leave open whether CloudWatch stored the data."""
    assert failure(error).may_be_stored is may_be_stored
