"""Shutdown of an exporter races with a delivery in another thread, and every datum is still counted."""

import itertools
import signal
import sys
import threading
import time
from typing import Any

import pytest
from flask import Flask
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader, CloudWatchMetricsReporter
from otel_cloudwatch_flask.sdk.reader import readers_on
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch, client_error
from tests.support.fakes import PATIENCE_SECONDS, BlockedClient, ScriptedClient, eventually, in_threads, join_all


class Throttling:
    """A fake CloudWatch that throttles every request."""

    def put_metric_data(self, **_: Any) -> None:
        """Raise the throttling error."""
        raise client_error("ThrottlingException")


class Hanging(Throttling):
    """A fake CloudWatch that throttles after a delay."""

    def __init__(self) -> None:
        self.is_sent = threading.Event()
        self.may_answer = threading.Event()

    def put_metric_data(self, **_: Any) -> None:
        """Wait, then raise the throttling error."""
        self.is_sent.set()
        assert self.may_answer.wait(PATIENCE_SECONDS)
        super().put_metric_data()


class Signalling(Throttling):
    """A fake CloudWatch whose call is interrupted by SIGTERM."""

    def put_metric_data(self, **_: Any) -> None:
        """Run the signal handler, and then raise the throttling error."""
        signal.raise_signal(signal.SIGTERM)


def pending(client: Throttling) -> CloudWatchMetricExporter:
    """Return an exporter with one pending datum."""
    exporter = CloudWatchMetricExporter("Shop", client=client)
    reader = InMemoryMetricReader()
    MeterProvider([reader], shutdown_on_exit=False).get_meter("tests").create_counter("orders").add(1)
    collected = reader.get_metrics_data()
    assert collected is not None
    exporter.accept(collected)
    return exporter


def test_an_answer_that_is_looked_at_while_the_exporter_ends() -> None:
    """A batch returned to the closed backlog is lost with the reason ``shutdown``, and does not stay pending."""
    exporter = pending(Throttling())
    is_answered, is_closed = threading.Event(), threading.Event()
    settle = exporter.backlog.settle

    def late(remaining: Any = ()) -> None:
        is_answered.set()
        assert is_closed.wait(PATIENCE_SECONDS)
        settle(remaining)

    exporter.backlog.settle = late  # type: ignore[method-assign]  # hold the critical moment
    delivering = in_threads(lambda: exporter.force_flush(100))
    assert is_answered.wait(PATIENCE_SECONDS)
    exporter.shutdown(timeout_millis=0)
    is_closed.set()
    join_all(delivering)
    stats = exporter.stats()
    assert (stats.datums_pending, stats.datums_lost) == (0, {"shutdown": 1})


def test_a_request_that_is_sent_while_the_exporter_ends() -> None:
    """The outcome of a request that ends after shutdown is still counted."""
    client = Hanging()
    exporter = pending(client)
    delivering = in_threads(lambda: exporter.force_flush(100))
    assert client.is_sent.wait(PATIENCE_SECONDS)
    exporter.shutdown(timeout_millis=0)
    assert exporter.stats().datums_pending == 1
    client.may_answer.set()
    join_all(delivering)
    assert (exporter.stats().datums_pending, exporter.stats().datums_lost) == (0, {"shutdown": 1})


def test_a_batch_that_is_about_to_be_sent_while_the_exporter_ends() -> None:
    """Shutdown does not wait for the call, and the batch is still counted."""
    exporter = pending(Throttling())
    is_taken, is_closed = threading.Event(), threading.Event()
    check_out = exporter.backlog.check_out

    def late(**arguments: bool) -> Any:
        batch = check_out(**arguments)
        is_taken.set()
        assert is_closed.wait(PATIENCE_SECONDS)
        return batch

    exporter.backlog.check_out = late  # type: ignore[method-assign]  # hold the critical moment
    delivering = in_threads(lambda: exporter.force_flush(100))
    assert is_taken.wait(PATIENCE_SECONDS)
    assert exporter.sender.is_calling  # as shutdown of a reader does
    exporter.shutdown(timeout_millis=0)
    is_closed.set()
    join_all(delivering)
    assert (exporter.stats().datums_pending, exporter.stats().datums_lost) == (0, {"shutdown": 1})


def test_a_flush_that_goes_on_when_the_reader_ends() -> None:
    """A flush in progress makes no calls after shutdown begins; the last flush delivers the remaining data."""
    client = BlockedClient()
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=client), export_interval_seconds=1e6)
    counter = MeterProvider([reader], shutdown_on_exit=False).get_meter("tests").create_counter("orders")
    counter.add(1)
    reader.request_flush()
    assert client.entered.wait(PATIENCE_SECONDS)
    counter.add(10)
    ending = in_threads(lambda: reader.shutdown(timeout_millis=PATIENCE_SECONDS * 1000))
    assert eventually(lambda: reader.exporter.stats().datums_pending == 2)
    client.released.set()
    join_all(ending)
    assert client.cloudwatch.sum("orders") == 11
    assert reader.exporter.stats().datums_lost == {}


def flush_interrupted(at_line: int) -> bool:
    """Flush, and shut down after ``at_line`` lines, as a signal handler may. Return whether the flush got that far."""
    client = ScriptedClient()
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=client), export_interval_seconds=1e6)
    counter = MeterProvider([reader], shutdown_on_exit=False).get_meter("tests").create_counter("orders")
    counter.add(1)
    lines, took = itertools.count(), []

    def trace(_frame: object, event: str, _argument: object) -> Any:
        if event == "line" and next(lines) == at_line:
            sys.settrace(None)
            counter.add(10)
            begun = time.monotonic()
            reader.shutdown(timeout_millis=PATIENCE_SECONDS * 1000)
            took.append(time.monotonic() - begun)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        reader.flush(PATIENCE_SECONDS)
    finally:
        sys.settrace(before)
    reader.shutdown()
    assert client.cloudwatch.sum("orders") == (11 if took else 1), at_line
    assert reader.exporter.stats().datums_lost == {}
    assert max(took, default=0) < 5, at_line
    return bool(took)


def test_a_shutdown_in_the_middle_of_a_flush() -> None:
    """A signal handler that shuts down at any line of a flush returns early, and no measurement is lost."""
    interrupted = list(itertools.takewhile(flush_interrupted, itertools.count()))
    assert len(interrupted) > 30


def test_a_signal_in_the_middle_of_a_call() -> None:
    """A signal handler that shuts down in the middle of a call returns early, and the batch is counted."""
    client = Signalling()
    exporter = pending(client)

    def end(*_: object) -> None:
        begun = time.monotonic()
        assert not exporter.force_flush(10_000)
        exporter.shutdown(timeout_millis=10_000)
        assert time.monotonic() - begun < 5
        raise SystemExit

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit):
            exporter.force_flush()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (exporter.stats().datums_pending, exporter.stats().datums_lost) == (0, {"shutdown": 1})


@pytest.mark.parametrize(("client", "sent", "lost"), [(FakeCloudWatch(), 1, {}), (Throttling(), 0, {"shutdown": 1})])
def test_a_shutdown_in_the_readers_thread(client: Any, sent: int, lost: dict[str, int]) -> None:
    """A callback, or an object that the garbage collector finalizes in the reader's thread, may shut down the reader.

    The thread then makes the final flush and closes the exporter.
    """
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=client), export_interval_seconds=1e6)
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("tests")
    problems: list[BaseException] = []

    def observe(_options: CallbackOptions) -> list[Observation]:
        try:
            reader.shutdown(timeout_millis=100)
        except RuntimeError as error:
            problems.append(error)
        return []

    meter.create_counter("orders").add(1)
    meter.create_observable_gauge("level", [observe])
    reader.request_flush()
    join_all([reader.thread])
    assert problems == []
    assert reader.exporter.is_shut_down
    stats = reader.exporter.stats()
    assert (stats.datums_sent, stats.datums_lost) == (sent, lost)


def test_a_shutdown_that_cannot_collect(caplog: pytest.LogCaptureFixture) -> None:
    """If a callback hangs, measurements that shutdown cannot collect are counted as lost and logged.

    If the callback returns later, the collected datum is counted as lost instead.
    """
    released, cloudwatch = threading.Event(), FakeCloudWatch()
    provider = MeterProvider(shutdown_on_exit=False)
    reporter = CloudWatchMetricsReporter(Flask("shop"), "Shop", cloudwatch, meter_provider=provider, flush="interval")
    (reader,) = readers_on(provider)
    for _ in range(10):
        reporter.add_metric("Orders", 1)
    assert reporter.flush()
    for _ in range(100):
        reporter.add_metric("Orders", 1)

    def observe(_options: CallbackOptions) -> list[Observation]:
        assert released.wait(PATIENCE_SECONDS)
        return []

    provider.get_meter("tests").create_observable_gauge("slow", [observe])
    begun = time.monotonic()
    reporter.shutdown(timeout_seconds=0.1)
    assert time.monotonic() - begun < 0.6
    assert (reporter.stats().datums_lost, reporter.stats().measurements_lost) == ({}, {"shutdown": 100})
    assert "100 measurements recorded with add_metric" in caplog.text
    released.set()
    join_all([reader.thread])
    stats = reporter.stats()
    assert (stats.datums_pending, stats.datums_lost, stats.measurements_lost) == (0, {"shutdown": 1}, {})
    assert cloudwatch.sum("Orders") == 10
