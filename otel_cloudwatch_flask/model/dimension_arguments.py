"""Parse dimensions given as a mapping, or as a list of name-value pairs as in CloudWatch's API."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import Enum
from typing import TypeAlias

from otel_cloudwatch_flask.limits import MAX_DIMENSION_NAME_LENGTH, MAX_DIMENSIONS
from otel_cloudwatch_flask.runtime.safe_text import plain_text, safe_repr

Dimensions: TypeAlias = "Mapping[str, object] | Iterable[Mapping[str, object]] | None"

_REMEDY = 'write {"Route": "/cart"} or [{"Name": "Route", "Value": "/cart"}]'


def dimension_texts(dimensions: Dimensions) -> dict[str, str]:
    """Parse a mapping or a list of name-value pairs, and map the name of each dimension to its value as a string.

    Raises ``ValueError`` if ``dimensions`` has neither of these forms, if a name is invalid or repeated, if a value is
    not a string, int, float, boolean, or enum member with such a value, or if there are more than 30 dimensions. The
    message says how to correct the dimensions.

    >>> dimension_texts([{"Name": "StatusCode", "Value": 200}])
    {'StatusCode': '200'}
    >>> dimension_texts({"cached": True})
    {'cached': 'true'}
    """
    if not dimensions:
        return {}
    texts: dict[str, str] = {}
    for name, value in _pairs(dimensions):
        if (checked_name := _name(name)) in texts:
            raise ValueError(f"dimension {name!r} is given more than once; remove the duplicate")
        texts[checked_name] = _text(name, value)
    if len(texts) > MAX_DIMENSIONS:
        raise ValueError(f"{len(texts)} dimensions are given; use at most {MAX_DIMENSIONS}")
    return texts


def _pairs(dimensions: object) -> Iterable[tuple[object, object]]:
    if isinstance(dimensions, Mapping):
        return dimensions.items()
    if isinstance(dimensions, Iterable) and not isinstance(dimensions, (str, bytes)):
        return [_pair(item) for item in dimensions]
    raise ValueError(f"dimensions {safe_repr(dimensions)} are neither a mapping nor a list of pairs: {_REMEDY}")


def _pair(item: object) -> tuple[object, object]:
    if isinstance(item, Mapping) and item.keys() == {"Name", "Value"}:
        return item["Name"], item["Value"]
    raise ValueError(f"dimension {safe_repr(item)} is not a name-value pair: {_REMEDY}")


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"dimension name {safe_repr(name)} is blank or not a string: {_REMEDY}")
    if len(name) > MAX_DIMENSION_NAME_LENGTH:
        raise ValueError(
            f"dimension name {name[:20]!r}... has {len(name)} characters; use at most {MAX_DIMENSION_NAME_LENGTH}"
        )
    return plain_text(name)


def _text(name: object, value: object) -> str:
    if isinstance(value, Enum):
        value = value.value
    # Check for booleans before numbers, because a bool is an int.
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        with suppress(ValueError):  # Python refuses to convert an int of more than 4,300 digits to a string.
            return plain_text(str(value))
    raise ValueError(f"dimension {name!r} has the value {safe_repr(value)}: pass a string, a number or a boolean")
