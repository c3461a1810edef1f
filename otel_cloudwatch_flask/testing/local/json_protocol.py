"""Parse and answer calls from AWS clients in CloudWatch's JSON protocol, which all supported versions of boto3 use.

The protocol is described at https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html. Clients expect error codes
in a header: https://smithy.io/2.0/aws/protocols/aws-query-protocol.html#awsquerycompatible-trait. This module exists
because botocore implements only the client's side.
"""

import gzip
import json
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from werkzeug.wrappers import Request, Response

from otel_cloudwatch_flask.testing.request_rules import ValidationError

_SERVICE: Final = "GraniteServiceVersion20100801"
_CONTENT_TYPE: Final = "application/x-amz-json-1.0"
_REQUEST_ID: Final = "00000000-0000-0000-0000-000000000000"
_ERROR_TYPES: Final = {
    "InvalidParameterValue": "InvalidParameterValueException",
    "InvalidParameterCombination": "InvalidParameterCombinationException",
    "MissingParameter": "MissingRequiredParameterException",
    "InternalServiceError": "InternalServiceFault",
}
"""Maps error codes to the names of their exceptions in botocore's service model, if they differ."""


class UnreadableCallError(ValueError):
    """Raised if a request cannot be parsed. ``response`` is the error response to send."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.response = ValidationError(code, message, status)


def operation_of(request: Request) -> str:
    """Return the name of the operation that a request calls.

    Raises :class:`UnreadableCallError` if the request does not use the JSON protocol.
    """
    service, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
    if service != _SERVICE:
        message = "LocalCloudWatch only supports CloudWatch's JSON protocol. Use boto3 1.42.7 or later."
        raise UnreadableCallError("UnsupportedProtocol", message, status=415)
    return operation


def uncompressed(body: bytes, content_encoding: str) -> bytes:
    """Decompress a gzip body. A body that is not encoded is returned unchanged.

    Raises :class:`UnreadableCallError` if the encoding is not supported or the gzip data is invalid.
    """
    if content_encoding in ("", "identity"):
        return body
    if content_encoding != "gzip":
        message = f"The content encoding {content_encoding} is not supported. Use gzip."
        raise UnreadableCallError("UnsupportedContentEncoding", message, status=415)
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableCallError("SerializationException", f"The body is not gzip: {error}") from error


def parameters_of(body: bytes) -> dict[str, Any]:
    """Parse the uncompressed body of a call. Raises :class:`UnreadableCallError` if it is not a JSON object."""
    try:
        parameters = json.loads(body)
    except ValueError as error:
        raise UnreadableCallError("SerializationException", f"The body is not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise UnreadableCallError("SerializationException", "The body is not a JSON object.")
    return parameters


def response_of(result: Mapping[str, Any] | ValidationError) -> Response:
    """Encode an operation's result, or an error, as a response."""
    if isinstance(result, ValidationError):
        side = "Sender" if result.status < 500 else "Receiver"
        error_type = f"com.amazonaws.cloudwatch#{_ERROR_TYPES.get(result.code, result.code)}"
        response = _response({"__type": error_type, "message": result.message}, result.status)
        response.headers["x-amzn-query-error"] = f"{result.code};{side}"
        return response
    return _response(result)


def _response(body: Mapping[str, Any], status: int = 200) -> Response:
    text = json.dumps(body, default=datetime.timestamp)
    return Response(text, status, {"x-amzn-RequestId": _REQUEST_ID}, content_type=_CONTENT_TYPE)
