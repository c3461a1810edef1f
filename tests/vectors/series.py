"""Check a data point against an entry of a vector's ``series``; vectors/README.md describes each key."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tests.vectors.buckets import filled_buckets, value_errors
from tests.vectors.inputs import Json, number
from tests.vectors.request_checks import Datum

_EXPONENTIAL_EDGE_SLACK = 1e-12
"""Relative tolerance for exponential bucket edges: fractional powers of 2 are rounded in their last digits."""
_FACTOR_SLACK = 1e-12


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of a data point; ``values`` ascend, each with its count, and are empty for a statistic set."""

    values: Sequence[tuple[float, float]]
    count: float
    sum: float
    magnitude: float
    """The sum of the absolute values; the tolerance for the sum is relative to it."""
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A data point, the entry that matches it, and the metrics of its export."""

    entry: Json
    datum: Datum
    samples: Samples
    metrics: Sequence[Json]

    def same(self, arrived: float, wanted: float | str) -> bool:
        """Return whether two numbers are equal, or nearly equal if the unit was scaled."""
        wanted = number(wanted)
        return arrived == wanted or (
            "factor" in self.entry and math.isclose(arrived, wanted, rel_tol=_FACTOR_SLACK, abs_tol=0)
        )


def samples_of(datum: Datum) -> Samples:
    """Return the samples of a valid data point."""
    if "StatisticValues" in datum:
        given = datum["StatisticValues"]
        total = given["Sum"]
        return Samples((), given["SampleCount"], total, abs(total), given["Minimum"], given["Maximum"])
    values = sorted(zip(datum["Values"], datum["Counts"], strict=True)) if "Values" in datum else [(datum["Value"], 1)]
    return Samples(
        values,
        count=sum(count for _, count in values),
        sum=math.fsum(value * count for value, count in values),
        magnitude=math.fsum(abs(value) * count for value, count in values),
        minimum=values[0][0],
        maximum=values[-1][0],
    )


def dimensions_of(datum: Datum) -> dict[str, str]:
    """Return a data point's dimensions by name."""
    return {dimension["Name"]: dimension["Value"] for dimension in datum.get("Dimensions", ())}


def applies_to(entry: Json, datum: Datum) -> bool:
    """Return whether the entry applies to this data point: the name and, if given, the dimensions match."""
    if not fnmatchcase(datum["MetricName"], entry.get("name", "m")):
        return False
    return "dims" not in entry or _same_dimensions(entry["dims"], dimensions_of(datum))


def entry_faults(entry: Json, datum: Datum, metrics: Sequence[Json]) -> Iterator[str]:
    """Yield the errors of a data point that an entry matches."""
    seen = Seen(entry, datum, samples_of(datum), metrics)
    for key, wanted in {"form": "values", "resolution": 60, "max_values": 150, **entry}.items():
        if key.startswith("sum_rel_"):
            yield from _sum_faults(seen, wanted, fraction=float(key.removeprefix("sum_rel_")))
        elif key in _DETAILED_CHECKS:
            yield from _DETAILED_CHECKS[key](seen, wanted)
        elif key not in _NO_CHECKS and not _CHECKS[key](seen, wanted):
            yield f"{key} {str(wanted)[:200]}, not {_in_short(datum)}"


def _same_dimensions(wanted: Json, arrived: Mapping[str, str]) -> bool:
    return wanted.keys() == arrived.keys() and all(_same_text(wanted[name], arrived[name]) for name in wanted)


def _same_text(wanted: str | Json, arrived: str) -> bool:
    """Return whether the text is equal or, for ``{"json": x}``, is JSON text of x; ``true`` does not equal 1."""
    if isinstance(wanted, str):
        return arrived == wanted
    try:
        return json.dumps(json.loads(arrived)) == json.dumps(wanted["json"])
    except ValueError:
        return False


def _sum_faults(seen: Seen, wanted: float, *, fraction: float) -> Iterator[str]:
    off = abs(seen.samples.sum - wanted)
    if not off <= fraction * max(seen.samples.magnitude, abs(wanted)):
        yield f"the sum is {seen.samples.sum!r}, off by {off:.3g} from {wanted!r}"


def _bucket_faults(seen: Seen, wanted: Any) -> Iterator[str]:
    point = _only_point(seen) if wanted is True else wanted
    factor = seen.entry.get("factor", 1)
    edge_slack = _EXPONENTIAL_EDGE_SLACK if "scale" in point else 0.0
    slack = edge_slack if factor == 1 else max(edge_slack, _FACTOR_SLACK)
    return value_errors(seen.samples.values, filled_buckets(point, factor=factor), relative_slack=slack)


def _only_point(seen: Seen) -> Json:
    """Return the only point of the metrics that the entry names."""
    named = [metric for metric in seen.metrics if fnmatchcase(metric.get("name", "m"), seen.entry.get("name", "m"))]
    points: list[Json] = [point for metric in named for point in metric["points"]]
    (point,) = points
    return point


def _percentile_faults(seen: Seen, wanted: Any) -> Iterator[str]:
    for percentile, (low, high) in wanted.items():
        value = _nearest_rank(seen.samples, float(percentile.removeprefix("p")))
        if not low <= value <= high:
            yield f"{percentile} is {value!r}, not within {low} ... {high}"


def _nearest_rank(samples: Samples, percentile: float) -> float:
    left: float = math.ceil(percentile / 100 * samples.count)
    for value, count in samples.values:
        left -= count
        if left <= 0:
            return value
    return math.nan


def _same_values(seen: Seen, wanted: Sequence[tuple[float, float]]) -> bool:
    arrived, slack = seen.samples.values, seen.entry.get("values_abs", 0.0)
    return len(arrived) == len(wanted) and all(
        count == wanted_count and (seen.same(value, wanted_value) or abs(value - wanted_value) <= slack)
        for (value, count), (wanted_value, wanted_count) in zip(arrived, sorted(wanted), strict=True)
    )


def _form(datum: Datum) -> str:
    return "statistics" if "StatisticValues" in datum else "values"


def _in_short(datum: Datum) -> str:
    keys = ("Value", "Values", "Counts", "StatisticValues", "Unit", "StorageResolution", "Dimensions")
    return str({key: datum[key] for key in keys if key in datum})[:300]


_CHECKS: Mapping[str, Callable[[Seen, Any], bool]] = {
    "dims_include": lambda seen, wanted: wanted.items() <= dimensions_of(seen.datum).items(),
    "dims_count": lambda seen, wanted: len(dimensions_of(seen.datum)) == wanted,
    "unit": lambda seen, wanted: seen.datum.get("Unit", "None") in ([wanted] if isinstance(wanted, str) else wanted),
    "resolution": lambda seen, wanted: seen.datum.get("StorageResolution", 60) == wanted,
    "form": lambda seen, wanted: _form(seen.datum) == wanted,
    "value": lambda seen, wanted: seen.samples.count == 1 and seen.same(seen.samples.sum, wanted),
    "values": _same_values,
    "count_exact": lambda seen, wanted: seen.samples.count == wanted,
    "min_exact": lambda seen, wanted: seen.same(seen.samples.minimum, wanted),
    "max_exact": lambda seen, wanted: seen.same(seen.samples.maximum, wanted),
    "min_within": lambda seen, wanted: wanted[0] <= seen.samples.minimum <= wanted[1],
    "max_within": lambda seen, wanted: wanted[0] <= seen.samples.maximum <= wanted[1],
    "values_within": lambda seen, wanted: wanted[0] <= seen.samples.minimum and seen.samples.maximum <= wanted[1],
    "min_values": lambda seen, wanted: len(seen.samples.values) >= wanted,
    "max_values": lambda seen, wanted: len(seen.samples.values) <= wanted,
}
"""Checks, by the key of an entry."""

_DETAILED_CHECKS: Mapping[str, Callable[[Seen, Any], Iterator[str]]] = {
    "values_within_bucket": _bucket_faults,
    "percentile": _percentile_faults,
}
"""Checks that yield descriptions of the errors."""

_NO_CHECKS = frozenset({"name", "dims", "factor", "values_abs", "may_be_absent"})
"""Keys that are not checks: they select the datum or modify other checks."""
