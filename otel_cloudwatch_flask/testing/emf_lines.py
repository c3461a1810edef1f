"""Read EMF lines as CloudWatch Logs does, but refuse a line if CloudWatch Logs would not extract all its metrics.

The rules come from
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html.
The parts that PutMetricData requests also have, such as units, are validated by
:mod:`otel_cloudwatch_flask.testing.request_rules`.
"""

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from operator import mul
from typing import Any, NoReturn

from otel_cloudwatch_flask import limits
from otel_cloudwatch_flask.testing.request_rules import ValidationError

__all__ = ["EmfStream", "requests_of"]


class EmfStream(io.StringIO):
    """A text stream that turns the EMF lines written to it into PutMetricData requests. Ignores other lines.

    :param put: A function that is called with each of these requests.
    :param refuse: A function that is called with the error of each invalid line.
    """

    def __init__(self, put: Callable[[dict[str, Any]], object], refuse: Callable[[ValidationError], object]) -> None:
        super().__init__()
        self._put, self._refuse = put, refuse
        self._unfinished = ""

    def write(self, text: str) -> int:
        """Process each line that ``text`` completes. Returns the length of ``text``."""
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            try:
                requests = list(requests_of(line))
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                self._refuse(ValidationError("InvalidEmf", f"{type(error).__name__}: {error}. Line: {line[:200]}"))
                continue
            for request in requests:
                self._put(request)
        return len(text)


def requests_of(line: str) -> Iterator[dict[str, Any]]:
    """Yield PutMetricData requests that are equivalent to an EMF line. Yields nothing for any other line.

    Raises ``ValueError``, ``LookupError``, ``TypeError`` or ``AttributeError`` for an invalid line.

    >>> directive = '{"Namespace":"Shop","Dimensions":[["Page"]],"Metrics":[{"Name":"Orders"}]}'
    >>> line = '{"_aws":{"Timestamp":60000,"CloudWatchMetrics":[%s]},"Page":"Index","Orders":[1,1]}' % directive
    >>> [request["MetricData"][0]["Values"] for request in requests_of(line)]
    [[1, 1]]
    """
    if '"_aws"' not in line:
        return
    _require(line[0] == "{", "whitespace or text before the JSON object")
    _require(len(line.encode()) <= limits.MAX_LINE_BYTES, "the line is longer than 256 KB")
    document = json.loads(line, object_pairs_hook=_unique, parse_constant=_not_json)
    metadata = document["_aws"]
    _require(type(metadata["Timestamp"]) is int, "Timestamp is not a whole number of milliseconds")
    for directive in metadata["CloudWatchMetrics"]:
        _require(len(directive["Metrics"]) <= limits.MAX_METRICS_PER_LINE, "a directive has more than 100 metrics")
        _require(
            bool(directive["Metrics"] and directive["Dimensions"]), "a directive has no metrics or no dimension sets"
        )
        common = {"Timestamp": metadata["Timestamp"] / 1000}
        datums = [
            {**common, **_datum(document, metric), "Dimensions": [_dimension(document, name) for name in names]}
            for names in directive["Dimensions"]
            for metric in directive["Metrics"]
        ]
        yield {"Namespace": directive["Namespace"], "MetricData": datums}


def _require(is_met: bool, otherwise: str) -> None:  # noqa: FBT001 - a condition
    if not is_met:
        raise ValueError(otherwise)


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    _require(len(dict(members)) == len(members), "a duplicate member name")
    return dict(members)


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _dimension(document: Mapping[str, Any], name: str) -> dict[str, str]:
    _require(len(name) <= limits.MAX_EMF_DIMENSION_NAME_LENGTH, "a dimension name is longer than 250 characters")
    return {"Name": name, "Value": document[name]}


def _datum(document: Mapping[str, Any], metric: Mapping[str, Any]) -> dict[str, Any]:
    target = document[metric["Name"]]
    members = {"MetricName" if name == "Name" else name: value for name, value in metric.items()}
    if isinstance(target, list):
        _require(0 < len(target) <= limits.MAX_VALUES_PER_LINE, "an array must have 1 to 100 values")
        return {**members, "Values": target, "Counts": [1] * len(target)}
    if not isinstance(target, Mapping):
        return {**members, "Value": target}
    count, total, minimum, maximum = (target[name] for name in ("Count", "Sum", "Min", "Max"))
    if "Values" not in target:
        statistics = {"SampleCount": count, "Sum": total, "Minimum": minimum, "Maximum": maximum}
        return {**members, "StatisticValues": statistics}
    values, counts = target["Values"], target["Counts"]
    _require(len(values) <= limits.MAX_VALUES_PER_LINE, "Values must have at most 100 entries")
    _require(
        (sum(counts), min(values), max(values)) == (count, minimum, maximum),
        "Count, Min or Max does not match Values and Counts",
    )
    _require(
        math.isclose(math.fsum(map(mul, values, counts)), total, rel_tol=1e-9, abs_tol=1e-300),
        "Sum does not match Values and Counts",
    )
    return {**members, "Values": values, "Counts": counts}
