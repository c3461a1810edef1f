"""EMF documents: their form, their limits, and writing them to streams that fail."""

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from flask import Flask

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricsReporter
from otel_cloudwatch_flask.delivery import emf
from otel_cloudwatch_flask.delivery.backlog import Backlog
from otel_cloudwatch_flask.delivery.batch import Batch
from otel_cloudwatch_flask.delivery.emf import EmfEnvelope, EmfPut
from otel_cloudwatch_flask.delivery.sender import Sender
from otel_cloudwatch_flask.delivery.stats import DeliveryStats, StatsRecorder
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.model.datum import Datum, Series, Statistics
from otel_cloudwatch_flask.testing import FakeCloudWatch

ENVELOPE = EmfEnvelope("Shop")

# Transcribed from https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/
# CloudWatch_Embedded_Metric_Format_Specification.html#CloudWatch_Embedded_Metric_Format_Specification_schema
TEXT = {"type": "string", "pattern": "^(.*)$", "minLength": 1, "maxLength": 1024}
METRIC = {
    "type": "object",
    "required": ["Name"],
    "properties": {"Name": TEXT, "Unit": {"type": "string"}, "StorageResolution": {"enum": [1, 60]}},
}
DIRECTIVE = {
    "type": "object",
    "required": ["Namespace", "Dimensions", "Metrics"],
    "properties": {
        "Namespace": TEXT,
        "Dimensions": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "array", "maxItems": 30, "items": {**TEXT, "maxLength": 250}},
        },
        "Metrics": {"type": "array", "maxItems": 100, "items": METRIC},
    },
}
SCHEMA = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer"},
                "CloudWatchMetrics": {"type": "array", "items": DIRECTIVE},
            },
        }
    },
}


def datum(
    name: str = "Orders",
    content: float | Distribution | Statistics = 1.0,
    unit: str = "Count",
    resolution: int = 60,
    **pairs: str,
) -> Datum:
    """Return a datum with these dimensions."""
    return Datum(Series(name, tuple(sorted(pairs.items())), unit, resolution), 1_800_000_000, content)


def documents(*datums: Datum) -> list[dict[str, Any]]:
    """Return the documents of these datums, and check each against the published schema."""
    lines = ENVELOPE.texts(datums)
    assert not any("\n" in line or line[0].isspace() for line in lines)
    found = list(map(json.loads, lines))
    for each in found:
        jsonschema.validate(each, SCHEMA)
    return found


def test_metrics_with_equal_dimensions_share_a_document() -> None:
    """A document has all metrics with the same time and dimensions, each with its unit and resolution."""
    first, other = documents(
        datum(Page="Index"), datum("Latency", 2.5, "Milliseconds", 1, Page="Index"), datum(Page="Cart")
    )
    directive = {
        "Namespace": "Shop",
        "Dimensions": [["Page"]],
        "Metrics": [
            {"Name": "Orders", "Unit": "Count"},
            {"Name": "Latency", "Unit": "Milliseconds", "StorageResolution": 1},
        ],
    }
    metadata = {"Timestamp": 1_800_000_000_000, "CloudWatchMetrics": [directive]}
    assert first == {"_aws": metadata, "Page": "Index", "Orders": 1, "Latency": 2.5}
    assert (other["Page"], other["Orders"]) == ("Cart", 1)


def test_one_name_with_two_units_needs_two_documents() -> None:
    """A member holds only one metric, so metrics with the same name and different units need separate documents."""
    found = documents(datum(unit="Count"), datum(unit="Bytes", content=7))
    assert [each["Orders"] for each in found] == [1, 7]


@pytest.mark.parametrize(
    ("content", "written"),
    [
        (Distribution([2.0], [1]), 2),
        (Distribution([2.0, 3.5], [2, 1]), [2, 2, 3.5]),
        (
            Distribution([2.0, 3.5], [100, 1]),
            {"Min": 2, "Max": 3.5, "Sum": 203.5, "Count": 101, "Values": [2, 3.5], "Counts": [100, 1]},
        ),
        (Statistics(3, 6.0, 1.0, 3.0), {"Min": 1, "Max": 3, "Sum": 6, "Count": 3}),
    ],
)
def test_numbers(content: Distribution | Statistics, written: object) -> None:
    """A few samples are written as an array, and many as values with counts."""
    assert documents(datum(content=content))[0]["Orders"] == written


def test_limits() -> None:
    """A document has at most 100 metrics and 100 values of a metric, and 4096 bytes."""
    wide = Distribution([1 / (number + 3) for number in range(150, 0, -1)], [1000] * 150)
    many = [datum(f"m{number:03}", content=wide if number == 7 else 1.0) for number in range(250)]
    lines = ENVELOPE.texts(many)
    found = documents(*many)
    assert max(map(len, lines)) < 4096
    assert sum("m007" in each for each in found) == 2
    halves = [each["m007"] for each in found if "m007" in each]
    assert sum(each["Count"] for each in halves) == 150_000
    assert sum(each["Sum"] for each in halves) == pytest.approx(wide.total, rel=1e-12)
    assert [value for each in halves for value in each["Values"]] == wide.values
    assert {name for each in found for name in each} - {"_aws"} == {each.series.name for each in many}


def test_names_that_collide(caplog: pytest.LogCaptureFixture) -> None:
    """A metric with the name of one of its dimensions, or ``_aws``, is renamed, and a warning is logged."""
    (found,) = documents(datum("Page", 5.0, Page="Index"), datum("_aws", 6.0, Page="Index"))
    assert (found["Page"], found["Page_"], found["_aws_"]) == ("Index", 5, 6)
    assert "Page is published as Page_: in EMF" in caplog.text


def test_a_dimension_named_like_the_metadata() -> None:
    """A dimension named ``_aws`` is renamed, and so is a metric that has the dimension's new name."""
    (found,) = documents(datum("_aws_", 5.0, _aws="Index"))
    assert (found["_aws_"], found["_aws__"]) == ("Index", 5)


def test_a_long_dimension_name_is_shortened() -> None:
    """Dimension names are cut to 250 characters, EMF's limit, which is five below that of PutMetricData."""
    series = Series("Orders", (("x" * 254 + "y", "2"), ("x" * 255, "1")), "Count")
    (found,) = documents(Datum(series, 1_800_000_000, 1.0))
    names = found["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0]
    assert [len(name) for name in names] == [250, 250]
    assert {found[name] for name in names} == {"1", "2"}


def test_properties_give_way() -> None:
    """A property becomes a member of the document, unless a metric or dimension has the same name."""
    named = datum(Page="Index")
    named.series.properties = (("Orders", "x"), ("Page", "y"), ("_aws", "z"), ("user", "Zoë"))
    (found,) = documents(named)
    assert (found["Orders"], found["Page"], found["user"]) == (1, "Index", "Zoë")


def test_bad_arguments() -> None:
    """A stream without a ``write`` method is rejected when the exporter or the reporter is created."""
    with pytest.raises(ConfigurationError, match="has no write method"):
        CloudWatchMetricExporter("Shop", output="emf", stream=object())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="has no write method"):
        CloudWatchMetricsReporter(Flask("shop"), output="emf", stream=object())  # type: ignore[arg-type]


def test_what_is_not_used(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """A client, a Region, a spool and an entity have no effect with EMF, and each is named in a warning."""
    CloudWatchMetricExporter(
        "Shop",
        output="emf",
        client=FakeCloudWatch(),
        region_name="eu-west-1",
        spool_directory=tmp_path / "spool",
        entity=True,
    )
    for name in ("client", "region_name", "spool_directory", "entity"):
        assert f"{name} is not used with output='emf'" in caplog.text
    assert not (tmp_path / "spool").exists()


class Delivery:
    """A backlog and a sender that write to a stream."""

    def __init__(self, stream: Any) -> None:
        self.recorder = StatsRecorder()
        self.backlog = Backlog(10**6, self.recorder)
        self.accepted: list[Datum] = []
        self.sender = Sender(
            lambda: EmfPut(stream),
            self.backlog,
            self.recorder,
            on_accepted=lambda batch: self.accepted.extend(batch.datums),
            has_responses=False,
        )

    def send(self, *datums: Datum, seconds: float = 30.0) -> bool:
        """Add datums and deliver them."""
        self.backlog.add(ENVELOPE.batches(datums))
        self.sender.expedite()
        return self.sender.deliver(time.monotonic() + seconds)

    def stats(self) -> DeliveryStats:
        """Return the statistics."""
        return self.recorder.stats(datums_pending=self.backlog.datums, metrics_active=0, metrics_overflowed=0)


def recent(name: str, content: float | Distribution = 1.0, page: str = "") -> Datum:
    """Return a datum with the current time."""
    return datum(name, content, Page=page)._replace(unix_seconds=int(time.time()))


class FailsAfter(io.StringIO):
    """A text stream that fails once, after this number of lines."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.left = lines

    def write(self, text: str, /) -> int:
        """Write a line or fail."""
        self.left -= 1
        if self.left == -1:
            raise OSError("No space left on device")
        return super().write(text)


@pytest.mark.parametrize("lines", range(3))
def test_a_stream_that_fails_in_the_middle(lines: int, caplog: pytest.LogCaptureFixture) -> None:
    """Only the documents that were not written are written again, and each datum and each half counts once."""
    stream = FailsAfter(lines)
    delivery = Delivery(stream)
    wide = Distribution([float(number) for number in range(150)], [1] * 150)
    sent = [recent("a", page="1"), recent("wide", wide, page="2"), recent("b", page="2")]
    assert delivery.send(*sent)
    assert delivery.stats().requests_failed == 1
    assert "No space left on device" in str(delivery.stats().last_error)
    assert "could not be sent (stream)" in caplog.text
    found = [json.loads(line) for line in stream.getvalue().splitlines() if line]
    assert sum("a" in each for each in found) == sum("b" in each for each in found) == 1
    assert sorted(value for each in found for value in each.get("wide", [])) == list(range(150))
    assert {each.series.name for each in delivery.accepted} == {"a", "wide", "b"}
    stats = delivery.stats()
    assert (stats.datums_sent, stats.datums_pending, dict(stats.datums_lost)) == (4, 0, {})


def test_times_survive_a_failure() -> None:
    """Datums that are written again after a failure keep their timestamps."""
    stream = FailsAfter(1)
    delivery = Delivery(stream)
    earlier = recent("a")._replace(unix_seconds=int(time.time()) - 60)
    assert delivery.send(recent("b", page="x"), earlier, recent("a"))
    found = [json.loads(line)["_aws"]["Timestamp"] for line in stream.getvalue().splitlines() if '"a"' in line]
    assert len(set(found)) == 2


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The read and write ends of a pipe."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def test_a_full_pipe_is_waited_for(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to a full pipe times out, and the datums stay pending until the pipe is read."""
    monkeypatch.setattr(emf, "WRITE_TIMEOUT_SECONDS", 0.05)
    reader, writer = pipe
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    with open(writer, "w", closefd=False) as stream:
        delivery = Delivery(stream)
        assert not delivery.send(recent("a"), seconds=0.2)
        assert delivery.stats().datums_pending == 1
        assert "the stream stayed full" in str(delivery.stats().last_error)
        os.read(reader, 1 << 20)
        assert delivery.send()
    assert json.loads(os.read(reader, 1 << 20))["a"] == 1


def test_a_pipe_that_is_read_slowly(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout applies to a whole line, even if the pipe has room for a part of it now and then."""
    _, writer = pipe
    waits: list[float] = []

    def has_room(_descriptor: int, seconds: float) -> bool:
        """Take a quarter of a second, on a clock that stands still otherwise."""
        waits.append(seconds)
        return seconds > 0

    monkeypatch.setattr(emf, "_has_room", has_room)
    monkeypatch.setattr(emf, "time", SimpleNamespace(monotonic=lambda: len(waits) / 4))
    with open(writer, "w", closefd=False) as stream, pytest.raises(TimeoutError):
        emf._write(stream, "y" * 60_000)
    assert waits == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_a_line_of_which_only_a_part_was_written(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """If only part of a long line fits in the pipe, the line is written again later, and its metric counts once."""
    monkeypatch.setattr(emf, "WRITE_TIMEOUT_SECONDS", 0.05)
    reader, writer = pipe
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4095 + b"\n")
    os.set_blocking(writer, True)
    os.read(reader, 4096)
    with open(writer, "w", closefd=False) as stream:
        delivery = Delivery(stream)
        assert not delivery.send(recent("a", page="y" * 6000), seconds=0.2)
        received = os.read(reader, 1 << 20)
        assert delivery.send()
    received += os.read(reader, 1 << 20)
    lines = [line for line in received.splitlines() if b'"_aws"' in line]
    assert len(lines) == 2
    assert json.loads(lines[1])["a"] == 1
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(lines[0])


@pytest.mark.parametrize("ending", ["closed", "broken", "missing"])
def test_streams_that_end(ending: str, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed, broken or missing stream counts as a failure, and no exception is raised."""
    reader, writer = pipe
    stream: Any = open(writer, "w", closefd=False)  # noqa: SIM115 - closed below
    if ending == "closed":
        stream.close()
    elif ending == "broken":
        os.close(reader)
    else:
        stream.close()
        stream = None
        monkeypatch.setattr(sys, "stdout", None)
    delivery = Delivery(stream)
    assert not delivery.send(recent("a"), seconds=0.05)
    assert delivery.stats().requests_failed >= 1
    assert (delivery.stats().datums_pending, delivery.stats().datums_possibly_duplicated) == (1, 0)


def test_old_timestamps_are_lost() -> None:
    """CloudWatch Logs does not accept events older than two weeks, so these datums count as expired."""
    stream = io.StringIO()
    delivery = Delivery(stream)
    assert delivery.send(recent("a")._replace(unix_seconds=int(time.time()) - 15 * 86400), recent("b"))
    assert dict(delivery.stats().datums_lost) == {"expired": 1}
    assert stream.getvalue().count('"b":1') == 1


def test_threads_do_not_mix_lines(pipe: tuple[int, int]) -> None:
    """Lines that several threads write to one pipe are not mixed."""
    reader, writer = pipe
    put, batch = EmfPut(open(writer, "w", closefd=False)), Batch(ENVELOPE, (datum(Page="x" * 1000),) * 50)  # noqa: SIM115
    threads = [threading.Thread(target=put, args=(batch,)) for _ in range(4)]
    received: list[bytes] = []
    drain = threading.Thread(target=lambda: received.extend(iter(lambda: os.read(reader, 65536), b"")))
    drain.start()
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    put._stream.close()  # type: ignore[union-attr]
    os.close(writer)
    drain.join(30)
    lines = b"".join(received).splitlines()
    assert len(lines) == 200
    assert all(json.loads(line)["Orders"] == 1 for line in lines)


def test_boto3_is_never_imported() -> None:
    """A process that publishes with EMF imports neither boto3 nor botocore."""
    program = """
import sys
from flask import Flask
from otel_cloudwatch_flask import CloudWatchMetricsReporter
app = Flask("shop")
reporter = CloudWatchMetricsReporter(app, "Shop")
reporter.add_metric("Orders", 2, "Count", {"Page": "Index"})
assert reporter.flush()
assert not {"boto3", "botocore"} & sys.modules.keys()
"""
    environment = {**os.environ, "CLOUDWATCH_OUTPUT": "emf", "AWS_REGION": "eu-west-1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert (json.loads(line)["Orders"], json.loads(line)["Page"]) == (2, "Index")
