"""The two protocols in which AWS clients call CloudWatch, read and answered: JSON, and the older query protocol.

https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html,
https://smithy.io/2.0/aws/protocols/aws-query-protocol.html. A client that chose JSON expects the error codes of the
query protocol in a header: https://smithy.io/2.0/aws/protocols/aws-query-protocol.html#awsquerycompatible-trait.
Neither botocore, which is a client, nor moto, which takes what CloudWatch refuses, reads requests as strictly.
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

from otel_cloudwatch_flask.testing.request_rules import Refusal

TARGET_PREFIX: Final = "GraniteServiceVersion20100801"
JSON_TYPE: Final = "application/x-amz-json-1.0"
_API_VERSION: Final = "2010-08-01"
_REQUEST_ID: Final = "00000000-0000-0000-0000-000000000000"
# Where JSON calls an error otherwise than the query protocol does, by botocore's service model.
_JSON_ERROR_TYPES: Final = {
    "InvalidParameterValue": "InvalidParameterValueException",
    "InvalidParameterCombination": "InvalidParameterCombinationException",
    "MissingParameter": "MissingRequiredParameterException",
    "InternalServiceError": "InternalServiceFault",
}

# In a form everything is text. Where CloudWatch expects a number, and where nothing stands for an empty list:
_NUMBER: Final = re.compile(
    r"(?!.*\b(Dimensions|Entity)\.)"
    r"(.*\.)?(Value|SampleCount|Sum|Minimum|Maximum|StorageResolution|Period|(Values|Counts)\.member\.\d+)"
)
_LIST: Final = re.compile(
    r"(.*\.)?(MetricData|EntityMetricData|Dimensions|Values|Counts|Statistics|ExtendedStatistics)"
)


class UnreadableCallError(ValueError):
    """A request that cannot be read; ``refusal`` is the answer to it."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.refusal = Refusal(code, message, status)


@dataclass(frozen=True, slots=True)
class Call:
    """An operation that a client asks for, in JSON or, with the query protocol, in a form that is answered in XML."""

    operation: str
    parameters: dict[str, Any]
    is_query: bool = False

    def answer(self, result: Mapping[str, Any] | Refusal) -> Response:
        """Write what the operation returns, or why it is refused."""
        if isinstance(result, Refusal):
            return self._refusal(result)
        if self.is_query:
            members = {f"{self.operation}Result": result, "ResponseMetadata": {"RequestId": _REQUEST_ID}}
            return _xml_response(200, f"{self.operation}Response", members)
        body = json.dumps(result, default=datetime.timestamp)
        return Response(body, headers={"x-amzn-RequestId": _REQUEST_ID}, content_type=JSON_TYPE)

    def _refusal(self, refusal: Refusal) -> Response:
        side = "Sender" if refusal.status < 500 else "Receiver"
        if self.is_query:
            error = {"Type": side, "Code": refusal.code, "Message": refusal.message}
            return _xml_response(refusal.status, "ErrorResponse", {"Error": error, "RequestId": _REQUEST_ID})
        error_type = _JSON_ERROR_TYPES.get(refusal.code, refusal.code)
        body = json.dumps({"__type": f"com.amazonaws.cloudwatch#{error_type}", "message": refusal.message})
        headers = {"x-amzn-RequestId": _REQUEST_ID, "x-amzn-query-error": f"{refusal.code};{side}"}
        return Response(body, refusal.status, headers, content_type=JSON_TYPE)


def read_call(request: Request, body: bytes) -> Call | None:
    """Read a call of CloudWatch from an uncompressed body; ``None`` if it is something else.

    Raise :class:`UnreadableCallError` if it cannot be read.
    """
    prefix, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
    if prefix == TARGET_PREFIX:
        return Call(operation, _json_parameters(body))
    if request.mimetype == "application/x-www-form-urlencoded":
        parameters = _query_parameters(body)
        if parameters.pop("Version", None) == _API_VERSION:
            return Call(parameters.pop("Action", ""), parameters, is_query=True)
    if request.headers.get("Smithy-Protocol") or request.path.startswith(f"/service/{TARGET_PREFIX}/"):
        message = "This CloudWatch speaks the protocols json and query, not rpc-v2-cbor."
        raise UnreadableCallError("UnsupportedProtocol", message, status=415)
    return None


def uncompressed(body: bytes, content_encoding: str) -> bytes:
    """Undo ``Content-Encoding``; CloudWatch knows gzip and no other."""
    if content_encoding in ("", "identity"):
        return body
    if content_encoding != "gzip":
        message = f"The content encoding {content_encoding} is not supported; write gzip."
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
    """One flat pair for each leaf, such as MetricData.member.1.Dimensions.member.1.Name=Page, as lists and mappings."""
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
        raise UnreadableCallError("MalformedQueryString", "The form cannot be read.") from error


def _leaf(key: str, text: str) -> object:
    if not text and _LIST.fullmatch(key):
        return []
    if _NUMBER.fullmatch(key):
        with suppress(ValueError):  # what is no number is left for the checks to refuse
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
    # Its keys are data: each pair is an entry of its own.
    return (("entry", {"key": key, "value": member}) for key, member in value.items())
