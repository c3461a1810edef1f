"""Would CloudWatch accept this PutMetricData request? One bad datum and it refuses the whole of it.

The rules are those of
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html and
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html, in the smaller reading where the
pages leave one. boto3 itself checks types and little else, and local stand-ins for CloudWatch take nearly everything,
so this is what :class:`otel_cloudwatch_flask.testing.FakeCloudWatch` and
:class:`otel_cloudwatch_flask.local_cloudwatch.LocalCloudWatch` put in front.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import Any, Final, TypeGuard

from otel_cloudwatch_flask import limits

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html#ACW-Type-MetricDatum-Unit
STANDARD_UNITS: Final = (
    "Seconds",
    "Microseconds",
    "Milliseconds",
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
    "Percent",
    "Count",
    "Bytes/Second",
    "Kilobytes/Second",
    "Megabytes/Second",
    "Gigabytes/Second",
    "Terabytes/Second",
    "Bits/Second",
    "Kilobits/Second",
    "Megabits/Second",
    "Gigabits/Second",
    "Terabits/Second",
    "Count/Second",
    "None",
)
_UNITS: Final = frozenset(STANDARD_UNITS)
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
_MAX_ENTITIES: Final = 2
_REQUEST_MEMBERS: Final = frozenset({"Namespace", "MetricData", "EntityMetricData", "StrictEntityValidation"})
_ENTITY_MEMBERS: Final = frozenset({"Entity", "MetricData"})
_VALUE_FORMS: Final = ("Value", "Values", "StatisticValues")
_STATISTICS: Final = ("SampleCount", "Sum", "Minimum", "Maximum")
_DATUM_MEMBERS: Final = frozenset(
    {"MetricName", "Dimensions", "Timestamp", "Unit", "StorageResolution", "Counts", *_VALUE_FORMS}
)
_DIMENSION_MEMBERS: Final = frozenset({"Name", "Value"})
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
    if isinstance(timestamp, bool):
        return None
    try:
        if isinstance(timestamp, str):
            moment = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
            return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
        if isinstance(timestamp, datetime):
            return timestamp.timestamp()
        return float(timestamp) if isinstance(timestamp, (int, float)) else None
    except (ValueError, OverflowError):
        return None


def datums_of(request: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each datum of a request, those of its entities included, with the name CloudWatch gives it in messages."""
    for where, datums in _datum_lists(request):
        for number, datum in enumerate(_sequence(datums), start=1):
            yield f"{where}.member.{number}", datum


def is_acceptable_number(value: object) -> TypeGuard[float]:
    """A real number, 0 or of a magnitude from 2^-360 to 2^360; so neither NaN nor infinite, and no bool."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return value == 0 or limits.MIN_MAGNITUDE <= abs(value) <= limits.MAX_MAGNITUDE


def _datum_lists(request: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "MetricData", request.get("MetricData")
    for number, entity in enumerate(_sequence(request.get("EntityMetricData")), start=1):
        yield f"EntityMetricData.member.{number}.MetricData", _mapping(entity).get("MetricData")


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


def _together(where: str, one: str, other: str) -> Refusal:
    return Refusal(
        "InvalidParameterCombination",
        f"The parameters {where}.{one} and {where}.{other} are mutually exclusive and you have specified both.",
    )


def _too_many(where: str, most: int) -> Refusal:
    return Refusal("InvalidParameterValue", f"The collection {where} must not have a size greater than {most}.")


# The request.


def _request_faults(request: Mapping[str, Any], now: float) -> Iterator[Refusal]:
    yield from _unknown_members("", request, _REQUEST_MEMBERS)
    yield from _namespace_faults(request.get("Namespace"))
    yield from _entity_faults(request.get("EntityMetricData"))
    yield from _datum_list_faults(request)
    for where, datum in datums_of(request):
        yield from _datum_faults(where, datum, now)


def _unknown_members(where: str, value: Mapping[str, Any], known: frozenset[str]) -> Iterator[Refusal]:
    """The service overlooks these; boto3 does not, and a misspelt member is always a mistake."""
    for member in value:
        if member not in known:
            yield Refusal("ValidationError", f"The parameter {where}{member} is unknown.")


def _namespace_faults(namespace: object) -> Iterator[Refusal]:
    if namespace is None:
        yield _missing("Namespace")
        return
    yield from _ascii_text_faults("Namespace", namespace, longest=limits.MAX_NAMESPACE_LENGTH)
    if isinstance(namespace, str) and namespace.startswith((":", limits.RESERVED_NAMESPACE_PREFIX)):
        yield _invalid("Namespace", namespace)


def _entity_faults(entities: object) -> Iterator[Refusal]:
    if entities is None:
        return
    yield from _list_faults("EntityMetricData", entities, most=_MAX_ENTITIES)
    for number, entity in enumerate(_sequence(entities), start=1):
        where = f"EntityMetricData.member.{number}"
        if isinstance(entity, Mapping):
            yield from _unknown_members(f"{where}.", entity, _ENTITY_MEMBERS)
        else:
            yield _invalid(where, entity)


def _datum_list_faults(request: Mapping[str, Any]) -> Iterator[Refusal]:
    datum_lists = [(where, datums) for where, datums in _datum_lists(request) if datums is not None]
    for where, datums in datum_lists:
        yield from _list_faults(where, datums)
    number_of_datums = sum(len(_sequence(datums)) for _, datums in datum_lists)
    if not number_of_datums:
        yield _missing("MetricData")
    if number_of_datums > limits.MAX_DATUMS_PER_REQUEST:
        yield _too_many("MetricData", limits.MAX_DATUMS_PER_REQUEST)


def _list_faults(where: str, value: object, *, most: int | None = None) -> Iterator[Refusal]:
    if not isinstance(value, (list, tuple)):
        yield _invalid(where, value)
    elif most is not None and len(value) > most:
        yield _too_many(where, most)


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


# A datum: one rule for each of its members.


def _datum_faults(where: str, datum: object, now: float) -> Iterator[Refusal]:
    if not isinstance(datum, Mapping):
        yield _invalid(where, datum)
        return
    yield from _unknown_members(f"{where}.", datum, _DATUM_MEMBERS)
    yield from _form_faults(where, datum)
    for member, faults in _MEMBER_RULES.items():
        if datum.get(member) is not None:
            yield from faults(f"{where}.{member}", datum[member])
        elif member == "MetricName":
            yield _missing(f"{where}.{member}")
    if datum.get("Timestamp") is not None:
        yield from _timestamp_faults(f"{where}.Timestamp", datum["Timestamp"], now)


def _form_faults(where: str, datum: Mapping[str, Any]) -> Iterator[Refusal]:
    """Exactly one of the three forms; ``Counts`` belongs to ``Values``."""
    forms = [form for form in _VALUE_FORMS if datum.get(form) is not None]
    if not forms:
        yield _missing(f"{where}.Value")
    elif len(forms) > 1:
        yield _together(where, forms[0], forms[1])
    if datum.get("Counts") is None:
        return
    if datum.get("Values") is None:
        yield _missing(f"{where}.Values")
    elif len(_sequence(datum["Counts"])) != len(_sequence(datum["Values"])):
        message = f"The parameters {where}.Values and {where}.Counts must be of the same size."
        yield Refusal("InvalidParameterValue", message)


def _metric_name_faults(where: str, name: object) -> Iterator[Refusal]:
    return _text_faults(where, name, longest=limits.MAX_METRIC_NAME_LENGTH)


def _number_faults(where: str, value: object) -> Iterator[Refusal]:
    if not is_acceptable_number(value):
        yield _invalid(where, value)


def _values_faults(where: str, values: object) -> Iterator[Refusal]:
    yield from _list_faults(where, values, most=limits.MAX_VALUES_PER_DATUM)
    if values in ([], ()):
        yield _must(where, "not be empty")
    for number, value in enumerate(_sequence(values), start=1):
        yield from _number_faults(f"{where}.member.{number}", value)


def _counts_faults(where: str, counts: object) -> Iterator[Refusal]:
    yield from _list_faults(where, counts)
    for number, count in enumerate(_sequence(counts), start=1):
        yield from _positive_number_faults(f"{where}.member.{number}", count)


def _positive_number_faults(where: str, value: object) -> Iterator[Refusal]:
    yield from _number_faults(where, value)
    if isinstance(value, (int, float)) and value <= 0:
        yield _must(where, "be greater than 0")


def _statistics_faults(where: str, statistics: object) -> Iterator[Refusal]:
    if not isinstance(statistics, Mapping):
        yield _invalid(where, statistics)
        return
    yield from _unknown_members(f"{where}.", statistics, frozenset(_STATISTICS))
    for member in _STATISTICS:
        if statistics.get(member) is None:
            yield _missing(f"{where}.{member}")
        else:
            check = _positive_number_faults if member == "SampleCount" else _number_faults
            yield from check(f"{where}.{member}", statistics[member])
    minimum, maximum = statistics.get("Minimum"), statistics.get("Maximum")
    if is_acceptable_number(minimum) and is_acceptable_number(maximum) and minimum > maximum:
        yield _must(f"{where}.Maximum", f"not be less than {where}.Minimum")


def _unit_faults(where: str, unit: object) -> Iterator[Refusal]:
    if not isinstance(unit, str) or unit not in _UNITS:
        yield _must(where, f"be a value in the set [ {', '.join(STANDARD_UNITS)} ]")


def _resolution_faults(where: str, resolution: object) -> Iterator[Refusal]:
    if isinstance(resolution, bool) or resolution not in limits.STORAGE_RESOLUTIONS:
        yield _must(where, f"be a value in the set [ {', '.join(map(str, limits.STORAGE_RESOLUTIONS))} ]")


def _timestamp_faults(where: str, timestamp: object, now: float) -> Iterator[Refusal]:
    moment = unix_time(timestamp)
    if moment is None or moment != moment:  # noqa: PLR0124 - NaN, the one number that is not itself
        yield _invalid(where, timestamp)
    elif moment < now - limits.MAX_AGE_SECONDS:
        yield _must(where, "specify a time within the past two weeks")
    elif moment > now + limits.MAX_AHEAD_SECONDS:
        yield _must(where, "specify a time no more than two hours in the future")


def _dimensions_faults(where: str, dimensions: object) -> Iterator[Refusal]:
    yield from _list_faults(where, dimensions, most=limits.MAX_DIMENSIONS)
    names: set[str] = set()
    for number, dimension in enumerate(_sequence(dimensions), start=1):
        yield from _dimension_faults(f"{where}.member.{number}", dimension)
        name = _mapping(dimension).get("Name")
        if isinstance(name, str):
            if name in names:
                yield _must(f"{where}.member.{number}.Name", "not be the name of another dimension of the metric")
            names.add(name)


def _dimension_faults(where: str, dimension: object) -> Iterator[Refusal]:
    if not isinstance(dimension, Mapping):
        yield _invalid(where, dimension)
        return
    yield from _unknown_members(f"{where}.", dimension, _DIMENSION_MEMBERS)
    for member, longest in _DIMENSION_LENGTHS.items():
        if dimension.get(member) is None:
            yield _missing(f"{where}.{member}")
        else:
            yield from _ascii_text_faults(f"{where}.{member}", dimension[member], longest=longest)
    name = dimension.get("Name")
    if isinstance(name, str) and name.startswith(":"):
        yield _invalid(f"{where}.Name", name)


_DIMENSION_LENGTHS: Final = {
    "Name": limits.MAX_DIMENSION_NAME_LENGTH,
    "Value": limits.MAX_DIMENSION_VALUE_LENGTH,
}
_MEMBER_RULES: Final[Mapping[str, Callable[[str, object], Iterator[Refusal]]]] = {
    "MetricName": _metric_name_faults,
    "Dimensions": _dimensions_faults,
    "Value": _number_faults,
    "Values": _values_faults,
    "Counts": _counts_faults,
    "StatisticValues": _statistics_faults,
    "Unit": _unit_faults,
    "StorageResolution": _resolution_faults,
}
