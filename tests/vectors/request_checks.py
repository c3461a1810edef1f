"""Check that CloudWatch would accept a request, according to its documentation.

Independent of the package's own validation, which the vectors also run.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from otel_cloudwatch_flask import limits

Datum: TypeAlias = Mapping[str, Any]
"""An unchecked ``MetricDatum``."""
Request: TypeAlias = Mapping[str, Any]
"""The unchecked arguments of a ``put_metric_data`` call."""

_SIZES = [
    f"{prefix}{size}".capitalize() for prefix in ("", "kilo", "mega", "giga", "tera") for size in ("bytes", "bits")
]
_TIMES_AND_COUNTS = ("Seconds", "Milliseconds", "Microseconds", "Percent", "Count", "Count/Second", "None")
_UNITS = frozenset([*_SIZES, *(f"{size}/Second" for size in _SIZES), *_TIMES_AND_COUNTS])
_REQUIRED_KEYS = frozenset({"MetricName", "Timestamp"})
_OPTIONAL_KEYS = frozenset(
    {"Dimensions", "Value", "Values", "Counts", "StatisticValues", "Unit", "StorageResolution"},
)


def unix_seconds(timestamp: datetime | float) -> float:
    """Return a data point's time as botocore parses it."""
    return timestamp.timestamp() if isinstance(timestamp, datetime) else timestamp


def body_size_bytes(request: Request) -> int:
    """Return the length of the JSON body that botocore creates: default separators, whole seconds."""
    datums = [{**datum, "Timestamp": int(unix_seconds(datum["Timestamp"]))} for datum in request["MetricData"]]
    return len(json.dumps({**request, "MetricData": datums}).encode())


def request_faults(request: Request, *, now: float) -> Iterator[str]:
    """Yield the reasons why CloudWatch would reject this request."""
    shapes = list(_shape_faults(request))
    if shapes:
        yield from shapes
        return
    if not 1 <= len(request["MetricData"]) <= limits.MAX_DATUMS_PER_REQUEST:
        yield f"{len(request['MetricData'])} datums in a request"
    if body_size_bytes(request) > limits.MAX_REQUEST_BYTES:
        yield f"a request of {body_size_bytes(request)} bytes"
    for datum in request["MetricData"]:
        yield from (f"{datum['MetricName']}: {fault}" for fault in _datum_faults(datum, now))


def _shape_faults(request: Request) -> Iterator[str]:
    if request.keys() != {"Namespace", "MetricData"}:
        yield f"a request of {sorted(request)}"
        return
    for datum in request["MetricData"]:
        if not _REQUIRED_KEYS <= datum.keys() <= _REQUIRED_KEYS | _OPTIONAL_KEYS:
            yield f"a datum of {sorted(datum)}"


def _datum_faults(datum: Datum, now: float) -> Iterator[str]:
    if not 1 <= len(datum["MetricName"]) <= limits.MAX_METRIC_NAME_LENGTH:
        yield f"a name of {len(datum['MetricName'])} characters"
    if datum.get("Unit", "None") not in _UNITS:
        yield f"unit {datum['Unit']!r}"
    if datum.get("StorageResolution", 60) not in limits.STORAGE_RESOLUTIONS:
        yield f"resolution {datum['StorageResolution']!r}"
    if not -limits.MAX_AGE_SECONDS <= unix_seconds(datum["Timestamp"]) - now <= limits.MAX_AHEAD_SECONDS:
        yield f"timestamp {datum['Timestamp']!r}"
    yield from _dimension_faults(datum.get("Dimensions", ()))
    yield from _number_faults(datum)


def _dimension_faults(dimensions: list[dict[str, str]]) -> Iterator[str]:
    names = [dimension["Name"] for dimension in dimensions]
    if len(names) > limits.MAX_DIMENSIONS:
        yield f"{len(names)} dimensions"
    if len(set(names)) < len(names):
        yield f"a dimension twice: {names}"
    for dimension in dimensions:
        name, value = dimension["Name"], dimension["Value"]
        if not _is_text(name, limits.MAX_DIMENSION_NAME_LENGTH) or name.startswith(":"):
            yield f"dimension name {name!r}"
        if not _is_text(value, limits.MAX_DIMENSION_VALUE_LENGTH):
            yield f"dimension value {value!r}"


def _is_text(text: object, length: int) -> bool:
    """Return whether the value is a non-blank string of printable ASCII of at most this length."""
    return (
        isinstance(text, str)
        and len(text) <= length
        and text.isascii()
        and text.isprintable()
        and not (text.isspace() or not text)
    )


def _number_faults(datum: Datum) -> Iterator[str]:
    forms = [form for form in ("Value", "Values", "StatisticValues") if form in datum]
    if len(forms) != 1:
        yield f"{forms or 'nothing'} as its value"
        return
    match forms[0]:
        case "Value":
            yield from _magnitude_faults([datum["Value"]])
        case "Values":
            yield from _distribution_faults(datum)
        case "StatisticValues":
            yield from _statistics_faults(datum["StatisticValues"])


def _distribution_faults(datum: Datum) -> Iterator[str]:
    values, counts = datum["Values"], datum.get("Counts", ())
    if not 1 <= len(values) <= limits.MAX_VALUES_PER_DATUM:
        yield f"{len(values)} values"
    if len(counts) != len(values):
        yield f"{len(values)} values and {len(counts)} counts"
    if len(set(values)) < len(values):
        yield "a value listed twice"
    if not all(count > 0 for count in counts):
        yield f"counts {counts}"
    yield from _magnitude_faults([*values, *counts])


def _statistics_faults(statistics: Mapping[str, Any]) -> Iterator[str]:
    if statistics.keys() != {"SampleCount", "Sum", "Minimum", "Maximum"}:
        yield f"statistics of {sorted(statistics)}"
        return
    if not statistics["SampleCount"] > 0:
        yield f"SampleCount {statistics['SampleCount']}"
    yield from _magnitude_faults(list(statistics.values()))


def _magnitude_faults(numbers: list[object]) -> Iterator[str]:
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            yield f"{number!r} is no number"
        elif not abs(number) <= limits.MAX_MAGNITUDE:  # every comparison with NaN is false
            yield f"{number!r} is beyond 2^360"
        elif 0 < abs(number) < limits.MIN_MAGNITUDE:
            yield f"{number!r} is below 2^-360"
