"""The record of published metrics has the same statistics as CloudWatch, in bounded memory."""

import json
import math
import os
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.model.datum import Datum, Series, Statistics
from otel_cloudwatch_flask.observation.record import Observation
from otel_cloudwatch_flask.observation.tally import Tally, ValueCounts, percentiles
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.fakes import FakeClock, in_threads, join_all
from tests.support.samples import samples

NOW = 1_700_000_000
SHOP = Envelope("Shop")
LATENCY = Series("Latency", (("Page", "Index"),), "Milliseconds")

counts = st.integers(1, 1000)
contents = st.one_of(
    samples(max_size=1).map(lambda values: values[0]),
    st.lists(st.tuples(samples(max_size=1).map(lambda values: values[0]), counts), min_size=1).map(Distribution.of),
    samples(max_size=5).map(lambda values: Statistics(len(values), math.fsum(values), min(values), max(values))),
)
series = st.builds(
    Series, st.sampled_from("AB"), st.sampled_from([(), (("Page", "1"),)]), st.just("Count"), st.just(60)
)
flushes = st.lists(st.lists(st.tuples(series, contents), min_size=1, max_size=6), min_size=1, max_size=5)


def sent(*datums: tuple[Series, Any], at: int = NOW, envelope: Envelope = SHOP) -> Iterable[Batch]:
    """Return these data points in as many batches as they need."""
    return envelope.batches([Datum(series, at, content) for series, content in datums])


def observed(*flushes: Iterable[Batch], **bounds: int) -> Observation:
    """Return an observation of these flushes."""
    observation = Observation(clock=FakeClock(NOW), **bounds)
    for flush in flushes:
        for batch in flush:
            observation.observe(batch)
    return observation


@given(flushes)
def test_figures_are_those_of_cloudwatch(flushes: list[list[tuple[Series, Any]]]) -> None:
    """Sum, sample count, extremes and percentiles of each series equal those of the strict fake, bit for bit."""
    cloudwatch = FakeCloudWatch(clock=lambda: NOW)
    requests = [list(sent(*flush)) for flush in flushes]
    for batch in (batch for request in requests for batch in request):
        cloudwatch.put_metric_data(**batch.parameters())
    document = observed(*requests).document()
    assert len(document["series"]) == len(cloudwatch.metrics())
    assert document["datums"] == len(cloudwatch.datums)
    assert document["requests"] == len(cloudwatch.requests)
    for each in document["series"]:
        name, dimensions = each["metric_name"], each["dimensions"]
        assert each["sum"] == cloudwatch.sum(name, dimensions)
        assert each["samples"] == cloudwatch.count(name, dimensions)
        assert each["minimum"] == cloudwatch.minimum(name, dimensions)
        assert each["maximum"] == cloudwatch.maximum(name, dimensions)
        for percent in (50, 90, 99):
            assert each[f"p{percent}"] == percentile(cloudwatch, name, percent, dimensions)


def percentile(cloudwatch: FakeCloudWatch, name: str, percent: float, dimensions: dict[str, str]) -> float | None:
    """Return the fake's percentile, or None if CloudWatch has no percentiles for the metric."""
    if cloudwatch.minimum(name, dimensions) < 0:
        return None
    try:
        return cloudwatch.percentile(name, percent, dimensions)
    except LookupError:
        return None


@given(
    st.dictionaries(
        samples(max_size=1).map(lambda values: values[0]), counts | st.floats(2.0**-40, 2.0**40), min_size=1
    ),
    st.floats(0, 100),
)
def test_percentiles_are_by_nearest_rank(counted: dict[float, float], percent: float) -> None:
    """The fast percentile calculation agrees with exact fractions, for percentages of up to ten decimal places."""
    percent = round(percent, 10)
    values = sorted(counted)
    wanted = Fraction(str(percent)) / 100 * sum(map(Fraction, counted.values()))
    below = sum((Fraction(counted[value]) for value in values[:-1]), Fraction())
    (found,) = percentiles(values, [counted[value] for value in values], [percent])
    not_above = sum(Fraction(counted[value]) for value in values if value <= found)
    under = sum(Fraction(counted[value]) for value in values if value < found)
    rounding = 0 if all(map(float.is_integer, map(float, counted.values()))) else 1e-12 * float(below + wanted)
    assert not_above >= wanted - rounding
    assert under < wanted + rounding or found == values[0]


@given(samples(min_size=20, max_size=200))
def test_many_values_cost_precision_as_announced(recorded: list[float]) -> None:
    """Beyond the maximum number of distinct values, percentiles are off by at most the reported error."""
    values = ValueCounts(max_values=16)
    for value in recorded:
        values.add([value], [1])
    assert len(values.counts) <= 16
    percents = (1, 50, 90, 99, 100)
    exact = percentiles(sorted(recorded), [1] * len(recorded), percents)
    for expected, found in zip(exact, values.percentiles(percents), strict=True):
        assert abs(found - expected) <= max(values.error * abs(expected), values.error * abs(found))


@given(samples(max_size=60))
def test_sums_have_no_rounding_errors(recorded: list[float]) -> None:
    """The running sum equals ``math.fsum`` of all samples."""
    assert Tally.of(recorded).sum == math.fsum(recorded)


def test_the_document() -> None:
    """The document is JSON with the identity, the statistics and the last data point of each series."""
    first, second = Distribution.of([(12.5, 1)]), Distribution.of([(10, 3), (20.5, 1)])
    observation = observed(sent((LATENCY, first)), sent((LATENCY, second), at=NOW + 1))
    document = json.loads(json.dumps(observation.document()))
    assert document["namespaces"] == ["Shop"]
    assert (document["requests"], document["datums"], document["started"]) == (2, 2, NOW)
    assert document["bytes"] == sum(batch.size_bytes for each in (first, second) for batch in sent((LATENCY, each)))
    (each,) = document["series"]
    assert each == {
        "id": 1,
        "namespace": "Shop",
        "metric_name": "Latency",
        "dimensions": {"Page": "Index"},
        "unit": "Milliseconds",
        "storage_resolution": 60,
        "sum": 63.0,
        "samples": 5,
        "minimum": 10,
        "maximum": 20.5,
        "undelivered": 0.0,
        "p50": 10,
        "p90": 20.5,
        "p99": 20.5,
        "percentile_error": 0.0,
        "flushes": [
            flush(NOW, [12.5, 1, 12.5, 12.5], [12.5] * 3),
            flush(NOW + 1, [50.5, 4, 10, 20.5], [10, 20.5, 20.5]),
        ],
        "last_datum": {
            "MetricName": "Latency",
            "Dimensions": [{"Name": "Page", "Value": "Index"}],
            "Unit": "Milliseconds",
            "Timestamp": NOW + 1,
            "Values": [10, 20.5],
            "Counts": [3, 1],
        },
    }


def flush(at: int, statistics: list[float], percents: list[float]) -> dict[str, float]:
    """Return the record of a flush with one data point."""
    names = ["sum", "samples", "minimum", "maximum", "p50", "p90", "p99"]
    return {"time": at, **dict(zip(names, [*statistics, *percents], strict=True))}


def test_statistic_sets_have_no_percentiles() -> None:
    """A statistic set with different samples leaves its series without percentiles; the sums continue."""
    statistics = Statistics(3, 30.0, 5.0, 20.0)
    (each,) = observed(sent((LATENCY, 7.0)), sent((LATENCY, statistics)), sent((LATENCY, 1.0))).document()["series"]
    assert (each["p50"], each["p90"], each["p99"], each["percentile_error"]) == (None, None, None, None)
    assert (each["sum"], each["samples"], each["minimum"], each["maximum"]) == (38.0, 5, 1, 20)
    assert [flush["p50"] for flush in each["flushes"]] == [7, None, 1]


def test_negative_values_have_no_percentiles() -> None:
    """As in CloudWatch, a negative value leaves its flush and its series without percentiles."""
    (each,) = observed(sent((LATENCY, 7.0)), sent((LATENCY, -7.0))).document()["series"]
    assert (each["p50"], each["p99"], each["percentile_error"]) == (None, None, None)
    assert [flush["p50"] for flush in each["flushes"]] == [7, None]


def test_series_that_were_not_used_for_longest_are_forgotten() -> None:
    """The least recently used series are dropped, so memory is bounded; the totals continue."""
    series = [Series(f"Metric {number}", (), "Count") for number in range(4)]
    observation = observed(*(sent((series[number], 1.0)) for number in (0, 1, 2, 0, 3)), max_series=3)
    document = observation.document()
    assert [each["metric_name"] for each in document["series"]] == ["Metric 0", "Metric 2", "Metric 3"]
    assert (document["series_seen"], document["series_forgotten"], document["datums"]) == (4, 1, 5)


def test_bounds_of_a_series() -> None:
    """Only the latest flushes and a bounded number of values are kept; the sum still covers all samples."""
    datums = [(LATENCY, float(number)) for number in range(1, 1001)]
    observation = observed(*(sent(each) for each in datums), max_flushes=5, max_values=50)
    (each,) = observation.document()["series"]
    assert [flush["sum"] for flush in each["flushes"]] == [996, 997, 998, 999, 1000]
    assert (each["sum"], each["samples"]) == (500_500, 1000)
    assert 0 < each["percentile_error"] < 0.2
    assert each["p99"] == pytest.approx(990, rel=each["percentile_error"])
    assert len(observation.series(1)["last_datums"]) == 3


def test_changes_are_only_what_is_new() -> None:
    """Passing the previous response returns only the series that changed since then, with their new flushes."""
    other = Series("Orders", (), "Count")
    observation = observed(sent((LATENCY, 1.0), (other, 2.0)))
    known = observation.changes()
    assert known["series_active"] == 2
    assert len(known["series"]) == 2
    (batch,) = sent((LATENCY, 4.0), at=NOW + 5)
    observation.observe(batch)
    (each,) = observation.changes(since=known["sequence"])["series"]
    assert (each["metric_name"], each["sum"]) == ("Latency", 5)
    assert each["flushes"] == [(NOW + 5, 4, 1)]


def test_a_stranger_to_the_record() -> None:
    """An unknown series raises LookupError."""
    with pytest.raises(LookupError, match="no series 7"):
        observed().series(7)


def test_slices_of_time() -> None:
    """Accepted requests are counted in slices of ten seconds."""
    clock = FakeClock(NOW)
    observation = Observation(clock=clock)
    for _ in range(3):
        (batch,) = sent((LATENCY, 1.0))
        observation.observe(batch)
        clock.advance(6)
    slices = observation.document()["slices"]
    assert [(each["time"] - NOW, each["requests"], each["series"]) for each in slices] == [(0, 2, 1), (10, 1, 1)]


def test_namespaces_and_entities_are_told_apart() -> None:
    """The same name in two namespaces is two metrics."""
    observation = observed(sent((LATENCY, 1.0)), sent((LATENCY, 2.0), envelope=Envelope("Café".encode().hex())))
    assert [each["sum"] for each in observation.document()["series"]] == [1, 2]
    assert observation.document()["namespaces"] == ["Shop", "Café".encode().hex()]


def test_many_threads() -> None:
    """Concurrent reads do not cause measurements to be missed or counted twice."""
    observation = observed()

    def publish() -> None:
        for batch in [each for _ in range(200) for each in sent((LATENCY, 1.0))]:
            observation.observe(batch)

    join_all(in_threads(*[publish] * 4, *[lambda: [observation.changes() for _ in range(50)]] * 2))
    assert observation.document()["series"][0]["sum"] == 800


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_child_shows_nothing_of_its_parent() -> None:
    """After a fork, the child's record is empty and has a new instance ID."""
    observation = observed(sent((LATENCY, 1.0)))
    instance = observation.document()["instance"]
    child = os.fork()
    if not child:  # pragma: no cover - in the child
        document = observation.document()
        os._exit(0 if not document["series"] and document["instance"] != instance else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(observation.document()["series"]) == 1
