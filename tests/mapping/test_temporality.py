import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_cloudwatch_flask.histograms.buckets import (
    ExponentialHistogram,
)
from otel_cloudwatch_flask.mapping.temporality import CumulativeToDelta, RunningSum
from tests.support.samples import explicit, exponential, samples

EXPORTER_START = 1_000
BEFORE, AFTER, LATER = 500, 2_000, 3_000


class TestSums:
    """Cumulative sums of counters."""

    @pytest.mark.parametrize(
        ("points", "deltas"),
        [
            # (start, total) of each point, and the resulting deltas
            ([(AFTER, 5)], [5]),
            ([(EXPORTER_START, 5)], [5]),
            ([(BEFORE, 5)], [None]),
            ([(BEFORE, 5), (BEFORE, 8)], [None, 3]),
            ([(AFTER, 5), (AFTER, 8), (AFTER, 8), (AFTER, 9)], [5, 3, None, 1]),
            ([(AFTER, 5), (AFTER, 3), (AFTER, 4)], [5, 3, 1]),
            ([(AFTER, 5), (LATER, 7)], [5, 7]),
            ([(AFTER, 5), (LATER, 5)], [5, 5]),
            ([(BEFORE, 5), (LATER, 2), (LATER, 6)], [None, 2, 4]),
            ([(AFTER, 2**70), (AFTER, 2**70 + 1)], [2**70, 1]),
            ([(AFTER, 0), (AFTER, 0)], [0, None]),
            ([(AFTER, 0.1), (AFTER, 0.3)], [0.1, pytest.approx(0.2)]),
            ([(AFTER, 2**53 + 1), (AFTER, 2**53 + 1 + 0.5)], [2**53 + 1, 0]),
        ],
        ids=[
            "first",
            "starts-with-the-exporter",
            "older-than-the-exporter",
            "older-then-continued",
            "continued-and-idle",
            "lowered",
            "restarted-higher",
            "restarted-equal",
            "older-then-restarted",
            "whole-numbers-beyond-doubles",
            "zero",
            "floats",
            "whole-number-rounded-to-a-double",
        ],
    )
    def test_resets(self, points: list[tuple[int, float]], deltas: list[float | None]) -> None:
        """Each increment of a cumulative sum counts once; after a reset, all of the sum counts."""
        series = CumulativeToDelta(EXPORTER_START)
        counted = [series.delta("key", start, RunningSum(total)) for start, total in points]
        assert [None if each is None else each.value for each in counted] == deltas

    @given(st.lists(st.integers(0, 2**80), min_size=1, max_size=20))
    def test_deltas_add_up(self, added: list[int]) -> None:
        """The deltas add up to the last total."""
        series = CumulativeToDelta(EXPORTER_START)
        deltas = [series.delta("key", AFTER, RunningSum(sum(added[: i + 1]))) for i in range(len(added))]
        assert sum(delta.value for delta in deltas if delta) == sum(added)

    def test_series_are_apart(self) -> None:
        """Series with different keys do not affect each other."""
        series = CumulativeToDelta(EXPORTER_START)
        assert series.delta("a", AFTER, RunningSum(5)) == RunningSum(5)
        assert series.delta("b", AFTER, RunningSum(7)) == RunningSum(7)
        assert series.delta("a", AFTER, RunningSum(6)) == RunningSum(1)


class TestHistograms:
    """Cumulative histograms."""

    @given(st.lists(samples(max_size=10), min_size=1, max_size=6), st.booleans())
    def test_deltas_are_what_was_recorded(self, recorded: list[list[float]], is_explicit: bool) -> None:  # noqa: FBT001
        """Each delta has the samples of its own interval, even if the scale becomes coarser meanwhile."""
        series = CumulativeToDelta(EXPORTER_START)
        so_far: list[float] = []
        for interval, added in enumerate(recorded):
            so_far += added
            scale = 5 - interval
            total = explicit(so_far, (0.0, 1.0, 10.0)) if is_explicit else exponential(so_far, scale)
            delta = series.delta("key", AFTER, total)
            alone = explicit(added, (0.0, 1.0, 10.0)) if is_explicit else exponential(added, scale)
            assert delta is not None
            assert delta.count == alone.count
            assert delta.buckets() == alone.buckets()
            delta.check()
            assert delta.extremes[0] in (None, min(added))
            assert delta.extremes[1] in (None, max(added))

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (explicit([1, 5], (2,)), explicit([1], (2,))),
            (explicit([1, 1], (2,)), explicit([1, 5, 5], (2,))),
            (explicit([1], (2,)), explicit([1, 5], (3,))),
            (exponential([1, 4], 0), exponential([1], 0)),
            (exponential([1, 4], 0), exponential([1, 8, 8], 0)),
            (explicit([1], (2,)), exponential([1, 5], 0)),
        ],
        ids=["fewer", "bucket-lost", "other-bounds", "exponential-fewer", "exponential-bucket-lost", "other-kind"],
    )
    def test_resets_count_in_full(self, first: ExponentialHistogram, second: ExponentialHistogram) -> None:
        """A point that does not continue the previous one counts in full, with its extremes."""
        series = CumulativeToDelta(EXPORTER_START)
        series.delta("key", AFTER, first)
        assert series.delta("key", AFTER, second) == second

    def test_new_start_counts_in_full(self) -> None:
        """A new start time is a reset, even if the numbers could continue those of the previous point."""
        series = CumulativeToDelta(EXPORTER_START)
        series.delta("key", AFTER, explicit([1], (2,)))
        restarted = explicit([1, 1], (2,))
        assert series.delta("key", LATER, restarted) == restarted

    def test_idle(self) -> None:
        """A histogram without new samples has no delta."""
        series = CumulativeToDelta(EXPORTER_START)
        total = exponential([1, 4], 3)
        assert series.delta("key", AFTER, total) == total
        assert series.delta("key", AFTER, total) is None

    def test_extremes_of_the_delta(self) -> None:
        """A cumulative minimum or maximum that did not change only bounds the samples of the delta."""
        series = CumulativeToDelta(EXPORTER_START)
        series.delta("key", AFTER, explicit([1, 9], (20,)))
        delta = series.delta("key", AFTER, explicit([1, 9, 5, 12], (20,)))
        assert delta is not None
        assert delta.extremes == (None, 12, 1, 12)
