"""The two protocols in which AWS clients call CloudWatch, read and answered: JSON, and the older query protocol.

https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html,
https://smithy.io/2.0/aws/protocols/aws-query-protocol.html. A client that chose JSON expects the error codes of the
query protocol in a header: https://smithy.io/2.0/aws/protocols/aws-query-protocol.html#awsquerycompatible-trait.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

from otel_cloudwatch_flask.validation import Refusal

TARGET_PREFIX: Final = "GraniteServiceVersion20100801"
_API_VERSION: Final = "2010-08-01"
_XML_NAMESPACE: Final = f"http://monitoring.amazonaws.com/doc/{_API_VERSION}/"
_REQUEST_ID: Final = "00000000-0000-0000-0000-000000000000"
# Where JSON calls an error otherwise than the query protocol does, by botocore's service model.
_JSON_ERROR_TYPES: Final = {
    "InvalidParameterValue": "InvalidParameterValueException",
    "InvalidParameterCombination": "InvalidParameterCombinationException",
    "MissingParameter": "MissingRequiredParameterException",
    "InternalServiceError": "InternalServiceFault",
}


class UnreadableCallError(ValueError):
    """A request that cannot be read; ``refusal`` is the answer to it."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.refusal = Refusal(code, message, status)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class AwsProtocol(Protocol):
    """How an operation's parameters, its result and its errors are written."""

    def request_body(self, operation: str, parameters: Mapping[str, Any]) -> bytes:
        """Write a request."""

    def result(self, operation: str, result: Mapping[str, Any]) -> Answer:
        """Write what an operation returns."""

    def error(self, refusal: Refusal) -> Answer:
        """Write an error."""


@dataclass(frozen=True, slots=True)
class Call:
    """An operation that a client asks for, and the protocol it expects the answer in."""

    protocol: AwsProtocol
    operation: str
    parameters: dict[str, Any]


def read_call(headers: Mapping[str, str], path: str, body: bytes) -> Call | None:
    """Read a call of CloudWatch from an uncompressed body; ``None`` if it is something else.

    Raise :class:`UnreadableCallError` if it cannot be read.
    """
    prefix, _, operation = headers.get("X-Amz-Target", "").partition(".")
    if prefix == TARGET_PREFIX:
        return Call(JSON, operation, _json_parameters(body))
    if headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        parameters = _query_parameters(body)
        if parameters.get("Version") == _API_VERSION:
            operation = parameters.pop("Action", "")
            del parameters["Version"]
            return Call(QUERY, operation, parameters)
    if headers.get("Smithy-Protocol") or path.startswith(f"/service/{TARGET_PREFIX}/"):
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


class _JsonProtocol:
    content_type: Final = "application/x-amz-json-1.0"

    def request_body(self, operation: str, parameters: Mapping[str, Any]) -> bytes:  # noqa: ARG002 - a header names it
        return json.dumps(parameters).encode()

    def result(self, operation: str, result: Mapping[str, Any]) -> Answer:  # noqa: ARG002 - the client knows it
        body = json.dumps(result, default=datetime.timestamp).encode()
        return Answer(200, self.content_type, body, (("x-amzn-RequestId", _REQUEST_ID),))

    def error(self, refusal: Refusal) -> Answer:
        error_type = _JSON_ERROR_TYPES.get(refusal.code, refusal.code)
        body = {"__type": f"com.amazonaws.cloudwatch#{error_type}", "message": refusal.message}
        headers = (
            ("x-amzn-RequestId", _REQUEST_ID),
            ("x-amzn-query-error", f"{refusal.code};{_side_at_fault(refusal)}"),
        )
        return Answer(refusal.status, self.content_type, json.dumps(body).encode(), headers)


class _QueryProtocol:
    content_type: Final = "text/xml"

    def request_body(self, operation: str, parameters: Mapping[str, Any]) -> bytes:
        pairs = [("Action", operation), ("Version", _API_VERSION), *_flat("", parameters)]
        return urlencode(pairs).encode()

    def result(self, operation: str, result: Mapping[str, Any]) -> Answer:
        body = _xml({f"{operation}Result": result, "ResponseMetadata": {"RequestId": _REQUEST_ID}})
        return self._answer(200, f"{operation}Response", body)

    def error(self, refusal: Refusal) -> Answer:
        error = {"Type": _side_at_fault(refusal), "Code": refusal.code, "Message": refusal.message}
        return self._answer(refusal.status, "ErrorResponse", _xml({"Error": error, "RequestId": _REQUEST_ID}))

    def _answer(self, status: int, root: str, body: str) -> Answer:
        return Answer(status, self.content_type, f'<{root} xmlns="{_XML_NAMESPACE}">{body}</{root}>'.encode())


JSON: Final[AwsProtocol] = _JsonProtocol()
QUERY: Final[AwsProtocol] = _QueryProtocol()


def _side_at_fault(refusal: Refusal) -> str:
    return "Sender" if refusal.status < 500 else "Receiver"


def _json_parameters(body: bytes) -> dict[str, Any]:
    try:
        parameters = json.loads(body or b"{}")
    except ValueError as error:
        raise UnreadableCallError("SerializationException", f"The body is not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise UnreadableCallError("SerializationException", "The body is not a JSON object.")
    return parameters


# The query protocol writes one flat pair for each leaf: MetricData.member.1.Dimensions.member.1.Name=Page.

_NUMBERS: Final = frozenset(
    {"Value", "Values", "Counts", "SampleCount", "Sum", "Minimum", "Maximum", "StorageResolution", "Period"}
)
_LISTS: Final = frozenset(
    {"MetricData", "EntityMetricData", "Dimensions", "Values", "Counts", "Statistics", "ExtendedStatistics"}
)


def _query_parameters(body: bytes) -> dict[str, Any]:
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
    """A number or an empty list where CloudWatch expects one; a dimension's ``Value`` is text."""
    names = [part for part in key.split(".") if part != "member" and not part.isdigit()]
    if not text and names[-1] in _LISTS:
        return []
    if names[-1] not in _NUMBERS or {"Dimensions", "Entity"} & set(names):
        return text
    return _number(text)


def _number(text: str) -> object:
    """The number that the text is; what is none is left for the checks to refuse."""
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


def _nested(branch: Any) -> Any:
    if not isinstance(branch, dict):
        return branch
    if branch.keys() == {"member"}:
        return [_nested(item) for _, item in sorted(branch["member"].items(), key=lambda pair: int(pair[0]))]
    if branch.keys() == {"entry"}:
        return {entry["key"]: entry["value"] for entry in branch["entry"].values()}
    return {name: _nested(value) for name, value in branch.items()}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, member)
    elif isinstance(value, list):
        for number, item in enumerate(value, start=1):
            yield from _flat(f"{prefix}.member.{number}", item)
    else:
        yield prefix, str(value)


def _xml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(
            f"<{name}>{_xml_map(member) if name in _RESULT_MAPS else _xml(member)}</{name}>"
            for name, member in value.items()
        )
    if isinstance(value, list):
        return "".join(f"<member>{_xml(item)}</member>" for item in value)
    return escape(value.isoformat() if isinstance(value, datetime) else str(value))


_RESULT_MAPS: Final = frozenset({"ExtendedStatistics"})
"""Members of a result whose keys are data: each pair is an entry of its own."""


def _xml_map(pairs: Mapping[str, Any]) -> str:
    return "".join(
        f"<entry><key>{escape(key)}</key><value>{_xml(value)}</value></entry>" for key, value in pairs.items()
    )
