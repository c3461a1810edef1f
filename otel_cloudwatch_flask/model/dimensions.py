"""Convert attributes and names to dimensions, metric names and namespaces that CloudWatch accepts.

Every attribute can be converted, so none causes a data point to be lost. A metric is identified by its converted name
and dimensions, so changing the following conversions would be a breaking change:

* A value that is not a string becomes JSON: ``True`` becomes ``true``, and a list becomes a JSON array. Bytes become
  Base64.
* An empty string, or ``None``, becomes ``(empty)``.
* Characters other than printable ASCII are percent-encoded as UTF-8, as in a URL. So are the spaces of a string that
  contains only spaces, and a colon at the beginning of a dimension's name.
* In a string with such characters, ``%`` is encoded too. A string that equals the encoded form of another string is
  encoded again, and the string ``(empty)`` is encoded. Distinct strings therefore remain distinct.
* A string that is too long is truncated, and ends in ``~`` and eight hexadecimal digits of its hash.

Namespaces are not encoded: each character that CloudWatch does not accept in a namespace becomes ``_``.
"""

import base64
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import unquote_to_bytes

from otel_cloudwatch_flask.limits import (
    MAX_DIMENSION_NAME_LENGTH,
    MAX_DIMENSION_VALUE_LENGTH,
    MAX_DIMENSIONS,
    MAX_METRIC_NAME_LENGTH,
    MAX_NAMESPACE_LENGTH,
    RESERVED_NAMESPACE_PREFIX,
)
from otel_cloudwatch_flask.model.datum import Dimensions
from otel_cloudwatch_flask.runtime.safe_text import safe_repr

EMPTY: Final = "(empty)"

# CloudWatch refuses strings that match one of the first two alternatives. The third encodes "(empty)", which could
# otherwise not be distinguished from an empty string.
_REFUSED: Final = r"[^\x20-\x7e]|\A +\Z|\A\((?=empty\)\Z)"
_REFUSED_IN_DIMENSION_NAMES: Final = r"\A:|" + _REFUSED
_NOT_IN_NAMESPACES: Final = re.compile(r"[^0-9A-Za-z._/#: -]")
_DIGEST_LENGTH: Final = 8


def dimensions(attributes: Mapping[str, object]) -> Dimensions:
    """Convert attributes to dimensions, sorted by name.

    >>> dimensions({"http.route": "/", "cached": True})
    (('cached', 'true'), ('http.route', '/'))
    """
    return tuple(sorted((dimension_name(key), dimension_value(value)) for key, value in attributes.items()))


def properties(attributes: Mapping[str, object]) -> Dimensions:
    """Convert attributes to properties of EMF documents, sorted by name.

    Unlike dimensions, properties may contain any characters. Values that are too long are shortened.

    >>> properties({"user": "Zoë", "items": [1, 2]})
    (('items', '[1, 2]'), ('user', 'Zoë'))
    """
    longest = MAX_DIMENSION_VALUE_LENGTH
    return tuple(sorted((key, shortened(text_of(value), longest)) for key, value in attributes.items()))


def text_of(value: object) -> str:
    """Return the text that OpenTelemetry defines for an attribute's value.

    https://opentelemetry.io/docs/specs/otel/common/#anyvalue-representation-for-non-otlp-protocols
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return "" if value is None else _as_json(value)


def within_limit(names: Collection[str], preferred: Collection[str]) -> frozenset[str]:
    """Select at most 30 ``names``: first the ``preferred`` ones, then the others, both in alphabetical order."""
    ordered = sorted(names, key=lambda name: (name not in preferred, name))
    return frozenset(ordered[:MAX_DIMENSIONS])


def dimension_name(key: str) -> str:
    """Convert the key of an attribute to the name of a dimension.

    >>> dimension_name(":method")
    '%3Amethod'
    """
    return _acceptable(key, MAX_DIMENSION_NAME_LENGTH, _REFUSED_IN_DIMENSION_NAMES)


def dimension_value(value: object) -> str:
    """Convert the value of an attribute to the value of a dimension.

    >>> dimension_value("Zürich"), dimension_value(["a", "b"]), dimension_value("")
    ('Z%C3%BCrich', '["a", "b"]', '(empty)')
    """
    return _acceptable(text_of(value), MAX_DIMENSION_VALUE_LENGTH)


def metric_name(name: str) -> str:
    """Convert the name of an instrument, or a name passed to ``add_metric``, to the name of a CloudWatch metric.

    CloudWatch alarms accept only names in printable ASCII: https://github.com/hashicorp/terraform/issues/29681

    >>> metric_name("Request Count"), metric_name("Größe")
    ('Request Count', 'Gr%C3%B6%C3%9Fe')
    """
    return _acceptable(name, MAX_METRIC_NAME_LENGTH)


def namespace_of(service_name: str) -> str:
    """Derive the default namespace of a service from its name.

    >>> namespace_of("shop"), namespace_of("AWS/shop"), namespace_of("Bücher")
    ('shop', '_AWS/shop', 'B_cher')
    """
    name = _NOT_IN_NAMESPACES.sub("_", service_name.strip()) or "unknown_service"
    if name.startswith((":", RESERVED_NAMESPACE_PREFIX)):
        name = "_" + name
    return shortened(name, MAX_NAMESPACE_LENGTH, service_name)


def _as_json(value: object) -> str:
    # In a list or mapping, a value that JSON cannot represent, such as a UUID, becomes a JSON string. On its own, it
    # becomes text without quotes.
    convert_element = text_of if isinstance(value, (list, tuple, dict)) else None
    with suppress(TypeError, ValueError):
        return json.dumps(value, ensure_ascii=False, default=convert_element)
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - the boundary to a program's own objects
        # Python refuses to convert an int of more than 4,300 digits to decimal, but not to hexadecimal.
        return hex(value) if isinstance(value, int) else safe_repr(value)


def _acceptable(text: str, max_length: int, refused: str = _REFUSED) -> str:
    if not text:
        return EMPTY
    must_be_encoded = re.search(refused, text) or _looks_encoded(text, refused)
    return shortened(_encoded(text, refused) if must_be_encoded else text, max_length, text)


def _encoded(text: str, refused: str) -> str:
    return re.sub("%|" + refused, _percent_encoded, text)


def _percent_encoded(match: re.Match[str]) -> str:
    # An attribute may contain a lone surrogate, which strict UTF-8 cannot encode.
    return "".join(f"%{byte:02X}" for byte in match.group().encode("utf-8", "surrogatepass"))


def _looks_encoded(text: str, refused: str) -> bool:
    """Return whether a string of printable ASCII equals the encoded form of another string.

    >>> _looks_encoded("Z%C3%BCrich", _REFUSED), _looks_encoded("/a%20b", _REFUSED)
    (True, False)
    """
    if "%" not in text:
        return False
    try:
        decoded = unquote_to_bytes(text).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return _encoded(decoded, refused) == text


def shortened(text: str, max_length: int, original: str = "") -> str:
    """Return ``text`` or, if it is too long, its beginning, ``~`` and eight hexadecimal digits of a hash.

    The hash distinguishes long strings with the same beginning.

    :param original: the string to hash. Default: ``text``.
    """
    if len(text) <= max_length:
        return text
    digest = hashlib.sha256((original or text).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    return f"{text[: max_length - _DIGEST_LENGTH - 1]}~{digest}"
