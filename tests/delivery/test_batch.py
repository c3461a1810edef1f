"""Encoded requests: their size is exact, they use CloudWatch's limits fully, and they match botocore's output."""

import contextlib
import json
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st

from otel_cloudwatch_flask.delivery import batch as wire
from otel_cloudwatch_flask.delivery.batch import Batch, Envelope, encoded
from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.limits import MAX_DATUMS_PER_REQUEST, MAX_REQUEST_BYTES, sendable
from otel_cloudwatch_flask.model.datum import Datum, Series, Statistics
from otel_cloudwatch_flask.model.dimensions import dimensions, metric_name
from otel_cloudwatch_flask.model.entity import Entity
from otel_cloudwatch_flask.model.units import CLOUDWATCH_UNITS
from otel_cloudwatch_flask.testing.request_rules import validation_error
from tests.support.fakes import PATIENCE_SECONDS, in_threads, join_all

NOW = 1_790_000_000
SHOP = Envelope("Shop")
SERVICE = Entity((("Type", "Service"), ("Name", "shop")), (("PlatformType", "Generic"), ("Host", "a[]b")))

numbers = st.one_of(
    st.floats(-(2.0**360), 2.0**360),
    st.integers(-(10**18), 10**18).map(float),
    st.sampled_from([0.0, -0.0, 1.0, 1e15, 1e16, 1e22, 0.1, 2.0**360, 2.0**-360, 123456789.125]),
).map(sendable)
counts = st.integers(1, 2**40)
contents = st.one_of(
    numbers,
    st.lists(st.tuples(numbers, counts), min_size=1, max_size=150).map(Distribution.of),
    st.builds(
        lambda count, total, ends: Statistics(count, total, min(ends), max(ends)),
        counts,
        numbers,
        st.tuples(numbers, numbers),
    ),
)
series = st.builds(
    Series,
    st.one_of(st.text(min_size=1, max_size=30), st.just('"Timestamp": 5, "')).map(metric_name),
    st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=5).map(dimensions),
    st.sampled_from(CLOUDWATCH_UNITS),
    st.sampled_from([1, 60]),
)
datums = st.builds(Datum, series, st.integers(NOW - 86400, NOW), contents)


def batch_of(made: list[Datum], namespace: str = "Shop") -> Batch:
    """Return a batch with all these datums."""
    return Batch(Envelope(namespace), tuple(made))


SMALLEST = len(encoded(Datum(Series("", (), "None"), NOW, 1.0)))


def sized(size_bytes: int, name: str = "") -> Datum:
    """Return a datum with encoded text of this size and a name that starts with ``name``."""
    made = Datum(Series(name.ljust(size_bytes - SMALLEST), (), "None"), NOW, 1.0)
    assert len(encoded(made)) == size_bytes
    return made


def claimed_plain_size(batch: Batch) -> int:
    """Return the package's upper bound for the size of the body that botocore would encode."""
    return wire._plain_size(batch.body().decode())


def without_blanks(body: bytes) -> bytes:
    """Return the same JSON without whitespace between tokens; order of members and number formats are unchanged."""
    return json.dumps(json.loads(body), separators=(",", ":")).encode("ascii")


def texts_in(value: Any) -> Iterator[str]:
    """Yield all strings in parsed JSON, encoded as JSON."""
    if isinstance(value, dict):
        yield from (text for member in value.values() for text in texts_in(member))
    elif isinstance(value, list):
        yield from (text for item in value for text in texts_in(item))
    elif isinstance(value, str):
        yield json.dumps(value)


FRAME_BYTES = len(b'{"Namespace":"Shop","MetricData":[]}')


class Listener:
    """A real boto3 client whose requests are captured instead of sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.client: Any = boto3.client(
            "cloudwatch",
            region_name="eu-west-1",
            aws_access_key_id="id",
            aws_secret_access_key="secret",
            config=Config(disable_request_compression=True),
        )
        self.client.meta.events.register("before-send.cloudwatch.PutMetricData", self._answer)

    def _answer(self, request: Any, **_: object) -> Any:
        self.bodies.append(request.body)
        headers: Any = {}
        response: Any = AWSResponse(request.url, 200, headers, None)
        response._content = b"{}"
        return response

    def body(self, **parameters: Any) -> bytes:
        """Return the body of a request with these parameters."""
        self.client.put_metric_data(**parameters)
        return self.bodies.pop()


@pytest.fixture(scope="module")
def listener() -> Listener:
    """A shared client, since creating one is slow."""
    return Listener()


class TestBatch:
    """A single request."""

    @given(st.lists(datums, min_size=1, max_size=5), st.sampled_from(["Shop", "My/Name space", 'a"b\\c']))
    def test_is_what_botocore_says(self, listener: Listener, made: list[Datum], namespace: str) -> None:
        """Except for whitespace, the body equals that of botocore's serializer byte for byte, and its size is exact."""
        batch = batch_of(made, namespace)
        written = listener.body(**batch.parameters())
        assert without_blanks(written) == batch.body()
        assert len(batch.body()) == batch.size_bytes
        assert json.loads(written) == json.loads(batch.body())

    @given(st.lists(datums, min_size=1, max_size=3))
    def test_entity(self, listener: Listener, made: list[Datum]) -> None:
        """With an entity, the body also matches botocore's, and CloudWatch accepts it."""
        entity = Entity((("Type", "Service"), ("Name", "shop")), (("PlatformType", "Generic"),))
        batch = replace(batch_of(made), envelope=Envelope("Shop", entity))
        written = listener.body(**batch.parameters())
        assert without_blanks(written) == batch.body()
        assert len(batch.body()) == batch.size_bytes
        assert validation_error(batch.parameters(), now=NOW) is None

    @given(st.lists(datums, max_size=5), st.sampled_from([SHOP, Envelope("Shop", SERVICE)]))
    def test_plain_size(self, listener: Listener, made: list[Datum], envelope: Envelope) -> None:
        """The predicted size of botocore's body is exact, except for one byte per comma or colon inside strings."""
        batch = replace(batch_of(made), envelope=envelope)
        written = listener.body(**batch.parameters())
        blanks_more = claimed_plain_size(batch) - len(written)
        assert blanks_more == sum(text.count(",") + text.count(":") for text in texts_in(json.loads(written)))

    @given(datums)
    def test_numbers_come_back(self, datum: Datum) -> None:
        """Every number of a datum is read back as the same double, and sample counts are read back as integers."""
        (sent,) = batch_of([datum]).parameters()["MetricData"]
        match datum.content:
            case Distribution(values, numbers_of_samples):
                assert [float(value) for value in sent["Values"]] == list(values)
                assert sent["Counts"] == list(numbers_of_samples)
                assert all(type(count) is int for count in sent["Counts"])
            case Statistics(count, total, minimum, maximum):
                expected = {"SampleCount": count, "Sum": total, "Minimum": minimum, "Maximum": maximum}
                assert sent["StatisticValues"] == expected
            case value:
                assert sent["Value"] == value

    @given(datums)
    def test_the_series_comes_back(self, datum: Datum) -> None:
        """Name, dimensions, unit, resolution and time match the datum; the default resolution is omitted."""
        (sent,) = batch_of([datum]).parameters()["MetricData"]
        assert sent["MetricName"] == datum.series.name
        assert tuple((each["Name"], each["Value"]) for each in sent["Dimensions"]) == datum.series.dimensions
        assert sent["Unit"] == datum.series.unit
        assert sent["Timestamp"].timestamp() == datum.unix_seconds
        assert sent.get("StorageResolution") == (1 if datum.series.storage_resolution == 1 else None)

    @given(st.lists(datums, max_size=5), st.sampled_from([None, SERVICE]))
    def test_the_batch_comes_back(self, made: list[Datum], entity: Entity | None) -> None:
        """Parsing a body returns the original batch, with and without an entity."""
        batch = replace(batch_of(made), envelope=Envelope("Shop", entity))
        assert Batch.from_body(batch.body()) == batch

    def test_times_are_in_utc(self) -> None:
        """Times are in UTC with and without an entity, so botocore does not look up the local time zone."""
        for envelope in (SHOP, Envelope("Shop", SERVICE)):
            parameters = Batch(envelope, (Datum(Series("orders", (), "Count"), NOW, 1.0),)).parameters()
            (part,) = parameters.get("EntityMetricData", [parameters])
            (sent,) = part["MetricData"]
            assert sent["Timestamp"] == datetime.fromtimestamp(NOW, tz=timezone.utc)

    def test_an_entity_costs_no_metrics(self) -> None:
        """The request tells CloudWatch to accept the metrics even if it rejects the entity."""
        assert Batch(Envelope("Shop", SERVICE), ()).parameters()["StrictEntityValidation"] is False

    @given(st.lists(datums, min_size=1, max_size=5))
    def test_is_accepted(self, made: list[Datum]) -> None:
        """CloudWatch accepts every batch."""
        assert validation_error(batch_of(made).parameters(), now=NOW) is None

    @pytest.mark.parametrize("number", [1, 2, 3, 1000])
    def test_halves(self, number: int) -> None:
        """The halves contain the same datums in the same order, and their lengths differ by at most one."""
        batch = Batch(SHOP, tuple(sized(100, str(i)) for i in range(number)))
        first, second = batch.halves()
        assert first.datums + second.datums == batch.datums
        assert abs(len(first.datums) - len(second.datums)) <= 1
        assert {first.envelope, second.envelope} == {SHOP}

    @pytest.mark.parametrize("given_time", [NOW, float(NOW), NOW + 0.75, str(NOW), f" {NOW} "])
    @pytest.mark.parametrize("entity", [None, SERVICE])
    def test_a_time_is_a_whole_number(self, given_time: object, entity: Entity | None) -> None:
        """A time of any numeric type is read as whole seconds."""
        expected = Batch(Envelope("Shop", entity), (Datum(Series("orders", (), "Count"), NOW, 1.0),))
        body = expected.body().replace(str(NOW).encode(), json.dumps(given_time).encode())
        assert Batch.from_body(body) == expected

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"\xff",
            b"5",
            b"[]",
            b'{"MetricData": []}',
            b'{"Namespace": "Shop"}',
            b'{"Namespace": "Shop", "MetricData": 5}',
            b'{"Namespace": "Shop", "MetricData": [5]}',
            b'{"Namespace": "Shop", "MetricData": ["MetricName"]}',
            b'{"Namespace": "Shop", "MetricData": [{"Timestamp": 5, "Value": 1}]}',
            b'{"Namespace": "Shop", "MetricData": [{"MetricName": "a", "Value": 1}]}',
            b'{"Namespace": "Shop", "MetricData": [{"MetricName": "a", "Timestamp": null, "Value": 1}]}',
            b'{"Namespace": "Shop", "MetricData": [{"MetricName": "a", "Timestamp": "now", "Value": 1}]}',
            b'{"Namespace": "Shop", "MetricData": [{"MetricName": "a", "Timestamp": [5], "Value": 1}]}',
            b'{"Namespace": "Shop", "EntityMetricData": []}',
            b'{"Namespace": "Shop", "EntityMetricData": [{"MetricData": []}]}',
        ],
    )
    def test_what_is_no_body(self, body: bytes) -> None:
        """A body that is not a batch raises one of the errors that the spool catches."""
        with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
            Batch.from_body(body)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_another_thread_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is forked while a thread of its parent encodes a series for the first time can encode others."""
    is_encoding, may_end = threading.Event(), threading.Event()
    members = Series.members

    def wait(encoding: Series) -> dict[str, Any]:
        is_encoding.set()
        may_end.wait(PATIENCE_SECONDS)
        return members(encoding)

    monkeypatch.setattr(Series, "members", wait)
    threads = in_threads(lambda: sized(120, "parent"))
    assert is_encoding.wait(PATIENCE_SECONDS)
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # raised because a thread is running
        child = os.fork()
    if child == 0:
        signal.alarm(5)
        with contextlib.suppress(BaseException):
            sized(120, "child")
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    may_end.set()
    join_all(threads)


class TestBatches:
    """Datums are packed into requests in order."""

    @pytest.mark.parametrize(
        ("number", "sizes"),
        [
            (0, []),
            (1, [1]),
            (999, [999]),
            (1000, [1000]),
            (1001, [1000, 1]),
            (2000, [1000, 1000]),
            (2001, [1000, 1000, 1]),
        ],
    )
    def test_by_number(self, number: int, sizes: list[int]) -> None:
        """A request holds at most 1000 datums, and the next one starts only when that number is reached."""
        made = list(SHOP.batches([sized(120, str(i)) for i in range(number)]))
        assert [len(batch.datums) for batch in made] == sizes
        assert [datum.series.name.strip() for batch in made for datum in batch.datums] == [
            str(i) for i in range(number)
        ]

    @pytest.mark.parametrize(("surplus", "sizes"), [(-1, [10]), (0, [10]), (1, [9, 1])])
    def test_by_bytes(self, surplus: int, sizes: list[int]) -> None:
        """A request is filled to the last byte of the limit, counting separators and envelope."""
        separators = 9 * len(b",")
        last = MAX_REQUEST_BYTES - FRAME_BYTES - separators - 9 * 90_000 + surplus
        made = list(SHOP.batches([*[sized(90_000)] * 9, sized(last)]))
        assert [len(batch.datums) for batch in made] == sizes
        assert made[0].size_bytes == (MAX_REQUEST_BYTES + surplus if len(sizes) == 1 else FRAME_BYTES + 9 * 90_000 + 8)

    @pytest.mark.parametrize(("surplus", "sizes"), [(0, [10, 1]), (1, [9, 2])])
    def test_by_bytes_with_more_to_come(self, surplus: int, sizes: list[int]) -> None:
        """The last byte is used even if more datums follow."""
        tenth = MAX_REQUEST_BYTES - FRAME_BYTES - 9 * len(b",") - 9 * 90_000 + surplus
        made = list(SHOP.batches([*[sized(90_000)] * 9, sized(tenth), sized(100)]))
        assert [len(batch.datums) for batch in made] == sizes

    def test_a_datum_alone_is_sent_in_any_case(self) -> None:
        """A datum larger than a request is sent alone, so that CloudWatch can reject it."""
        made = list(SHOP.batches([sized(100), sized(MAX_REQUEST_BYTES), sized(100)]))
        assert [len(batch.datums) for batch in made] == [1, 1, 1]

    @given(st.lists(st.integers(90, 400_000), max_size=60))
    def test_within_limits(self, sizes: list[int]) -> None:
        """No datum is lost or reordered, no request is too large, and none has room for the next one's first datum."""
        given_datums = [sized(size, str(i)) for i, size in enumerate(sizes)]
        made = list(SHOP.batches(given_datums))
        assert [datum for batch in made for datum in batch.datums] == given_datums
        assert all(len(batch.body()) == batch.size_bytes <= MAX_REQUEST_BYTES for batch in made)
        for batch, following in pairwise(made):
            is_full = len(batch.datums) == MAX_DATUMS_PER_REQUEST
            assert is_full or batch.size_bytes + 1 + len(encoded(following.datums[0])) > MAX_REQUEST_BYTES

    @given(st.lists(st.tuples(st.integers(90, 100_000), st.integers(0, 50_000)), max_size=40))
    def test_within_limits_of_botocore(self, sizes: list[tuple[int, int]]) -> None:
        """Requests that botocore encodes are also filled completely, counting the whitespace that it adds."""
        given_datums = [sized(size + commas, str(i) + commas * ",") for i, (size, commas) in enumerate(sizes)]
        made = list(replace(SHOP, is_plain=True).batches(given_datums))
        assert [datum for batch in made for datum in batch.datums] == given_datums
        assert all(claimed_plain_size(batch) <= MAX_REQUEST_BYTES for batch in made)
        for batch, following in pairwise(made):
            longer = Batch(SHOP, (*batch.datums, following.datums[0]))
            assert claimed_plain_size(longer) > MAX_REQUEST_BYTES
