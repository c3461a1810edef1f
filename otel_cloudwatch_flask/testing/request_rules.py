"""Would CloudWatch accept this PutMetricData request? One bad datum and it refuses the whole of it.

The rules are those of
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html and
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html, in the smaller reading where the
pages leave one. boto3 itself checks types and little else, and local stand-ins for CloudWatch take nearly everything,
so this is what :class:`otel_cloudwatch_flask.testing.fake.FakeCloudWatch` and
:class:`otel_cloudwatch_flask.testing.local.server.LocalCloudWatch` put in front.
"""

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import Any, Final, TypeAlias, TypeGuard

from otel_cloudwatch_flask import limits
from otel_cloudwatch_flask.model.units import CLOUDWATCH_UNITS

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
_MAX_ENTITIES: Final = 2
_VALUE_FORMS: Final = ("Value", "Values", "StatisticValues")
_MAX_FAULTS_TOLD: Final = 10


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not accepted: CloudWatch's error code, a line for each fault, and the HTTP status."""

    code: str
    message: str
    status: int = 400


def refusal(request: Mapping[str, Any], *, size_bytes: int | None = None, now: float) -> Refusal | None:
    """Judge a request in boto3's shape; ``None`` means that CloudWatch accepts it.

    ``size_bytes`` is the length of the body before compression and ``now`` a Unix time in seconds. Timestamps may be
    datetimes, Unix seconds or ISO 8601 strings. As with the service, the message names each parameter at fault, and
    the code is the first one's.

    >>> refusal({"Namespace": "Shop", "MetricData": [{"MetricName": "Orders", "Value": float("nan")}]}, now=0).message
    'The value NaN for parameter MetricData.member.1.Value is invalid.'
    """
    if size_bytes is not None and size_bytes > limits.MAX_REQUEST_BYTES:
        message = f"The request has {size_bytes} bytes; at most {limits.MAX_REQUEST_BYTES} are allowed."
        return Refusal("RequestEntityTooLarge", message, status=413)
    faults = list(islice(_request_faults(request, now), _MAX_FAULTS_TOLD))
    return Refusal(faults[0].code, "\n".join(fault.message for fault in faults)) if faults else None


def unix_time(timestamp: object) -> float | None:
    """Read a timestamp as botocore does (a naive datetime is local time); ``None`` if it is none.

    >>> unix_time("1970-01-01T00:01:00Z")
    60.0
    """
    try:
        return None if isinstance(timestamp, bool) else _seconds_of(timestamp)
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds_of(timestamp: Any) -> float:
    if isinstance(timestamp, str):
        moment = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
        timestamp = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return timestamp.timestamp() if isinstance(timestamp, datetime) else float(timestamp)


def datums_of(request: Mapping[str, Any]) -> Iterator[Any]:
    """Each datum of a request, those of its entities included."""
    for part in (request, *_sequence(request.get("EntityMetricData"))):
        yield from _sequence(_mapping(part).get("MetricData"))


def is_acceptable_number(value: object) -> TypeGuard[float]:
    """A real number, 0 or of a magnitude from 2^-360 to 2^360; so neither NaN nor infinite, and no bool."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return value == 0 or limits.MIN_MAGNITUDE <= abs(value) <= limits.MAX_MAGNITUDE


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# What can be wrong, in the service's own words where they are known.


def _invalid(where: str, value: object) -> Refusal:
    shown = json.dumps(value, default=str).strip('"')[:100]
    return Refusal("InvalidParameterValue", f"The value {shown} for parameter {where} is invalid.")


def _must(where: str, what: str) -> Refusal:
    return Refusal("InvalidParameterValue", f"The parameter {where} must {what}.")


def _missing(where: str) -> Refusal:
    return Refusal("MissingParameter", f"The parameter {where} is required.")


def _too_many(where: str, most: int) -> Refusal:
    return Refusal("InvalidParameterValue", f"The collection {where} must not have a size greater than {most}.")


# A rule says what is wrong with a value at a place, which CloudWatch's messages name.

_Rule: TypeAlias = Callable[[str, object], Iterator[Refusal]]


def _anything(_where: str, _value: object) -> Iterator[Refusal]:
    return iter(())


def _structure_faults(
    where: str, value: object, *, rules: Mapping[str, _Rule], required: Collection[str] = ()
) -> Iterator[Refusal]:
    """A structure with these members; unknown ones, which boto3 refuses and the service overlooks, are mistakes."""
    if not isinstance(value, Mapping):
        yield _invalid(where, value)
        return
    for member in value:
        if member not in rules:
            yield Refusal("ValidationError", f"The parameter {_inside(where, member)} is unknown.")
    for member, rule in rules.items():
        if value.get(member) is not None:
            yield from rule(_inside(where, member), value[member])
        elif member in required:
            yield _missing(_inside(where, member))


def _inside(where: str, member: str) -> str:
    return f"{where}.{member}" if where else member


def _list_faults(where: str, value: object, *, item: _Rule, most: int = sys.maxsize) -> Iterator[Refusal]:
    if not isinstance(value, (list, tuple)):
        yield _invalid(where, value)
        return
    if len(value) > most:
        yield _too_many(where, most)
    for number, each in enumerate(value, start=1):
        yield from item(f"{where}.member.{number}", each)


def _text_faults(where: str, text: object, *, longest: int) -> Iterator[Refusal]:
    if not isinstance(text, str):
        yield _invalid(where, text)
    elif not text:
        yield _must(where, "be longer than 0 characters")
    elif len(text) > longest:
        yield _must(where, f"be shorter than {longest + 1} characters")


def _ascii_text_faults(where: str, text: object, *, longest: int) -> Iterator[Refusal]:
    yield from _text_faults(where, text, longest=longest)
    if not isinstance(text, str) or not text:
        return
    if not (text.isascii() and text.isprintable()):
        yield _must(where, "contain only printable ASCII characters")
    elif text.isspace():
        yield _must(where, "contain at least one non-whitespace character")


def _number_faults(where: str, value: object) -> Iterator[Refusal]:
    if not is_acceptable_number(value):
        yield _invalid(where, value)


def _positive_number_faults(where: str, value: object) -> Iterator[Refusal]:
    yield from _number_faults(where, value)
    if isinstance(value, (int, float)) and value <= 0:
        yield _must(where, "be greater than 0")


# A datum.


def _datum_faults(where: str, datum: object, *, rules: Mapping[str, _Rule]) -> Iterator[Refusal]:
    if isinstance(datum, Mapping):
        yield from _form_faults(where, datum)
    yield from _structure_faults(where, datum, rules=rules, required=("MetricName",))


def _form_faults(where: str, datum: Mapping[str, Any]) -> Iterator[Refusal]:
    """Exactly one of the three forms; ``Counts`` belongs to ``Values``."""
    forms = [f"{where}.{form}" for form in _VALUE_FORMS if datum.get(form) is not None]
    if not forms:
        yield _missing(f"{where}.Value")
    elif len(forms) > 1:
        message = f"The parameters {forms[0]} and {forms[1]} are mutually exclusive and you have specified both."
        yield Refusal("InvalidParameterCombination", message)
    if datum.get("Counts") is not None:
        yield from _size_faults(where, datum.get("Values"), datum["Counts"])


def _size_faults(where: str, values: object, counts: object) -> Iterator[Refusal]:
    if values is None:
        yield _missing(f"{where}.Values")
    elif len(_sequence(values)) != len(_sequence(counts)):
        message = f"The parameters {where}.Values and {where}.Counts must be of the same size."
        yield Refusal("InvalidParameterValue", message)


def _values_faults(where: str, values: object) -> Iterator[Refusal]:
    yield from _list_faults(where, values, item=_number_faults, most=limits.MAX_VALUES_PER_DATUM)
    if values in ([], ()):
        yield _must(where, "not be empty")


def _statistics_faults(where: str, statistics: object) -> Iterator[Refusal]:
    yield from _structure_faults(where, statistics, rules=_STATISTICS, required=_STATISTICS)
    minimum, maximum = (_mapping(statistics).get(member) for member in ("Minimum", "Maximum"))
    if is_acceptable_number(minimum) and is_acceptable_number(maximum) and minimum > maximum:
        yield _must(f"{where}.Maximum", f"not be less than {where}.Minimum")


def _unit_faults(where: str, unit: object) -> Iterator[Refusal]:
    if unit not in CLOUDWATCH_UNITS:
        yield _must(where, f"be a value in the set [ {', '.join(CLOUDWATCH_UNITS)} ]")


def _resolution_faults(where: str, resolution: object) -> Iterator[Refusal]:
    if isinstance(resolution, bool) or resolution not in limits.STORAGE_RESOLUTIONS:
        yield _must(where, f"be a value in the set [ {', '.join(map(str, limits.STORAGE_RESOLUTIONS))} ]")


def _timestamp_faults(where: str, timestamp: object, *, now: float) -> Iterator[Refusal]:
    moment = unix_time(timestamp)
    if moment is None or moment != moment:  # noqa: PLR0124 - NaN, the one number that is not itself
        yield _invalid(where, timestamp)
    elif moment < now - limits.MAX_AGE_SECONDS:
        yield _must(where, "specify a time within the past two weeks")
    elif moment > now + limits.MAX_AHEAD_SECONDS:
        yield _must(where, "specify a time no more than two hours in the future")


def _dimensions_faults(where: str, dimensions: object) -> Iterator[Refusal]:
    dimension = partial(_structure_faults, rules=_DIMENSION, required=_DIMENSION)
    yield from _list_faults(where, dimensions, item=dimension, most=limits.MAX_DIMENSIONS)
    names = [_mapping(each).get("Name") for each in _sequence(dimensions)]
    for number, name in enumerate(names, start=1):
        if isinstance(name, str) and name in names[: number - 1]:
            yield _must(f"{where}.member.{number}.Name", "not be the name of another dimension of the metric")


def _dimension_name_faults(where: str, name: object) -> Iterator[Refusal]:
    yield from _ascii_text_faults(where, name, longest=limits.MAX_DIMENSION_NAME_LENGTH)
    if isinstance(name, str) and name.startswith(":"):
        yield _invalid(where, name)


_DIMENSION: Final[Mapping[str, _Rule]] = {
    "Name": _dimension_name_faults,
    "Value": partial(_ascii_text_faults, longest=limits.MAX_DIMENSION_VALUE_LENGTH),
}
_STATISTICS: Final[Mapping[str, _Rule]] = {
    "SampleCount": _positive_number_faults,
    "Sum": _number_faults,
    "Minimum": _number_faults,
    "Maximum": _number_faults,
}
_DATUM: Final[Mapping[str, _Rule]] = {
    "MetricName": partial(_text_faults, longest=limits.MAX_METRIC_NAME_LENGTH),
    "Dimensions": _dimensions_faults,
    "Value": _number_faults,
    "Values": _values_faults,
    "Counts": partial(_list_faults, item=_positive_number_faults),
    "StatisticValues": _statistics_faults,
    "Unit": _unit_faults,
    "StorageResolution": _resolution_faults,
}


# The request.


def _request_faults(request: Mapping[str, Any], now: float) -> Iterator[Refusal]:
    datum = partial(_datum_faults, rules={**_DATUM, "Timestamp": partial(_timestamp_faults, now=now)})
    datums = partial(_list_faults, item=datum)
    entity = partial(_structure_faults, rules={"Entity": _anything, "MetricData": datums})
    rules: Mapping[str, _Rule] = {
        "Namespace": _namespace_faults,
        "EntityMetricData": partial(_list_faults, item=entity, most=_MAX_ENTITIES),
        "MetricData": datums,
        "StrictEntityValidation": _anything,
    }
    number_of_datums = sum(1 for _ in datums_of(request))
    if number_of_datums > limits.MAX_DATUMS_PER_REQUEST:
        yield _too_many("MetricData", limits.MAX_DATUMS_PER_REQUEST)
    yield from _structure_faults("", request, rules=rules, required=("Namespace",))
    if not number_of_datums:
        yield _missing("MetricData")


def _namespace_faults(where: str, namespace: object) -> Iterator[Refusal]:
    yield from _ascii_text_faults(where, namespace, longest=limits.MAX_NAMESPACE_LENGTH)
    if isinstance(namespace, str) and namespace.startswith((":", limits.RESERVED_NAMESPACE_PREFIX)):
        yield _invalid(where, namespace)
