"""Arbitrary or damaged files in a spool do not affect the batches around them, and do not stay pending forever."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from otel_cloudwatch_flask.delivery.backlog import Backlog
from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.delivery.boto_client import plain_put
from otel_cloudwatch_flask.delivery.sender import Sender
from otel_cloudwatch_flask.delivery.spool import Spool, _checked
from otel_cloudwatch_flask.delivery.stats import StatsRecorder
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.fakes import FakeClock, PassingWaits
from tests.support.fuzzing import datum_of, effort

NOW = 1_790_000_000

VALID = json.loads(Batch(Envelope("Shop"), (datum_of("Sick", 1, unix_seconds=NOW),)).body())

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
MEMBERS = ["MetricName", "Dimensions", "Unit", "Timestamp", "Value", "Values", "Counts", "StatisticValues", "Other"]
DATUMS = st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=4).map(
    lambda some: {**VALID["MetricData"][0], **some}
)
TIMES = st.one_of(st.integers(), st.floats(), st.sampled_from([str(NOW), True, 10**30, -(10**30), 1e300, None]))
ENTITY = st.one_of(JSON, st.just({"KeyAttributes": {"Type": "Service"}, "Attributes": {}}))
BODIES = st.one_of(
    JSON,
    st.fixed_dictionaries({"Namespace": st.one_of(st.just("Shop"), JSON), "MetricData": st.lists(DATUMS, max_size=3)}),
    TIMES.map(lambda time: {**VALID, "MetricData": [{**VALID["MetricData"][0], "Timestamp": time}]}),
    st.builds(
        lambda entity, data: {"Namespace": "Shop", "EntityMetricData": [{"Entity": entity, "MetricData": data}]},
        ENTITY,
        st.lists(DATUMS, max_size=2),
    ),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file with some bytes changed, removed or inserted."""
    content = bytearray(_checked(json.dumps(VALID).encode()))
    for _ in range(draw(st.integers(1, 3))):
        at, change = draw(st.integers(0, len(content))), draw(st.binary(max_size=4))
        content[at : at + draw(st.integers(0, 4))] = change
    return bytes(content)


FILES = st.one_of(
    st.binary(max_size=300),
    mutated(),
    BODIES.map(lambda body: _checked(json.dumps(body).encode())),  # with a valid checksum
)


def datum(**members: Any) -> bytes:
    """Return a spool file with a datum that has these members."""
    return _checked(json.dumps({**VALID, "MetricData": [{**VALID["MetricData"][0], **members}]}).encode())


def put(directory: Path, content: bytes) -> None:
    """Leave three files as an ended process would: two batches with this content between them."""
    spool = Spool(directory)
    for name in ("Before", "Sick", "After"):
        path = spool.write(Batch(Envelope("Shop"), (datum_of(name, 1, unix_seconds=NOW),)))
        assert path is not None
        if name == "Sick":
            path.write_bytes(content)
    spool.release()


@given(FILES)
@example(datum(Timestamp=math.inf))
@example(datum(Timestamp=10**30))
@example(datum(Timestamp=str(NOW)))
@example(datum(Timestamp=True))
@example(_checked(b"[" * 100_000))
@example(
    _checked(b'{"Namespace": "Shop", "MetricData": [{"MetricName": "Sick", "Value": 1, "Timestamp": 9999999999}]}')
)
@effort(150)
def test_it_costs_itself(content: bytes) -> None:
    """The next process delivers the batches before and after the file once, and no datum stays pending."""
    cloudwatch = FakeCloudWatch(clock=lambda: NOW)
    clock, recorder = FakeClock(), StatsRecorder()
    with tempfile.TemporaryDirectory() as name:
        put(Path(name), content)
        spool = Spool(Path(name))
        backlog = Backlog(10**6, recorder, spool)
        sender = Sender(
            lambda: plain_put(cloudwatch), backlog, recorder, clock=clock, wall_clock=lambda: NOW + clock.now - 1000
        )
        sender._expedited = PassingWaits(clock)
        backlog.adopt_spooled(math.inf)
        assert sender.deliver(clock.now + 3600)
        assert [cloudwatch.count(name) for name in ("Before", "After")] == [1, 1]
        stats = recorder.stats(datums_pending=backlog.datums, metrics_active=0, metrics_overflowed=0)
        assert stats.datums_sent == len(cloudwatch.datums)
        assert backlog.size_bytes == 0
        spool.close()
        assert not list(Path(name).glob("process-*"))
