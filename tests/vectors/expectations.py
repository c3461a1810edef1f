"""Check that the published requests match a vector's expectations; vectors/README.md describes each key.

This module does not import the exporter. A result is a list of errors, one line each; an empty list means success.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from tests.vectors.inputs import Json, generated_metrics
from tests.vectors.request_checks import Datum, Request, request_faults
from tests.vectors.series import applies_to, dimensions_of, entry_faults, samples_of

Identity: TypeAlias = tuple[str, frozenset[tuple[str, str]]]
"""What identifies a metric in CloudWatch: name and dimensions."""

NAMESPACE = "Ns"
"""The namespace of every vector."""

_FIGURES = frozenset({"datums", "requests", "series_count", "lost", "lost_at_least", "totals"})
_KEYS_OF_AN_EXPORT = _FIGURES | {"series", "others_unaffected", "generated"}
_KEYS_OF_THE_WHOLE = frozenset({"exports", "warnings", "distinct_series", "ucum_round_trip"})


@dataclass(frozen=True, slots=True)
class Export:
    """The metrics of one export, in the vector's form, and the requests that resulted."""

    metrics: Sequence[Json]
    requests: Sequence[Request]
    lost: int

    def datums(self) -> list[Datum]:
        """Return every data point of every request."""
        return [datum for request in self.requests for datum in request["MetricData"]]


@dataclass(frozen=True, slots=True)
class Run:
    """The outcome of a case.

    ``late`` are the requests made during shutdown; ``units_back`` is, for each facade metric, the
    CloudWatch unit that results from the unit that another reader saw.
    """

    exports: Sequence[Export]
    warnings: Sequence[str] = ()
    late: Sequence[Request] = ()
    units_back: Mapping[str, str] | None = None

    def requests(self) -> Iterator[Request]:
        """Return the requests of all exports and of the shutdown."""
        return chain(self.late, *(export.requests for export in self.exports))


def run_faults(expect: Json, run: Run, *, units_given: Mapping[str, str] | None = None, now: float) -> list[str]:
    """Return every error of a case.

    ``units_given`` are the CloudWatch units of the facade's metrics. If CloudWatch would reject any request, only the
    reasons are returned.
    """
    invalid = [fault for request in run.requests() for fault in request_faults(request, now=now)]
    return invalid or [
        *_misdirected(run),
        *_late_faults(run),
        *_faults_of_exports(expect, run.exports),
        *_faults_of_the_whole(expect, run, units_given),
    ]


def identity(datum: Datum) -> Identity:
    """Return the CloudWatch metric that a data point belongs to."""
    return datum["MetricName"], frozenset(dimensions_of(datum).items())


def _misdirected(run: Run) -> Iterator[str]:
    for request in run.requests():
        if request["Namespace"] != NAMESPACE:
            yield f"a request for namespace {request['Namespace']!r}"


def _late_faults(run: Run) -> Iterator[str]:
    if run.late:
        yield f"{len(run.late)} requests at shutdown, after everything was flushed"


def _faults_of_exports(expect: Json, exports: Sequence[Export]) -> Iterator[str]:
    """Check each export against its own expectation, and any further exports against the last one."""
    expectations: Sequence[Json] = expect.get("exports", [expect])
    for index, export in enumerate(exports):
        expectation = expectations[min(index, len(expectations) - 1)]
        yield from (f"export {index}: {fault}" for fault in _export_faults(expectation, export))


def _export_faults(expect: Json, export: Export) -> Iterator[str]:
    if unknown := expect.keys() - _KEYS_OF_AN_EXPORT - _KEYS_OF_THE_WHOLE:
        raise ValueError(f"unknown keys in a vector: {sorted(unknown)}")
    datums = export.datums()
    arrivals = _Arrivals(datums)
    unexplained = set(range(len(datums)))
    for entry in _entries(expect, export.metrics):
        found = arrivals.find(entry)
        unexplained.difference_update(found)
        yield from _arrival_faults(entry, [datums[index] for index in found], export.metrics)
    if "totals" not in expect:
        yield from (f"unexpected: {str(datums[index])[:200]}" for index in sorted(unexplained))
    yield from _figure_faults(expect, export, datums)
    yield from _total_faults(expect.get("totals", {}), datums)


def _entries(expect: Json, metrics: Sequence[Json]) -> Iterator[Json]:
    """Yield all expectations as entries of ``series``."""
    yield from expect.get("series", ())
    for name in expect.get("others_unaffected", ()):
        (gauge,) = (metric for metric in metrics if metric.get("name", "m") == name)
        yield from ({"name": name, "value": point["value"]} for point in gauge["points"])
    for metric in generated_metrics(expect.get("generated", {"metrics": 0})):
        yield from (_entry_of_generated(metric["name"], point) for point in metric["points"])


def _entry_of_generated(name: str, point: Json) -> Json:
    entry = {"name": name, "dims": point["attributes"]}
    if "value" in point:
        return {**entry, "value": point["value"]}
    return {
        **entry,
        "count_exact": sum(point["positive"]["counts"]),
        "sum_rel_1e-9": point["sum"],
        "min_exact": point["min"],
        "max_exact": point["max"],
        "values_within_bucket": point,
    }


class _Arrivals:
    """Data points, indexed by metric name and dimensions."""

    def __init__(self, datums: Sequence[Datum]) -> None:
        self._datums = datums
        self._indexes: dict[Identity, list[int]] = defaultdict(list)
        for index, datum in enumerate(datums):
            self._indexes[identity(datum)].append(index)

    def find(self, entry: Json) -> Sequence[int]:
        """Return the indices of the data points that an entry matches; exact dimensions need no linear search."""
        dims: Json = entry.get("dims", {})
        if "dims" in entry and all(isinstance(value, str) for value in dims.values()):
            exactly = self._indexes.get((entry.get("name", "m"), frozenset(dims.items())))
            if exactly:
                return exactly
        return [index for index, datum in enumerate(self._datums) if applies_to(entry, datum)]


def _arrival_faults(entry: Json, datums: Sequence[Datum], metrics: Sequence[Json]) -> Iterator[str]:
    """Check that an entry matches exactly one data point, or none if it may be absent."""
    label = f"{entry.get('name', 'm')} {str(entry.get('dims', ''))[:120]}".rstrip()
    if len(datums) > 1 or not (datums or entry.get("may_be_absent")):
        yield f"{label}: {len(datums)} datums"
    for datum in datums:
        yield from (f"{label}: {fault}" for fault in entry_faults(entry, datum, metrics))


def _figure_faults(expect: Json, export: Export, datums: Sequence[Datum]) -> Iterator[str]:
    figures = {
        "datums": len(datums),
        "requests": len(export.requests),
        "series_count": len(set(map(identity, datums))),
        "lost": export.lost,
    }
    for name, figure in figures.items():
        if name in expect and not _is_among(figure, expect[name]):
            yield f"{name}: {figure}, not {expect[name]}"
    if export.lost < expect.get("lost_at_least", 0):
        yield f"lost: {export.lost}, not at least {expect['lost_at_least']}"


def _total_faults(totals: Json, datums: Sequence[Datum]) -> Iterator[str]:
    every = [samples_of(datum) for datum in datums]
    count, total = sum(samples.count for samples in every), math.fsum(samples.sum for samples in every)
    if count != totals.get("count", count):
        yield f"{count} samples in all, not {totals['count']}"
    if not math.isclose(total, totals.get("sum", total), rel_tol=1e-9):
        yield f"{total} in all, not {totals['sum']}"


def _faults_of_the_whole(expect: Json, run: Run, units_given: Mapping[str, str] | None) -> Iterator[str]:
    for text, wanted in expect.get("warnings", {}).items():
        spoken = sum(text in warning for warning in run.warnings)
        if not _is_among(spoken, wanted):
            yield f"{spoken} warnings with {text!r}, not {wanted}"
    series = {identity(datum) for export in run.exports for datum in export.datums()}
    if not _is_among(len(series), expect.get("distinct_series", len(series))):
        yield f"{len(series)} different series, not {expect['distinct_series']}"
    if expect.get("ucum_round_trip") and run.units_back != units_given:
        yield f"through UCUM and back the units are {run.units_back}"


def _is_among(figure: int, wanted: int | Sequence[int]) -> bool:
    low, high = (wanted, wanted) if isinstance(wanted, int) else wanted
    return low <= figure <= high
