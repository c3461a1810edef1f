"""Parse and answer the calls of AWS clients in two of CloudWatch's protocols: JSON, and the older query protocol.

The protocols are described at https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html and
https://smithy.io/2.0/aws/protocols/aws-query-protocol.html. JSON clients expect the query protocol's error codes in a
header: https://smithy.io/2.0/aws/protocols/aws-query-protocol.html#awsquerycompatible-trait. This module exists because
botocore implements only the client's side, and moto parses less strictly than CloudWatch.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat, starmap
from typing import Any, Final
from urllib.parse import parse_qsl
from xml.etree.ElementTree import Element, tostring

from werkzeug.wrappers import Request, Response

from otel_cloudwatch_flask.testing.request_rules import ValidationError

TARGET_PREFIX: Final = "GraniteServiceVersion20100801"
JSON_TYPE: Final = "application/x-amz-json-1.0"
_API_VERSION: Final = "2010-08-01"
_REQUEST_ID: Final = "00000000-0000-0000-0000-000000000000"
# Error codes that the two protocols name differently: query name to JSON name, from botocore's service model.
_JSON_ERROR_TYPES: Final = {
    "InvalidParameterValue": "InvalidParameterValueException",
    "InvalidParameterCombination": "InvalidParameterCombinationException",
    "MissingParameter": "MissingRequiredParameterException",
    "InternalServiceError": "InternalServiceFault",
}

# A form contains only strings, so its numbers and empty lists must be recognized by the names of the parameters.
_NUMBER: Final = re.compile(
    r"(?!.*\b(Dimensions|Entity)\.)"
    r"(.*\.)?(Value|SampleCount|Sum|Minimum|Maximum|StorageResolution|Period|(Values|Counts)\.member\.\d+)"
)
_LIST: Final = re.compile(
    r"(.*\.)?(MetricData|EntityMetricData|Dimensions|Values|Counts|Statistics|ExtendedStatistics)"
)


class UnreadableCallError(ValueError):
    """Raised if a request cannot be parsed. ``response`` is the error response to send."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.response = ValidationError(code, message, status)


@dataclass(frozen=True, slots=True)
class Call:
    """A client's call to an operation. With the query protocol (``is_query``), the response is XML instead of JSON."""

    operation: str
    parameters: dict[str, Any]
    is_query: bool = False

    def answer(self, result: Mapping[str, Any] | ValidationError) -> Response:
        """Encode the operation's result, or an error, as a response."""
        if isinstance(result, ValidationError):
            return self._error(result)
        if self.is_query:
            members = {f"{self.operation}Result": result, "ResponseMetadata": {"RequestId": _REQUEST_ID}}
            return _xml_response(200, f"{self.operation}Response", members)
        body = json.dumps(result, default=datetime.timestamp)
        return Response(body, headers={"x-amzn-RequestId": _REQUEST_ID}, content_type=JSON_TYPE)

    def _error(self, error: ValidationError) -> Response:
        side = "Sender" if error.status < 500 else "Receiver"
        if self.is_query:
            members = {"Type": side, "Code": error.code, "Message": error.message}
            return _xml_response(error.status, "ErrorResponse", {"Error": members, "RequestId": _REQUEST_ID})
        error_type = _JSON_ERROR_TYPES.get(error.code, error.code)
        body = json.dumps({"__type": f"com.amazonaws.cloudwatch#{error_type}", "message": error.message})
        headers = {"x-amzn-RequestId": _REQUEST_ID, "x-amzn-query-error": f"{error.code};{side}"}
        return Response(body, error.status, headers, content_type=JSON_TYPE)


def read_call(request: Request, body: bytes) -> Call | None:
    """Parse a call to CloudWatch from an uncompressed body. Returns ``None`` for any other request.

    Raises :class:`UnreadableCallError` if the call cannot be parsed.
    """
    prefix, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
    if prefix == TARGET_PREFIX:
        return Call(operation, _json_parameters(body))
    if request.mimetype == "application/x-www-form-urlencoded":
        parameters = _query_parameters(body)
        if parameters.pop("Version", None) == _API_VERSION:
            return Call(parameters.pop("Action", ""), parameters, is_query=True)
    if request.headers.get("Smithy-Protocol") or request.path.startswith(f"/service/{TARGET_PREFIX}/"):
        message = "LocalCloudWatch supports the protocols json and query, but not rpc-v2-cbor."
        raise UnreadableCallError("UnsupportedProtocol", message, status=415)
    return None


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


def _json_parameters(body: bytes) -> dict[str, Any]:
    try:
        parameters = json.loads(body or b"{}")
    except ValueError as error:
        raise UnreadableCallError("SerializationException", f"The body is not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise UnreadableCallError("SerializationException", "The body is not a JSON object.")
    return parameters


def _query_parameters(body: bytes) -> dict[str, Any]:
    """Convert form fields such as ``MetricData.member.1.MetricName=Orders`` to nested lists and mappings."""
    tree: dict[str, Any] = {}
    try:
        for key, text in parse_qsl(body.decode(), keep_blank_values=True):
            *parents, leaf = key.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = _leaf(key, text)
        return {name: _nested(branch) for name, branch in tree.items()}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UnreadableCallError("MalformedQueryString", "The form cannot be parsed.") from error


def _leaf(key: str, text: str) -> object:
    if not text and _LIST.fullmatch(key):
        return []
    if _NUMBER.fullmatch(key):
        with suppress(ValueError):  # the validation reports text that is not a number
            return int(text) if text.isdigit() else float(text)
    return text


def _nested(branch: Any) -> Any:
    if not isinstance(branch, dict):
        return branch
    if branch.keys() == {"member"}:
        members = branch["member"]
        return [_nested(members[number]) for number in sorted(members, key=int)]
    if branch.keys() == {"entry"}:
        return {entry["key"]: entry["value"] for entry in branch["entry"].values()}
    return {name: _nested(value) for name, value in branch.items()}


def _xml_response(status: int, root: str, body: Mapping[str, Any]) -> Response:
    element = _element(root, body)
    element.set("xmlns", f"http://monitoring.amazonaws.com/doc/{_API_VERSION}/")
    return Response(tostring(element), status, content_type="text/xml")


def _element(name: str, value: Any) -> Element:
    element = Element(name)
    if isinstance(value, (Mapping, list)):
        element.extend(starmap(_element, _children(name, value)))
    else:
        element.text = value.isoformat() if isinstance(value, datetime) else str(value)
    return element


def _children(name: str, value: Mapping[str, Any] | list[Any]) -> Iterable[tuple[str, Any]]:
    if isinstance(value, list):
        return zip(repeat("member"), value)
    if name != "ExtendedStatistics":
        return value.items()
    # The query protocol encodes each item of a map as an <entry>, because the keys are data.
    return (("entry", {"key": key, "value": member}) for key, member in value.items())
