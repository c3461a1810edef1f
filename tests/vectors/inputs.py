"""Convert the JSON of a vector's input to the SDK's ``MetricsData``; vectors/README.md describes the JSON."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias, cast

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    DataT,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

Json: TypeAlias = Mapping[str, Any]
"""A JSON object of a vector."""


@dataclass(frozen=True, slots=True)
class Times:
    """The reference times of a point, in Unix nanoseconds: when the exporter was ready, and now."""

    exporter_ready: int
    now: int

    def start(self, of: str | float) -> int:
        """Return the start time of a series, which a vector specifies relative to the exporter's start."""
        seconds = {"after": 0.0, "before": -3600.0}[of] if isinstance(of, str) else of
        return self.exporter_ready + round(seconds * 1e9)


def exports_of(case_input: Json) -> list[Sequence[Json]]:
    """Return the metrics of each export, in the vectors' form."""
    if "generate" in case_input:
        return [list(generated_metrics(case_input["generate"]))]
    if "exports" in case_input:
        return [export["metrics"] for export in case_input["exports"]]
    return [case_input["metrics"]]


def metrics_data(metrics: Sequence[Json], *, resource: Json, times: Times) -> MetricsData:
    """Make one collection of these metrics, as a reader passes it to an exporter."""
    scopes = [
        ScopeMetrics(InstrumentationScope(scope), [_metric(metric, times) for metric in of_scope], schema_url="")
        for scope, of_scope in groupby(metrics, key=lambda metric: metric.get("scope", "vectors"))
    ]
    return MetricsData([ResourceMetrics(Resource(_attributes(resource)), scopes, schema_url="")])


def number(value: float | str) -> float:
    """Parse a number, including those that JSON lacks: ``"NaN"``, ``"-Infinity"``, or an int like ``"10**400"``."""
    if not isinstance(value, str):
        return value
    base, power, exponent = value.partition("**")
    return cast("int", int(base) ** int(exponent)) if power else float(value)


def bucket_counts(counts: Sequence[int] | Json) -> list[int]:
    """Parse the counts of a histogram's buckets: a list, or the length and the nonzero entries."""
    if not isinstance(counts, Mapping):
        return list(counts)
    return [counts["nonzero"].get(str(index), 0) for index in range(counts["length"])]


def generated_metrics(spec: Json) -> Iterator[Json]:
    """Yield many metrics of the same shape; each point has its own number and attributes."""
    points = spec.get("points", 1)
    for metric in range(spec["metrics"]):
        yield {
            "name": "m" + str(metric).rjust(spec.get("name_length", 10) - 1, "0"),
            "kind": "exponential" if "values" in spec else "gauge",
            "points": [_generated_point(spec, metric * points + point) for point in range(points)],
        }


def _generated_point(spec: Json, serial: int) -> Json:
    numbers = _filled_buckets(spec["values"], serial) if "values" in spec else {"value": serial + 0.5}
    return {"attributes": _generated_attributes(spec, serial), **numbers}


def _generated_attributes(spec: Json, serial: int) -> Json:
    if "dims" not in spec:
        return {"point": str(serial)} if spec.get("points", 1) > 1 else {}
    fill = spec.get("fill", "x")
    value = str(serial).rjust(spec["dim_value_length"], fill)
    return {"k" + str(index).rjust(spec["dim_name_length"] - 1, fill): value for index in range(spec["dims"])}


def _filled_buckets(values: int, serial: int) -> Json:
    """Return an exponential histogram from 1 up: eight buckets per power of two, samples 1 % above the lower edges."""
    counts = [1 + (serial + bucket) % 7 for bucket in range(values)]
    samples = [1.01 * 2.0 ** (bucket / 8) for bucket in range(values)]
    return {
        "scale": 3,
        "positive": {"offset": 0, "counts": counts},
        "sum": math.fsum(sample * count for sample, count in zip(samples, counts, strict=True)),
        "min": samples[0],
        "max": samples[-1],
    }


def _metric(metric: Json, times: Times) -> Metric:
    return Metric(metric.get("name", "m"), description="", unit=metric.get("unit", ""), data=_data(metric, times))


def _data(metric: Json, times: Times) -> DataT:
    kind: str = metric["kind"]
    points: Sequence[Json] = metric["points"]
    temporality = AggregationTemporality[_temporality(metric).upper()]
    match kind:
        case "gauge":
            return Gauge([_gauge_point(point, times) for point in points])
        case "counter" | "updowncounter":
            return Sum([_sum_point(point, times) for point in points], temporality, is_monotonic=kind == "counter")
        case "histogram":
            return Histogram([_histogram_point(point, times) for point in points], temporality)
        case "exponential":
            return ExponentialHistogram([_exponential_point(point, times) for point in points], temporality)
    raise ValueError(f"unknown kind of metric: {kind!r}")


def _temporality(metric: Json) -> str:
    return str(metric.get("temporality", "cumulative" if metric["kind"] == "updowncounter" else "delta"))


def _gauge_point(point: Json, times: Times) -> NumberDataPoint:
    no_start = cast("int", None)  # the SDK annotates this as int; its gauges have no start
    return NumberDataPoint(_attributes(_attributes_of(point)), no_start, times.now, number(point["value"]))


def _sum_point(point: Json, times: Times) -> NumberDataPoint:
    return NumberDataPoint(value=number(point["value"]), **_when_and_where(point, times))


def _histogram_point(point: Json, times: Times) -> HistogramDataPoint:
    counts = bucket_counts(point["counts"])
    return HistogramDataPoint(
        explicit_bounds=point["bounds"],
        bucket_counts=counts,
        **_statistics(point, samples=sum(counts)),
        **_when_and_where(point, times),
    )


def _exponential_point(point: Json, times: Times) -> ExponentialHistogramDataPoint:
    zero_count: int = point.get("zero_count", 0)
    positive, negative = _side(point, "positive"), _side(point, "negative")
    samples = zero_count + sum(positive.bucket_counts) + sum(negative.bucket_counts)
    return ExponentialHistogramDataPoint(
        scale=point["scale"],
        zero_count=zero_count,
        positive=positive,
        negative=negative,
        flags=0,
        **_statistics(point, samples=samples),
        **_when_and_where(point, times),
    )


def _side(point: Json, sign: str) -> Buckets:
    buckets: Json = point.get(sign, {"offset": 0, "counts": []})
    return Buckets(buckets["offset"], bucket_counts(buckets["counts"]))


def _statistics(point: Json, *, samples: int) -> dict[str, Any]:
    """Return count, sum, min and max; like the SDK, inf and -inf for extremes that are not recorded."""
    minimum, maximum = point.get("min", math.inf), point.get("max", -math.inf)
    return {
        "count": point.get("count", samples),
        "sum": number(point["sum"]),
        "min": None if minimum is None else number(minimum),
        "max": None if maximum is None else number(maximum),
    }


def _when_and_where(point: Json, times: Times) -> dict[str, Any]:
    start = times.start(point.get("start", "after"))
    return {
        "attributes": _attributes(_attributes_of(point)),
        "start_time_unix_nano": start,
        "time_unix_nano": max(times.now, start),
    }


def _attributes_of(point: Json) -> Json:
    attributes: Json = point.get("attributes", {})
    return attributes


def _attributes(attributes: Json) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}
