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


def operation_of(request: Request) -> str:
    """Return the name of the operation that a request calls.

    Raises :class:`ValidationError` if the request does not use the JSON protocol.
    """
    service, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
    if service != _SERVICE:
        message = "LocalCloudWatch only supports CloudWatch's JSON protocol. Use boto3 1.42.7 or later."
        raise ValidationError("UnsupportedProtocol", message, status=415)
    return operation


def uncompressed(body: bytes, content_encoding: str) -> bytes:
    """Decompress a gzip body. A body that is not encoded is returned unchanged.

    Raises :class:`ValidationError` if the encoding is not supported or the gzip data is invalid.
    """
    if content_encoding in ("", "identity"):
        return body
    if content_encoding != "gzip":
        message = f"The content encoding {content_encoding} is not supported. Use gzip."
        raise ValidationError("UnsupportedContentEncoding", message, status=415)
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error) as error:
        raise ValidationError("SerializationException", f"The body is not gzip: {error}") from error


def parameters_of(body: bytes) -> dict[str, Any]:
    """Parse the uncompressed body of a call. Raises :class:`ValidationError` if it is not a JSON object."""
    try:
        parameters = json.loads(body)
    except ValueError as error:
        raise ValidationError("SerializationException", f"The body is not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise ValidationError("SerializationException", "The body is not a JSON object.")
    return parameters


def response_of(result: Mapping[str, Any], status: int = 200) -> Response:
    """Encode an operation's result as a response."""
    text = json.dumps(result, default=datetime.timestamp)
    return Response(text, status, {"x-amzn-RequestId": _REQUEST_ID}, content_type=_CONTENT_TYPE)


def error_response(error: ValidationError) -> Response:
    """Encode an error as a response."""
    side = "Sender" if error.status < 500 else "Receiver"
    error_type = f"com.amazonaws.cloudwatch#{_ERROR_TYPES.get(error.code, error.code)}"
    response = response_of({"__type": error_type, "message": error.message}, error.status)
    response.headers["x-amzn-query-error"] = f"{error.code};{side}"
    return response
