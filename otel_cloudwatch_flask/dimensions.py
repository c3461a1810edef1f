"""Attributes as dimensions that CloudWatch accepts: never dropped with their datum, and never fatal.

The rules, which are part of the package's contract because they decide how a metric is called:

* values become text as JSON writes them: ``True`` is ``true``, ``200`` is ``200``, a list is a JSON array;
* an empty name or value is ``(empty)``;
* characters other than printable ASCII are percent-encoded as UTF-8, like in a URL, and so are blanks where there is
  nothing but blanks, and a colon at the beginning of a name;
* what is too long is cut, and ends in ``~`` and eight hexadecimal digits that tell it from others cut alike;
* if two names become the same, the one that comes later in sorted order gets such an ending too.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Final

from otel_cloudwatch_flask.datum import Dimensions
from otel_cloudwatch_flask.foreign_text import shown
from otel_cloudwatch_flask.limits import (
    MAX_DIMENSION_NAME_LENGTH,
    MAX_DIMENSION_VALUE_LENGTH,
    MAX_DIMENSIONS,
    MAX_METRIC_NAME_LENGTH,
    MAX_NAMESPACE_LENGTH,
    RESERVED_NAMESPACE_PREFIX,
)

EMPTY: Final = "(empty)"

_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NOT_IN_NAMESPACES: Final = re.compile(r"[^0-9A-Za-z._/#: -]")
_DIGEST_LENGTH: Final = 8


def dimensions(attributes: Mapping[str, object]) -> Dimensions:
    """All of these attributes as dimensions, sorted by name.

    >>> dimensions({"http.route": "/", "cached": True})
    (('cached', 'true'), ('http.route', '/'))
    """
    named: dict[str, str] = {}
    for key in sorted(attributes):
        name = dimension_name(key)
        if name in named:
            name = _shortened(name, key, MAX_DIMENSION_NAME_LENGTH)
        named[name] = dimension_value(attributes[key])
    return tuple(sorted(named.items()))


def within_limit(names: Collection[str], preferred: Collection[str]) -> frozenset[str]:
    """The names that stay when there are more than a metric may have: preferred ones first, then in sorted order."""
    ordered = sorted(names, key=lambda name: (name not in preferred, name))
    return frozenset(ordered[:MAX_DIMENSIONS])


def dimension_name(key: str) -> str:
    """The name of the dimension for an attribute's key.

    >>> dimension_name(":method")
    '%3Amethod'
    """
    colon_safe = "%3A" + key[1:] if key.startswith(":") else key
    return _acceptable(colon_safe, MAX_DIMENSION_NAME_LENGTH)


def dimension_value(value: object) -> str:
    """The value of the dimension for an attribute's value.

    >>> dimension_value("Zürich"), dimension_value(["a", "b"]), dimension_value("")
    ('Z%C3%BCrich', '["a", "b"]', '(empty)')
    """
    text = value if isinstance(value, str) else _as_json(value)
    return _acceptable(text, MAX_DIMENSION_VALUE_LENGTH)


def metric_name(name: str) -> str:
    """The name of a CloudWatch metric, which may hold any character that is no control character."""
    printable = _CONTROL.sub(_percent_encoded, name)
    if not printable or printable.isspace():
        return EMPTY
    return _shortened_if_needed(printable, name, MAX_METRIC_NAME_LENGTH)


def namespace_of(service_name: str) -> str:
    """The namespace for a service that was not given one: its name, as far as it may be one.

    >>> namespace_of("shop"), namespace_of("AWS/shop"), namespace_of("Bücher")
    ('shop', '_AWS/shop', 'B_cher')
    """
    name = _NOT_IN_NAMESPACES.sub("_", service_name.strip()) or "unknown_service"
    if name.startswith((":", RESERVED_NAMESPACE_PREFIX)):
        name = "_" + name
    return _shortened_if_needed(name, service_name, MAX_NAMESPACE_LENGTH)


def _as_json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return _as_text(value)


def _as_text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - the boundary to a program's own objects
        # Python writes no int of thousands of decimal digits.
        return hex(value) if isinstance(value, int) else shown(value)


def _acceptable(text: str, max_length: int) -> str:
    if not text:
        return EMPTY
    if text.isspace():
        return _shortened_if_needed("".join(f"%{byte:02X}" for byte in text.encode()), text, max_length)
    return _shortened_if_needed(_UNPRINTABLE.sub(_percent_encoded, text), text, max_length)


def _percent_encoded(match: re.Match[str]) -> str:
    # Half a surrogate pair is no character, but may stand in an attribute all the same.
    return "".join(f"%{byte:02X}" for byte in match.group().encode("utf-8", "surrogatepass"))


def _shortened_if_needed(text: str, original: str, max_length: int) -> str:
    return text if len(text) <= max_length else _shortened(text, original, max_length)


def _shortened(text: str, original: str, max_length: int) -> str:
    digest = hashlib.sha256(original.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    return f"{text[: max_length - _DIGEST_LENGTH - 1]}~{digest}"
