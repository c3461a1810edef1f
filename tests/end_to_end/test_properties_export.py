"""From the SDK's instruments to a strict fake CloudWatch, no sample is added, lost or rejected."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.delivery.compaction import compacted
from otel_cloudwatch_flask.limits import MAX_DATUMS_PER_REQUEST, MAX_REQUEST_BYTES
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.fuzzing import datum_of, effort
from tests.support.programs import CUMULATIVE, Program

SAMPLES = st.lists(st.one_of(st.floats(1e-6, 1e6), st.sampled_from([0.0, 1.0, 0.1])), min_size=1, max_size=60)
PAGES = st.integers(0, 3)


@given(
    rounds=st.lists(st.lists(st.tuples(PAGES, SAMPLES), max_size=4), min_size=1, max_size=3),
    is_cumulative=st.booleans(),
    form=st.sampled_from(["values", "statistics"]),
    is_rolled_up=st.booleans(),
)
@effort(40)
def test_histograms(
    rounds: Sequence[Sequence[tuple[int, list[float]]]], *, is_cumulative: bool, form: str, is_rolled_up: bool
) -> None:
    """Count, sum, minimum and maximum of every series and of the total match the recorded samples."""
    rule = {"distribution": form, "rollups": [[]] if is_rolled_up else []}
    program = Program(temporality=CUMULATIVE if is_cumulative else None, rules=[rule])
    histogram = program.meter.create_histogram("latency")
    recorded: dict[int, list[float]] = defaultdict(list)
    for events in rounds:
        for page, samples in events:
            recorded[page] += samples
            for sample in samples:
                histogram.record(sample, {"page": page})
        assert all(len(datum.get("Values", ())) <= 150 for datum in program.publish())
    expected = [({"page": page}, samples) for page, samples in recorded.items()]
    if is_rolled_up and recorded:
        expected.append(({}, [sample for samples in recorded.values() for sample in samples]))
    for dimensions, samples in expected:
        assert program.cloudwatch.count("latency", dimensions) == len(samples)
        assert program.cloudwatch.sum("latency", dimensions) == pytest.approx(math.fsum(samples), rel=1e-9, abs=1e-12)
        if not is_cumulative:
            assert program.cloudwatch.minimum("latency", dimensions) == min(samples)
            assert program.cloudwatch.maximum("latency", dimensions) == max(samples)
    assert len(program.cloudwatch.metrics()) == len(expected)
    assert program.lost() == {}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 5), PAGES), max_size=40), st.booleans())
@effort(40)
def test_sums(events: Sequence[tuple[str, int, int]], is_cumulative: bool) -> None:  # noqa: FBT001 - drawn
    """The published values of counters add up to their total; up-down counters are published as current values."""
    total = {"match": "orders", "rollups": [[]]}
    program = Program(temporality=CUMULATIVE if is_cumulative else None, rules=[total])
    counter, current = program.meter.create_counter("orders"), program.meter.create_up_down_counter("open")
    counted, stands = Counter[int](), Counter[int]()
    for kind, amount, page in events:
        if kind == "a":
            counter.add(abs(amount), {"page": page})
            counted[page] += abs(amount)
        elif kind == "b":
            current.add(amount, {"page": page})
            stands[page] += amount
        else:
            program.publish()
    last = {datum["Dimensions"][0]["Value"]: datum for datum in program.publish() if datum["MetricName"] == "open"}
    assert all(program.cloudwatch.sum("orders", page=page) == counted[page] for page in range(4))
    assert program.cloudwatch.sum("orders", {}) == counted.total()
    assert {page: datum["Value"] for page, datum in last.items()} == {str(page): stands[page] for page in stands}


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-9, 9)), min_size=1, max_size=5), min_size=2))
@effort(60)
def test_compaction(together: Sequence[Sequence[tuple[str, int]]]) -> None:
    """A merged series has the samples of all its parts in one datum."""
    shop = Envelope("Shop")
    apart, one = FakeCloudWatch(clock=lambda: 0), FakeCloudWatch(clock=lambda: 0)
    waiting = [Batch(shop, tuple(datum_of(name, value) for name, value in each)) for each in together]
    for cloudwatch, sent in ((apart, waiting), (one, compacted(waiting))):
        for batch in sent:
            cloudwatch.put_metric_data(**batch.parameters())
    names = {name for each in together for name, _ in each}
    assert {name: one.values(name) for name in names} == {name: apart.values(name) for name in names}
    assert len(one.datums) == len(names)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(0, 2))
@effort(20)
def test_requests_are_filled(thousands: Sequence[int], more: int) -> None:
    """No request exceeds a limit, or would have room for the first datum of the next request."""
    datums = [datum_of("n" * 200, 1)] * (sum(thousands) * 50 + more)
    made = [*Envelope("Shop").batches(datums)]
    assert [datum for batch in made for datum in batch.datums] == datums
    for batch, following in zip(made, [*made[1:], None], strict=True):
        assert len(batch.datums) <= MAX_DATUMS_PER_REQUEST
        assert batch.size_bytes == len(batch.body()) <= MAX_REQUEST_BYTES
        if following is not None:
            fuller = Batch(batch.envelope, (*batch.datums, following.datums[0]))
            assert len(fuller.datums) > MAX_DATUMS_PER_REQUEST or fuller.size_bytes > MAX_REQUEST_BYTES
