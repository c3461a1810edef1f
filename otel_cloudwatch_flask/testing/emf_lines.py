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


class EmfStream(io.StringIO):
    """A text stream that turns the EMF lines written to it into PutMetricData requests. Ignores other lines.

    :param put: function that is called with each of these requests. It may raise ``ValidationError``.
    :param refuse: function that is called with the error of each invalid line and request.
    """

    def __init__(self, put: Callable[[dict[str, Any]], object], *, refuse: Callable[[ValidationError], object]) -> None:
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
                try:
                    self._put(request)
                except ValidationError as error:  # noqa: PERF203 - others of the line may be valid
                    self._refuse(error)
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
    milliseconds = document["_aws"]["Timestamp"]
    _require(type(milliseconds) is int, "Timestamp is not a whole number of milliseconds")
    for directive in document["_aws"]["CloudWatchMetrics"]:
        datums = [{"Timestamp": milliseconds / 1000, **datum} for datum in _datums(document, directive)]
        yield {"Namespace": directive["Namespace"], "MetricData": datums}


def _datums(document: Mapping[str, Any], directive: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a datum for each combination of a metric and a dimension set in ``directive``. The caller adds the time."""
    metrics, sets = directive["Metrics"], directive["Dimensions"]
    _require(0 < len(metrics) <= limits.MAX_METRICS_PER_LINE, "a directive must have 1 to 100 metrics")
    _require(len(sets) > 0, "a directive has no dimension sets")
    for names in sets:
        longest = max(map(len, names), default=0)
        _require(longest <= limits.MAX_EMF_DIMENSION_NAME_LENGTH, "a dimension name is longer than 250 characters")
        dimensions = [{"Name": name, "Value": document[name]} for name in names]
        for metric in metrics:
            members = {"MetricName" if name == "Name" else name: value for name, value in metric.items()}
            yield {"Dimensions": dimensions, **members, **_numbers(document[metric["Name"]])}


def _require(is_met: bool, otherwise: str) -> None:  # noqa: FBT001 - a condition
    if not is_met:
        raise ValueError(otherwise)


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    _require(len(dict(members)) == len(members), "a duplicate member name")
    return dict(members)


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _numbers(target: Any) -> dict[str, Any]:
    """Convert a metric's number, array or object to members of a ``MetricDatum`` structure."""
    if isinstance(target, list):
        _require(0 < len(target) <= limits.MAX_VALUES_PER_LINE, "a metric must have 1 to 100 values")
        return {"Values": target, "Counts": [1] * len(target)}
    if not isinstance(target, Mapping):
        return {"Value": target}
    count, total, minimum, maximum = (target[name] for name in ("Count", "Sum", "Min", "Max"))
    if "Values" not in target:
        return {"StatisticValues": {"SampleCount": count, "Sum": total, "Minimum": minimum, "Maximum": maximum}}
    values, counts = target["Values"], target["Counts"]
    _require(0 < len(values) <= limits.MAX_VALUES_PER_LINE, "a metric must have 1 to 100 values")
    is_exact = (count, minimum, maximum) == (sum(counts), min(values), max(values))
    is_sum = math.isclose(total, math.fsum(map(mul, values, counts)))  # sums may be rounded differently
    _require(is_exact and is_sum, "Count, Sum, Min or Max does not match Values and Counts")
    return {"Values": values, "Counts": counts}
