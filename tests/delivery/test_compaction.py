"""Queued datums of one series are merged into one datum with the same samples."""

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from otel_cloudwatch_flask.delivery.batch import Batch, Envelope, encoded
from otel_cloudwatch_flask.delivery.compaction import compacted
from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.model.datum import Datum, Series, Statistics

SHOP = Envelope("Shop")
SERIES = Series("Orders", (("Page", 'a "Timestamp": 7, b'),), "Count")
NUMBERS = st.floats(-1e9, 1e9).map(lambda number: round(number, 3))


def batch(*contents: float | Distribution | Statistics, series: Series = SERIES, unix_seconds: int = 100) -> Batch:
    """Return a batch of datums of one series."""
    return Batch(SHOP, tuple(Datum(series, unix_seconds, content) for content in contents))


def only_datum(batches: list[Batch]) -> dict[str, Any]:
    """Return the members of the only datum."""
    ((datum,),) = (one.datums for one in batches)
    members: dict[str, Any] = json.loads(encoded(datum))
    return members


def test_single_values_are_kept_as_values() -> None:
    """Two deltas, or two gauge values, merge into one datum with the same sum, minimum and maximum."""
    members = only_datum(compacted([batch(5.0), batch(7.0, unix_seconds=160), batch(5.0, unix_seconds=220)]))
    assert members["Values"] == [5, 7]
    assert members["Counts"] == [2, 1]
    assert members["Timestamp"] == 220
    assert members["Dimensions"] == [{"Name": "Page", "Value": 'a "Timestamp": 7, b'}]
    assert "Value" not in members


def test_statistics_are_added() -> None:
    """Merging with a datum that has only statistics yields the combined statistics."""
    members = only_datum(compacted([batch(Statistics(3, 6.0, 1.0, 3.0)), batch(Distribution((0.5, 9.0), (2, 1)))]))
    assert members["StatisticValues"] == {"SampleCount": 6, "Sum": 16, "Minimum": 0.5, "Maximum": 9}


def test_series_stay_apart() -> None:
    """Datums with a different unit, dimension or name are not merged."""
    others = [Series("Orders", (), "Count"), Series("orders", SERIES.dimensions, "Count"), Series("Orders", (), "None")]
    batches = [batch(1.0), *(batch(1.0, series=series) for series in others)]
    assert sum(len(one.datums) for one in compacted(batches)) == 4


@given(st.lists(st.lists(st.tuples(NUMBERS, st.integers(1, 9)), min_size=1, max_size=120), min_size=2, max_size=4))
def test_no_sample_is_lost(parts: list[list[tuple[float, int]]]) -> None:
    """Count, sum, minimum and maximum of the merged datum match all samples, and it has at most 150 values."""
    members = only_datum(compacted([batch(Distribution.of(part)) for part in parts]))
    samples = [sample for part in parts for sample in part]
    sent = [*zip(members["Values"], members["Counts"], strict=True)]
    assert len(sent) <= 150
    assert sum(count for _, count in sent) == sum(count for _, count in samples)
    magnitude = math.fsum(abs(value) * count for value, count in samples)
    assert math.isclose(
        math.fsum(value * count for value, count in sent),
        math.fsum(value * count for value, count in samples),
        rel_tol=0,
        abs_tol=1e-9 * magnitude,
    )
    assert min(members["Values"]) == min(value for value, _ in samples)
    assert max(members["Values"]) == max(value for value, _ in samples)
