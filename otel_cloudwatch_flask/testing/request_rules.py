"""Validate PutMetricData requests as CloudWatch does. One invalid datum makes CloudWatch refuse the entire request.

The rules come from
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html and
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html. If a rule is
ambiguous, the stricter interpretation applies. boto3 checks little more than types, and moto accepts nearly
everything, so :class:`otel_cloudwatch_flask.testing.fake.FakeCloudWatch` and
:class:`otel_cloudwatch_flask.testing.local.server.LocalCloudWatch` both use this module.
"""

import json
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import Any, Final, TypeAlias

from otel_cloudwatch_flask import limits
from otel_cloudwatch_flask.model.units import CLOUDWATCH_UNITS

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
_MAX_ENTITIES: Final = 2
_VALUE_FORMS: Final = ("Value", "Values", "StatisticValues")
_MAX_ERRORS_LISTED: Final = 10


class ValidationError(Exception):
    """Raised if CloudWatch would refuse a request. Contains the code, message and HTTP status of its response."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


def validation_error(
    request: Mapping[str, Any], *, size_bytes: int | None = None, now: float
) -> ValidationError | None:
    """Return the error that CloudWatch would return for a request, or ``None`` if it would accept the request.

    The message has one line for each violation, up to 10 lines. The code belongs to the first violation.

    :param request: the request in boto3's form. Timestamps may be datetimes, Unix seconds or ISO 8601 strings.
    :param size_bytes: length of the uncompressed body. Default: the length is not checked.
    :param now: current time in Unix seconds.

    >>> request = {"Namespace": "Shop", "MetricData": [{"MetricName": "Orders", "Value": float("nan")}]}
    >>> validation_error(request, now=0).message
    'The value NaN for parameter MetricData.member.1.Value is invalid.'
    """
    if size_bytes is not None and size_bytes > limits.MAX_REQUEST_BYTES:
        message = f"The request has {size_bytes} bytes; at most {limits.MAX_REQUEST_BYTES} are allowed."
        return ValidationError("RequestEntityTooLarge", message, status=413)
    errors = list(islice(_request_errors(request, now), _MAX_ERRORS_LISTED))
    return ValidationError(errors[0].code, "\n".join(error.message for error in errors)) if errors else None


def unix_time(timestamp: Any) -> float | None:
    """Convert a timestamp to Unix seconds, or return ``None`` if it is invalid. Naive times are UTC, as in botocore.

    NaN and infinity are invalid.

    >>> unix_time("1970-01-01T00:01:00Z")
    60.0
    """
    try:
        if isinstance(timestamp, str):
            timestamp = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
        if isinstance(timestamp, datetime):
            return (timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=timezone.utc)).timestamp()
        seconds = math.nan if isinstance(timestamp, bool) else float(timestamp)
    except (ValueError, TypeError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def datums_of(request: Mapping[str, Any]) -> Iterator[Any]:
    """Yield each datum in a request, including datums with an entity."""
    for part in (request, *_sequence(request.get("EntityMetricData"))):
        if isinstance(part, Mapping):
            yield from _sequence(part.get("MetricData"))


def is_acceptable_number(value: object) -> bool:
    """Return whether ``value`` is an int or float (not a bool) that is 0 or has a magnitude from 2^-360 to 2^360."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return value == 0 or limits.MIN_MAGNITUDE <= abs(value) <= limits.MAX_MAGNITUDE


# A malformed part of a request must not keep the rules for the other parts from running.
def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


# These messages use CloudWatch's wording where it is known.


def _invalid(where: str, value: object) -> ValidationError:
    text = json.dumps(value, default=str).strip('"')[:100]
    return ValidationError("InvalidParameterValue", f"The value {text} for parameter {where} is invalid.")


def _must(where: str, what: str) -> ValidationError:
    return ValidationError("InvalidParameterValue", f"The parameter {where} must {what}.")


def _missing(where: str) -> ValidationError:
    return ValidationError("MissingParameter", f"The parameter {where} is required.")


def _too_many(where: str, most: int) -> ValidationError:
    return ValidationError("InvalidParameterValue", f"The collection {where} must not have a size greater than {most}.")


# A rule yields the violations of one value. Its first argument is the parameter's path, which the messages contain.

_Rule: TypeAlias = Callable[[str, object], Iterator[ValidationError]]


def _anything(_where: str, _value: object) -> Iterator[ValidationError]:
    return iter(())


def _structure_errors(
    where: str, value: object, *, rules: Mapping[str, _Rule], required: Collection[str] = ()
) -> Iterator[ValidationError]:
    """Check a structure's members. Unknown members and ``None`` are errors because boto3 refuses them."""
    if not isinstance(value, Mapping):
        yield _invalid(where, value)
        return
    for member in value:
        if member not in rules:
            yield ValidationError("ValidationError", f"The parameter {_inside(where, member)} is unknown.")
    for member, rule in rules.items():
        if value.get(member) is not None:
            yield from rule(_inside(where, member), value[member])
        elif member in required:
            yield _missing(_inside(where, member))
        elif member in value:
            yield _invalid(_inside(where, member), None)


def _inside(where: str, member: str) -> str:
    return f"{where}.{member}" if where else member


def _list_errors(where: str, value: object, *, item: _Rule, most: int = sys.maxsize) -> Iterator[ValidationError]:
    if not isinstance(value, (list, tuple)):
        yield _invalid(where, value)
        return
    if len(value) > most:
        yield _too_many(where, most)
    for number, each in enumerate(value, start=1):
        yield from item(f"{where}.member.{number}", each)


def _text_errors(where: str, text: object, *, longest: int) -> Iterator[ValidationError]:
    if not isinstance(text, str):
        yield _invalid(where, text)
    elif not text:
        yield _must(where, "be longer than 0 characters")
    elif len(text) > longest:
        yield _must(where, f"be shorter than {longest + 1} characters")


def _ascii_text_errors(where: str, text: object, *, longest: int) -> Iterator[ValidationError]:
    yield from _text_errors(where, text, longest=longest)
    if not isinstance(text, str) or not text:
        return
    if not (text.isascii() and text.isprintable()):
        yield _must(where, "contain only printable ASCII characters")
    elif text.isspace():
        yield _must(where, "contain at least one non-whitespace character")


def _number_errors(where: str, value: object) -> Iterator[ValidationError]:
    if not is_acceptable_number(value):
        yield _invalid(where, value)


def _positive_number_errors(where: str, value: object) -> Iterator[ValidationError]:
    yield from _number_errors(where, value)
    if isinstance(value, (int, float)) and value <= 0:
        yield _must(where, "be greater than 0")


# A datum.


def _datum_errors(where: str, datum: object, *, rules: Mapping[str, _Rule]) -> Iterator[ValidationError]:
    if isinstance(datum, Mapping):
        yield from _form_errors(where, datum)
    yield from _structure_errors(where, datum, rules=rules, required=("MetricName",))


def _form_errors(where: str, datum: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Check that a datum has exactly one of ``Value``, ``Values`` and ``StatisticValues``.

    ``Counts`` requires ``Values`` of the same length.
    """
    forms = [f"{where}.{form}" for form in _VALUE_FORMS if datum.get(form) is not None]
    if not forms:
        yield _missing(f"{where}.Value")
    elif len(forms) > 1:
        message = f"The parameters {forms[0]} and {forms[1]} are mutually exclusive and you have specified both."
        yield ValidationError("InvalidParameterCombination", message)
    if datum.get("Counts") is not None:
        yield from _size_errors(where, datum.get("Values"), datum["Counts"])


def _size_errors(where: str, values: object, counts: object) -> Iterator[ValidationError]:
    if values is None:
        yield _missing(f"{where}.Values")
    elif len(_sequence(values)) != len(_sequence(counts)):
        message = f"The parameters {where}.Values and {where}.Counts must be of the same size."
        yield ValidationError("InvalidParameterValue", message)


def _values_errors(where: str, values: object) -> Iterator[ValidationError]:
    yield from _list_errors(where, values, item=_number_errors, most=limits.MAX_VALUES_PER_DATUM)
    if values in ([], ()):
        yield _must(where, "not be empty")


def _statistics_errors(where: str, statistics: Any) -> Iterator[ValidationError]:
    errors = list(_structure_errors(where, statistics, rules=_STATISTICS, required=_STATISTICS))
    yield from errors
    if not errors and statistics["Minimum"] > statistics["Maximum"]:
        yield _must(f"{where}.Maximum", f"not be less than {where}.Minimum")


def _unit_errors(where: str, unit: object) -> Iterator[ValidationError]:
    if unit not in CLOUDWATCH_UNITS:
        yield _must(where, f"be a value in the set [ {', '.join(CLOUDWATCH_UNITS)} ]")


def _resolution_errors(where: str, resolution: object) -> Iterator[ValidationError]:
    if type(resolution) is not int or resolution not in limits.STORAGE_RESOLUTIONS:
        yield _must(where, f"be a value in the set [ {', '.join(map(str, limits.STORAGE_RESOLUTIONS))} ]")


def _timestamp_errors(where: str, timestamp: object, *, now: float) -> Iterator[ValidationError]:
    moment = unix_time(timestamp)
    if moment is None:
        yield _invalid(where, timestamp)
    elif moment < now - limits.MAX_AGE_SECONDS:
        yield _must(where, "specify a time within the past two weeks")
    elif moment > now + limits.MAX_AHEAD_SECONDS:
        yield _must(where, "specify a time no more than two hours in the future")


def _dimensions_errors(where: str, dimensions: Any) -> Iterator[ValidationError]:
    dimension = partial(_structure_errors, rules=_DIMENSION, required=_DIMENSION)
    errors = list(_list_errors(where, dimensions, item=dimension, most=limits.MAX_DIMENSIONS))
    yield from errors
    names = [] if errors else [each["Name"] for each in dimensions]
    for number, name in enumerate(names, start=1):
        if name in names[: number - 1]:
            yield _must(f"{where}.member.{number}.Name", "not be the name of another dimension of the metric")


def _dimension_name_errors(where: str, name: object) -> Iterator[ValidationError]:
    yield from _ascii_text_errors(where, name, longest=limits.MAX_DIMENSION_NAME_LENGTH)
    if isinstance(name, str) and name.startswith(":"):
        yield _invalid(where, name)


_DIMENSION: Final[Mapping[str, _Rule]] = {
    "Name": _dimension_name_errors,
    "Value": partial(_ascii_text_errors, longest=limits.MAX_DIMENSION_VALUE_LENGTH),
}
_STATISTICS: Final[Mapping[str, _Rule]] = {
    "SampleCount": _positive_number_errors,
    "Sum": _number_errors,
    "Minimum": _number_errors,
    "Maximum": _number_errors,
}
_DATUM: Final[Mapping[str, _Rule]] = {
    "MetricName": partial(_text_errors, longest=limits.MAX_METRIC_NAME_LENGTH),
    "Dimensions": _dimensions_errors,
    "Value": _number_errors,
    "Values": _values_errors,
    "Counts": partial(_list_errors, item=_positive_number_errors),
    "StatisticValues": _statistics_errors,
    "Unit": _unit_errors,
    "StorageResolution": _resolution_errors,
}


# The request.


def _request_errors(request: Mapping[str, Any], now: float) -> Iterator[ValidationError]:
    datum = partial(_datum_errors, rules={**_DATUM, "Timestamp": partial(_timestamp_errors, now=now)})
    datums = partial(_list_errors, item=datum)
    entity = partial(_structure_errors, rules={"Entity": _anything, "MetricData": datums})
    rules: Mapping[str, _Rule] = {
        "Namespace": _namespace_errors,
        "EntityMetricData": partial(_list_errors, item=entity, most=_MAX_ENTITIES),
        "MetricData": datums,
        "StrictEntityValidation": _anything,
    }
    # The limit applies to the datums with and without entities together.
    number_of_datums = sum(1 for _ in datums_of(request))
    if number_of_datums > limits.MAX_DATUMS_PER_REQUEST:
        yield _too_many("MetricData", limits.MAX_DATUMS_PER_REQUEST)
    yield from _structure_errors("", request, rules=rules, required=("Namespace",))
    if not number_of_datums:
        yield _missing("MetricData")


def _namespace_errors(where: str, namespace: object) -> Iterator[ValidationError]:
    yield from _ascii_text_errors(where, namespace, longest=limits.MAX_NAMESPACE_LENGTH)
    if isinstance(namespace, str) and namespace.startswith((":", limits.RESERVED_NAMESPACE_PREFIX)):
        yield _invalid(where, namespace)
