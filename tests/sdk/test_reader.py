"""The reader and its thread, with clients that count, fail and hang."""

import errno
import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from opentelemetry.metrics import CallbackOptions, Counter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader
from otel_cloudwatch_flask.delivery.boto_client import Client
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.runtime.process import call_after_fork
from otel_cloudwatch_flask.sdk.exporter import live_exporters
from otel_cloudwatch_flask.sdk.internals import consumer_of
from otel_cloudwatch_flask.sdk.reader import live_readers, readers_on
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch, client_error
from tests.support.fakes import PATIENCE_SECONDS, BlockedClient, ScriptedClient, eventually, in_threads, join_all

NEVER = 1e6

THREE_HANGING_READERS = """
import atexit, time
from opentelemetry.sdk.metrics import MeterProvider
from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader
from otel_cloudwatch_flask.sdk import reader
from tests.support.fakes import BlockedClient

reader.EXIT_TIMEOUT_SECONDS = 2.0
atexit.register(lambda: print(time.monotonic() - begun))
for client in [BlockedClient(), BlockedClient(), BlockedClient()]:
    one = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=client))
    MeterProvider([one]).get_meter("tests").create_counter("orders").add(1)
    one.request_flush()
    assert client.entered.wait(30)
begun = time.monotonic()
"""


class Reading:
    """A provider with a reader that collects only on request, unless an interval is given."""

    def __init__(
        self,
        client: Client,
        *,
        interval_seconds: float = NEVER,
        min_interval_seconds: float = 0.0,
        is_added: bool = False,
        **exporter: Any,
    ) -> None:
        self.exporter = CloudWatchMetricExporter("Shop", client=client, **exporter)
        self.reader = CloudWatchMetricReader(
            self.exporter,
            export_interval_seconds=interval_seconds,
            flush_min_interval_seconds=min_interval_seconds,
        )
        self.provider = MeterProvider([] if is_added else [self.reader], shutdown_on_exit=False)
        self.counter: Counter = self.provider.get_meter("tests").create_counter("orders")
        if is_added:
            self.provider.add_metric_reader(self.reader)


@pytest.fixture
def cloudwatch() -> FakeCloudWatch:
    """A strict in-memory fake CloudWatch."""
    return FakeCloudWatch()


@pytest.fixture
def reading(cloudwatch: FakeCloudWatch) -> Iterator[Reading]:
    """A reader that sends to a fake CloudWatch."""
    reading = Reading(cloudwatch)
    yield reading
    reading.reader.shutdown(timeout_millis=1000)


def resting(seconds: float) -> Exception:
    """Return a throttling error with a ``Retry-After`` header."""
    error = client_error("ThrottlingException")
    error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] = str(seconds)
    return error


class TestFlush:
    """The result of ``flush`` is correct."""

    def test_true_when_it_is_in(self, reading: Reading, cloudwatch: FakeCloudWatch) -> None:
        """``True`` means that all measurements recorded before the call are in CloudWatch."""
        for i in range(1, 6):
            reading.counter.add(1)
            assert reading.reader.flush()
            assert cloudwatch.sum("orders") == i

    def test_true_when_there_is_nothing(self, reading: Reading, cloudwatch: FakeCloudWatch) -> None:
        """A flush without measurements returns ``True``."""
        assert reading.reader.flush()
        assert cloudwatch.requests == []

    def test_false_while_it_is_not(self) -> None:
        """``False`` if CloudWatch does not accept the data within the timeout; ``True`` once it does."""
        client = ScriptedClient(resting(1000))
        reading = Reading(client)
        reading.counter.add(1)
        begun = time.monotonic()
        assert not reading.reader.flush(timeout_seconds=0.2)
        assert time.monotonic() - begun < 2
        reading.exporter.sender.expedite()
        assert reading.reader.flush()
        assert client.cloudwatch.sum("orders") == 1
        reading.reader.shutdown()

    def test_false_when_it_was_lost(self) -> None:
        """``False`` if CloudWatch rejected some of the data, even though no data is pending."""
        reading = Reading(ScriptedClient(client_error("InvalidParameterValue")))
        reading.counter.add(1)
        assert not reading.reader.flush()
        assert reading.exporter.stats().datums_lost == {"refused": 1}
        assert reading.reader.flush()
        reading.reader.shutdown()

    def test_false_for_each_who_waited_for_what_was_lost(self) -> None:
        """If CloudWatch rejects data of a shared flush, both callers get ``False``."""
        entered, released, refusing = threading.Event(), threading.Event(), threading.Event()

        class Client:
            def put_metric_data(self, **_: Any) -> None:
                if refusing.is_set():
                    raise client_error("InvalidParameterValue")
                entered.set()
                released.wait(PATIENCE_SECONDS)

        reading = Reading(Client())
        reading.counter.add(1)
        reading.reader.request_flush()
        assert entered.wait(PATIENCE_SECONDS)
        reading.counter.add(1)  # recorded before both calls
        answers: list[bool] = []
        threads = in_threads(*[lambda: answers.append(reading.reader.flush())] * 2)
        assert eventually(lambda: reading.reader._inbox.qsize() == 2)
        refusing.set()
        released.set()
        join_all(threads)
        assert answers == [False, False]
        reading.reader.shutdown()

    def test_hanging_client(self) -> None:
        """``False`` at the timeout if the request hangs."""
        client = BlockedClient()
        reading = Reading(client)
        reading.counter.add(1)
        reading.reader.request_flush()
        assert client.entered.wait(PATIENCE_SECONDS)
        begun = time.monotonic()
        assert not reading.reader.flush(timeout_seconds=0.1)
        assert time.monotonic() - begun < 2
        client.released.set()
        assert reading.reader.flush()
        reading.reader.shutdown()

    def test_force_flush(self, reading: Reading, cloudwatch: FakeCloudWatch) -> None:
        """The provider's ``force_flush`` flushes the reader."""
        reading.counter.add(1)
        assert reading.provider.force_flush()
        assert cloudwatch.sum("orders") == 1

    def test_those_who_ask_together_share(self) -> None:
        """Sixteen concurrent flushes cause few requests, and each returns after its data is delivered."""
        client = ScriptedClient(before_each=lambda: threading.Event().wait(0.05))
        reading = Reading(client)
        answers: list[bool] = []

        def record_and_flush() -> None:
            reading.counter.add(1)
            answers.append(reading.reader.flush())

        begun = time.monotonic()
        join_all(in_threads(*[record_and_flush] * 16))
        assert time.monotonic() - begun < 16 * 0.05
        assert answers == [True] * 16
        assert client.cloudwatch.sum("orders") == 16
        assert len(client.calls) <= 4
        reading.reader.shutdown()


class Counting(BlockedClient):
    """A fake CloudWatch that blocks in each call until released, and records the sum of each request."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = threading.Semaphore(0)
        self.sums: list[float] = []

    def put_metric_data(self, **request: Any) -> Any:
        """Record the sum of the request, block, then accept."""
        self.sums.append(sum(datum["Value"] for datum in request["MetricData"]))
        assert self.may_answer.acquire(timeout=PATIENCE_SECONDS)
        return self.cloudwatch.put_metric_data(**request)


class TestSharing:
    """One flush serves all callers that called ``flush`` before it began."""

    def test_one_flush_serves_all_who_wait(self) -> None:
        """Sixteen calls during a flush share the next one, so there are two requests, not seventeen."""
        client = Counting()
        reading = Reading(client)
        answers: list[bool] = []

        def record_and_flush() -> None:
            reading.counter.add(1)
            answers.append(reading.reader.flush(PATIENCE_SECONDS))

        first = in_threads(record_and_flush)
        assert eventually(lambda: client.sums == [1])
        others = in_threads(*[record_and_flush] * 16)
        assert eventually(lambda: reading.reader._inbox.qsize() == 16)
        client.may_answer.release()
        assert eventually(lambda: client.sums == [1, 16])
        join_all(first)
        assert answers == [True]  # the flush in progress serves no later calls
        client.may_answer.release()
        join_all(others)
        assert answers == [True] * 17
        reading.reader.shutdown()

    def test_a_flush_in_progress_does_not_count(self) -> None:
        """A flush that began before the call does not serve the caller, even if it succeeds."""
        client = Counting()
        reading = Reading(client)
        reading.counter.add(1)
        reading.reader.request_flush()
        assert eventually(lambda: client.sums == [1])
        answers: list[bool] = []
        reading.counter.add(10)
        threads = in_threads(lambda: answers.append(reading.reader.flush(PATIENCE_SECONDS)))
        assert eventually(lambda: reading.reader._inbox.qsize() == 1)
        client.may_answer.release()
        assert eventually(lambda: client.sums == [1, 10])
        assert answers == []
        client.may_answer.release()
        join_all(threads)
        assert answers == [True]
        reading.reader.shutdown()

    def test_each_leaves_at_its_own_deadline(self) -> None:
        """A caller whose timeout expires gets ``False``; the flush continues until the other caller's timeout."""
        client = Counting()
        reading = Reading(client)
        reading.counter.add(1)
        answers: list[bool] = []
        threads = in_threads(lambda: answers.append(reading.reader.flush(PATIENCE_SECONDS)))
        assert eventually(lambda: client.sums == [1])
        begun = time.monotonic()
        assert not reading.reader.flush(0.05)
        assert not reading.reader.flush(0)
        assert time.monotonic() - begun < 2
        client.may_answer.release()
        join_all(threads)
        assert answers == [True]
        reading.reader.shutdown()

    def test_the_latest_deadline_counts(self) -> None:
        """A shared flush continues, with retries, until the latest deadline of its callers."""
        may_go_on = threading.Event()
        client = ScriptedClient(None, resting(0.3), before_each=lambda: may_go_on.wait(PATIENCE_SECONDS))
        reading = Reading(client)
        reading.counter.add(1)
        first = in_threads(reading.reader.flush)
        assert eventually(lambda: reading.exporter.sender.is_calling)
        reading.counter.add(1)
        answers: list[tuple[str, bool]] = []
        threads = in_threads(
            lambda: answers.append(("short", reading.reader.flush(0.2))),
            lambda: answers.append(("long", reading.reader.flush(PATIENCE_SECONDS))),
        )
        assert eventually(lambda: reading.reader._inbox.qsize() == 2)
        may_go_on.set()
        join_all([*first, *threads])
        assert answers == [("short", False), ("long", True)]
        reading.reader.shutdown()

    def test_without_a_deadline(self, reading: Reading, cloudwatch: FakeCloudWatch) -> None:
        """A flush accepts an unlimited timeout."""
        reading.counter.add(1)
        assert reading.reader.flush(math.inf)
        assert cloudwatch.sum("orders") == 1

    def test_at_once_in_an_outage(self) -> None:
        """If CloudWatch's ``Retry-After`` ends after the deadline, a flush returns immediately."""
        reading = Reading(ScriptedClient(resting(1000)))
        reading.counter.add(1)
        begun = time.monotonic()
        assert not reading.reader.flush(timeout_seconds=PATIENCE_SECONDS)
        assert not reading.reader.flush(timeout_seconds=PATIENCE_SECONDS)
        assert time.monotonic() - begun < PATIENCE_SECONDS / 2
        reading.reader.shutdown(timeout_millis=0)


class TestOutage:
    """CloudWatch accepts no requests."""

    def test_flushes_collect_nothing(self) -> None:
        """Deltas accumulate in the SDK during the outage, and then arrive in two requests."""
        client = ScriptedClient(resting(1000))
        reading = Reading(client)
        for _ in range(20):
            reading.counter.add(1)
            assert not reading.reader.flush()
        assert reading.exporter.stats().datums_pending == 1
        reading.exporter.sender.expedite()
        assert reading.reader.flush()
        assert client.cloudwatch.sum("orders") == 20
        assert len(client.cloudwatch.requests) == 2
        reading.reader.shutdown()


class TestRequests:
    """``request_flush`` returns immediately, and the reader's thread flushes."""

    def test_served(self, reading: Reading, cloudwatch: FakeCloudWatch) -> None:
        """Measurements recorded before the call arrive soon."""
        reading.counter.add(1)
        reading.reader.request_flush()
        assert eventually(lambda: cloudwatch.sum("orders") == 1)

    def test_never_waits(self) -> None:
        """The call returns immediately, even if CloudWatch hangs."""
        client = BlockedClient()
        reading = Reading(client)
        begun = time.monotonic()
        for _ in range(200):
            reading.counter.add(1)
            reading.reader.request_flush()
        assert time.monotonic() - begun < 1
        client.released.set()
        assert eventually(lambda: client.cloudwatch.sum("orders") == 200)
        reading.reader.shutdown()

    def test_coalesced(self) -> None:
        """The first flush begins immediately; two hundred more requested within one interval become one flush."""
        client = ScriptedClient()
        reading = Reading(client, min_interval_seconds=0.3)
        begun = time.monotonic()
        for _ in range(200):
            reading.counter.add(1)
            reading.reader.request_flush()
        assert eventually(lambda: client.calls)
        first_after = time.monotonic() - begun
        assert eventually(lambda: client.cloudwatch.sum("orders") == 200)
        assert first_after < 0.3
        assert len(client.calls) <= 2
        reading.reader.shutdown()

    def test_at_most_one_each_interval(self) -> None:
        """While flushes are requested continuously, there is one per interval."""
        client = ScriptedClient()
        reading = Reading(client, min_interval_seconds=0.1)
        begun = time.monotonic()

        def ask_and_see() -> bool:
            reading.counter.add(1)
            reading.reader.request_flush()
            return time.monotonic() - begun > 0.55

        assert eventually(ask_and_see)
        calls, seconds = len(client.calls), time.monotonic() - begun
        assert 2 <= calls <= seconds / 0.1 + 1
        reading.reader.shutdown()

    def test_the_first_after_a_pause_happens_at_once(self, reading: Reading, cloudwatch: FakeCloudWatch) -> None:
        """Only flushes that called CloudWatch delay the next one; a flush that had no data to send does not."""
        reading.reader._settings = replace(reading.reader.settings, flush_min_interval_seconds=NEVER)
        assert reading.reader.flush()
        reading.counter.add(1)
        reading.reader.request_flush()
        assert eventually(lambda: cloudwatch.sum("orders") == 1)
        assert reading.reader._exporter.stats().requests_sent == 1


class TestInterval:
    """Periodic collection."""

    def test_collects_on_its_interval(self, cloudwatch: FakeCloudWatch) -> None:
        """In every interval, measurements arrive without a flush."""
        reading = Reading(cloudwatch, interval_seconds=0.03)
        for i in range(1, 4):
            reading.counter.add(1)
            assert eventually(lambda i=i: cloudwatch.sum("orders") == i)  # type: ignore[misc]
        reading.reader.shutdown()

    @pytest.mark.parametrize("field", ["export_interval_seconds", "flush_min_interval_seconds"])
    def test_unusable(self, field: str) -> None:
        """A negative interval is rejected at setup."""
        with pytest.raises(ConfigurationError, match=field):
            CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=FakeCloudWatch()), **{field: -1.0})

    def test_failing_callbacks_do_not_end_the_thread(self, cloudwatch: FakeCloudWatch) -> None:
        """After any error in an observable's callback, the reader continues."""
        reading = Reading(cloudwatch, interval_seconds=0.03)
        failing = threading.Event()

        def observe(_options: CallbackOptions) -> list[Observation]:
            failing.set()
            raise RuntimeError("a bug in somebody's callback")

        reading.provider.get_meter("tests").create_observable_gauge("sick", [observe])
        assert failing.wait(PATIENCE_SECONDS)
        reading.counter.add(1)
        assert eventually(lambda: cloudwatch.sum("orders") == 1)
        reading.reader.shutdown()


class TestAttachment:
    """A reader can be attached to a provider in several ways."""

    @pytest.mark.parametrize("is_added", [False, True], ids=["constructor", "added"])
    def test_attached(self, cloudwatch: FakeCloudWatch, is_added: bool) -> None:  # noqa: FBT001 - a column of the table
        """The reader works and is listed whether it is passed to the provider's constructor or added later."""
        reading = Reading(cloudwatch, is_added=is_added)
        assert readers_on(reading.provider) == [reading.reader]
        assert consumer_of(reading.reader) is consumer_of(reading.provider) is not None
        reading.counter.add(2)
        assert reading.reader.flush()
        assert cloudwatch.sum("orders") == 2
        reading.counter.add(3)
        reading.reader.shutdown()
        assert cloudwatch.sum("orders") == 5
        assert readers_on(reading.provider) == []

    def test_on_no_provider(self, cloudwatch: FakeCloudWatch) -> None:
        """A reader without a provider has no data to send, and raises no error."""
        reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=cloudwatch))
        assert reader.flush()
        reader.shutdown()
        assert consumer_of(object()) is None
        assert readers_on(object()) == []

    def test_beside_another_reader(self, cloudwatch: FakeCloudWatch) -> None:
        """Other readers keep their temporality and aggregation, and get the same measurements."""
        other = InMemoryMetricReader()
        exporter = CloudWatchMetricExporter("Shop", client=cloudwatch)
        reader = CloudWatchMetricReader(exporter, export_interval_seconds=NEVER)
        provider = MeterProvider([other, reader], shutdown_on_exit=False)
        counter = provider.get_meter("tests").create_counter("orders")
        for _ in range(3):
            counter.add(1)
            assert reader.flush()
        collected = other.get_metrics_data()
        assert collected is not None
        (metric,) = collected.resource_metrics[0].scope_metrics[0].metrics
        assert [getattr(point, "value", None) for point in metric.data.data_points] == [3]
        assert cloudwatch.sum("orders") == 3
        provider.shutdown()


class TestShutdown:
    """Shutdown of the reader."""

    @pytest.mark.parametrize("by_provider", [False, True])
    def test_flushes(self, cloudwatch: FakeCloudWatch, by_provider: bool) -> None:  # noqa: FBT001 - a column of the table
        """Shutdown delivers all measurements and ends the thread; further calls do nothing."""
        reading = Reading(cloudwatch)
        reading.counter.add(1)
        (reading.provider if by_provider else reading.reader).shutdown()
        assert cloudwatch.sum("orders") == 1
        assert eventually(lambda: not reading.reader.thread.is_alive())
        reading.reader.shutdown()
        reading.reader.shutdown(timeout_millis=0)
        assert len(cloudwatch.requests) == 1

    def test_at_once_after_an_outage(self) -> None:
        """Shutdown does not wait for CloudWatch's ``Retry-After``."""
        client = ScriptedClient(resting(1000))
        reading = Reading(client)
        reading.counter.add(1)
        assert not reading.reader.flush(timeout_seconds=0.05)
        reading.counter.add(1)
        begun = time.monotonic()
        reading.reader.shutdown(timeout_millis=5000)
        assert time.monotonic() - begun < 2
        assert client.cloudwatch.sum("orders") == 2

    def test_wakes_a_worker_that_rests(self) -> None:
        """Shutdown ends the reader thread's wait for the next attempt."""
        client = ScriptedClient(resting(20))
        reading = Reading(client)
        reading.counter.add(1)
        reading.reader.request_flush()
        assert eventually(lambda: reading.exporter.stats().requests_failed == 1)
        begun = time.monotonic()
        reading.reader.shutdown(timeout_millis=5000)
        assert time.monotonic() - begun < 2
        assert client.cloudwatch.sum("orders") == 1

    def test_bounded_when_the_client_hangs(self) -> None:
        """If the client never returns, shutdown and further calls return within the timeout."""
        client = BlockedClient()
        reading = Reading(client)
        reading.counter.add(1)
        reading.reader.request_flush()
        assert client.entered.wait(PATIENCE_SECONDS)
        begun = time.monotonic()
        reading.reader.shutdown(timeout_millis=500)
        reading.reader.shutdown(timeout_millis=500)
        assert time.monotonic() - begun < 1.5
        client.released.set()
        assert eventually(lambda: reading.exporter.stats().datums_pending == 0, within_seconds=2)
        stats = reading.exporter.stats()
        assert stats.datums_sent + sum(stats.datums_lost.values()) == 1

    def test_bounded_when_the_last_request_hangs(self) -> None:
        """Shutdown also returns within the timeout if its own last flush hangs."""
        client = BlockedClient()
        reading = Reading(client)
        reading.counter.add(1)
        begun = time.monotonic()
        reading.reader.shutdown(timeout_millis=500)
        assert time.monotonic() - begun < 1.5
        client.released.set()
        assert eventually(lambda: reading.exporter.stats().datums_pending == 0, within_seconds=2)
        stats = reading.exporter.stats()
        assert stats.datums_sent + sum(stats.datums_lost.values()) == 1

    def test_counts_what_is_lost(self) -> None:
        """Datums that cannot be sent in time are counted as lost."""
        reading = Reading(ScriptedClient(*[resting(1000)] * 9))
        reading.counter.add(1)
        reading.reader.shutdown(timeout_millis=100)
        assert eventually(lambda: reading.exporter.stats().datums_pending == 0)
        assert reading.exporter.stats().datums_lost == {"shutdown": 1}


class TestCollectionsInAnOutage:
    """Periodic collections continue during an outage while the backlog has room."""

    @staticmethod
    def interrupted(**options: Any) -> Reading:
        """Return a reader whose CloudWatch sent ``Retry-After``, with only that request's data pending."""
        reading = Reading(ScriptedClient(resting(1000)), **options)
        reading.counter.add(1)
        assert not reading.reader.flush(timeout_seconds=0.05)
        return reading

    @pytest.mark.parametrize(("interval_seconds", "files"), [(0.001, 6), (NEVER, 1)])
    def test_with_a_spool(self, tmp_path: Path, interval_seconds: float, files: int) -> None:
        """Each interval's measurements are on disk, where they survive the process; flushes in between add no files."""
        reading = self.interrupted(interval_seconds=interval_seconds, spool_directory=str(tmp_path))
        for _ in range(5):
            reading.counter.add(1)
            assert eventually(lambda: time.monotonic() > reading.reader._next_collection or files == 1)
            assert not reading.reader.flush(timeout_seconds=0.05)
        assert len([*tmp_path.glob("*/*.batch")]) == files
        reading.exporter.sender.expedite()
        assert reading.reader.flush()
        assert reading.exporter.stats().datums_sent == files + (files == 1)
        reading.reader.shutdown()

    def test_without_a_spool(self) -> None:
        """Collections continue until the backlog is half full; then counts accumulate in the SDK, and none is lost."""
        reading = self.interrupted(interval_seconds=0.001, max_backlog_bytes=1000)
        pending = []
        for _ in range(50):
            reading.counter.add(1)
            assert eventually(lambda: time.monotonic() > reading.reader._next_collection)
            assert not reading.reader.flush(timeout_seconds=0.05)
            pending.append(reading.exporter.stats().datums_pending)
        assert 2 < pending[-1] == pending[-20] < 10
        reading.exporter.sender.expedite()
        assert reading.reader.flush()
        assert reading.exporter.stats().datums_lost == {}
        client = reading.exporter.client
        assert isinstance(client, ScriptedClient)
        assert client.cloudwatch.sum("orders") == 51
        reading.reader.shutdown()


class QueueOfPython310(queue.SimpleQueue[Any]):
    """A queue that ignores a short timeout if it is empty but the previous call found an item, as in Python 3.10.

    There, this happens to about one call in ten thousand.
    """

    was_empty = True

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - as in the library
        """Take an item."""
        if timeout is not None and timeout < 0.01 and not self.was_empty and self.empty():
            timeout = None
        try:
            item = super().get(block, timeout)
        except queue.Empty:
            self.was_empty = True
            raise
        self.was_empty = False
        return item

    def get_nowait(self) -> Any:
        """Take an item without waiting."""
        return self.get(block=False)


class TestTheThread:
    """One thread collects and calls CloudWatch, and no caller waits for the thread longer than its timeout."""

    def test_the_only_one(self) -> None:
        """After requests, an outage and flushes, the package has one thread, which made every call."""
        others = set(threading.enumerate())
        callers: set[threading.Thread] = set()
        client = ScriptedClient(
            *[None, resting(0.01), None], before_each=lambda: callers.add(threading.current_thread())
        )
        reading = Reading(client)
        for _ in range(3):
            reading.counter.add(1)
            reading.reader.request_flush()
            assert reading.reader.flush()
        assert set(threading.enumerate()) - others == callers == {reading.reader.thread}
        assert reading.reader.thread.name == "CloudWatchMetricReader"
        reading.reader.shutdown()
        assert set(threading.enumerate()) - others == set()

    def test_a_flush_does_not_wait_for_the_least_interval(self) -> None:
        """An explicit flush ignores the minimum interval, and also serves a requested flush that is not due yet."""
        client = ScriptedClient()
        reading = Reading(client, min_interval_seconds=NEVER)
        for served in (1, 2):
            reading.counter.add(1)
            reading.reader.request_flush()
            assert reading.reader.flush() if served == 2 else eventually(lambda: client.calls)
            assert client.cloudwatch.sum("orders") == served
        reading.reader.shutdown()

    def test_a_callback_that_hangs(self) -> None:
        """While a callback hangs, flush and shutdown return at their timeouts."""
        entered, released = threading.Event(), threading.Event()

        def observe(_options: CallbackOptions) -> list[Observation]:
            entered.set()
            assert released.wait(PATIENCE_SECONDS)
            return []

        reading = Reading(FakeCloudWatch())
        reading.provider.get_meter("tests").create_observable_gauge("slow", [observe])
        begun = time.monotonic()
        assert not reading.reader.flush(timeout_seconds=0.05)
        assert entered.is_set()
        reading.reader.shutdown(timeout_millis=50)
        assert time.monotonic() - begun < 2
        released.set()
        join_all([reading.reader.thread])

    def test_a_collection_that_raises(
        self, reading: Reading, cloudwatch: FakeCloudWatch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If a collection raises, its flush returns ``False`` immediately, and the next flush delivers all data."""

        def fail(**_: Any) -> None:
            raise RuntimeError("a bug in a view")

        reading.counter.add(1)
        begun = time.monotonic()
        with monkeypatch.context() as failing:
            failing.setattr(reading.reader, "collect", fail)
            assert not reading.reader.flush(timeout_seconds=PATIENCE_SECONDS)
        assert time.monotonic() - begun < PATIENCE_SECONDS / 2
        assert reading.reader.flush()
        assert cloudwatch.sum("orders") == 1

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
    def test_a_callback_that_raises(self, error: type[BaseException]) -> None:
        """The thread survives any error raised in a callback, and later flushes deliver all data."""
        client = ScriptedClient()
        reading = Reading(client)
        errors = [error]

        def observe(_options: CallbackOptions) -> list[Observation]:
            if errors:
                raise errors.pop()
            return [Observation(3)]

        reading.provider.get_meter("tests").create_observable_gauge("level", [observe])
        reading.counter.add(1)
        reading.reader.flush()
        thread = reading.reader.thread
        assert thread.is_alive()
        assert reading.reader.flush()
        assert reading.reader.thread is thread
        assert (client.cloudwatch.sum("orders"), client.cloudwatch.values("level")) == (1, {3: 1})
        reading.reader.shutdown()

    def test_a_flush_in_the_thread_itself(self, reading: Reading) -> None:
        """A flush that a callback requests returns ``False`` immediately, instead of waiting for its own thread."""
        took: list[float] = []

        def observe(_options: CallbackOptions) -> list[Observation]:
            begun = time.monotonic()
            assert not reading.reader.flush(PATIENCE_SECONDS)
            took.append(time.monotonic() - begun)
            return []

        reading.provider.get_meter("tests").create_observable_gauge("level", [observe])
        assert reading.reader.flush(2 * PATIENCE_SECONDS)
        assert max(took) < PATIENCE_SECONDS / 2

    def test_a_queue_that_ignores_short_timeouts(
        self, cloudwatch: FakeCloudWatch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Flushes do not wait for the next one, although a queue of Python 3.10 may ignore a timeout of zero."""
        monkeypatch.setattr(queue, "SimpleQueue", QueueOfPython310)
        reading = Reading(cloudwatch)
        for _ in range(3):
            reading.counter.add(1)
            assert reading.reader.flush(PATIENCE_SECONDS)
        assert cloudwatch.sum("orders") == 3
        reading.reader.shutdown()

    def test_a_delivery_that_raises(
        self, reading: Reading, cloudwatch: FakeCloudWatch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If a delivery raises, its flush returns ``False`` immediately, and a later flush delivers all data."""
        errors, deliver = [MemoryError()], reading.exporter.deliver

        def fail_once(deadline: float, *, is_last: bool = False) -> bool:
            if errors:
                raise errors.pop()
            return deliver(deadline, is_last=is_last)

        monkeypatch.setattr(reading.exporter, "deliver", fail_once)
        reading.counter.add(1)
        begun = time.monotonic()
        assert not reading.reader.flush(PATIENCE_SECONDS)
        assert time.monotonic() - begun < PATIENCE_SECONDS / 2
        assert eventually(lambda: cloudwatch.sum("orders") == 1)

    def test_the_end_while_a_call_hangs(self) -> None:
        """Shutdown returns in time, and data that the thread could not collect any more counts as lost."""
        client = BlockedClient()
        reading = Reading(client)
        reading.counter.add(1)
        reading.reader.request_flush()
        assert client.entered.wait(PATIENCE_SECONDS)
        reading.counter.add(10)
        begun = time.monotonic()
        reading.reader.shutdown(timeout_millis=200)
        assert time.monotonic() - begun < 2
        stats = reading.exporter.stats()
        assert (stats.datums_pending, stats.datums_lost) == (1, {"shutdown": 1})
        client.released.set()
        assert eventually(lambda: reading.exporter.stats().datums_sent == 1)
        assert reading.exporter.stats().datums_lost == {"shutdown": 1}

    def test_the_end_with_a_spool_while_a_call_hangs(self, tmp_path: Path) -> None:
        """Data that the thread could not collect is spooled immediately, because the process may be killed."""
        client = BlockedClient()
        reading = Reading(client, spool_directory=str(tmp_path))
        reading.counter.add(1)
        reading.reader.request_flush()
        assert client.entered.wait(PATIENCE_SECONDS)
        reading.counter.add(10)
        ending = in_threads(lambda: reading.reader.shutdown(timeout_millis=20_000))
        assert eventually(lambda: reading.exporter.stats().datums_pending == 2)
        client.released.set()
        join_all(ending)
        assert client.cloudwatch.sum("orders") == 11


class TestSeveralReaders:
    """Several readers in one process."""

    def test_listing_while_others_are_made(self) -> None:
        """One thread can list the readers and exporters while another creates them."""
        is_over = threading.Event()
        errors: list[Exception] = []

        def list_all() -> None:
            try:
                while not is_over.is_set():
                    live_readers(), live_exporters()
            except RuntimeError as error:
                errors.append(error)

        threads = in_threads(list_all)
        made = [CloudWatchMetricExporter("Shop", client=FakeCloudWatch()) for _ in range(3000)]
        is_over.set()
        join_all(threads)
        assert errors == []
        assert len(made) <= len(live_exporters())

    def test_the_end_of_the_process(self) -> None:
        """At exit, shutting down three readers with different problems takes no longer than shutting down one."""
        begun = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-c", THREE_HANGING_READERS], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0
        assert ended.stderr.count("CloudWatch has not responded") == 3, ended.stderr
        assert 2.0 <= float(ended.stdout) < 2.5
        assert time.monotonic() - begun < PATIENCE_SECONDS

    def test_a_shutdown_with_a_callback_that_hangs(self) -> None:
        """Shutdown returns at its timeout even if both a callback and a call to CloudWatch hang."""
        released, client = threading.Event(), BlockedClient()
        reading = Reading(client)
        reading.counter.add(1)
        reading.reader.request_flush()
        assert client.entered.wait(PATIENCE_SECONDS)

        def observe(_options: CallbackOptions) -> list[Observation]:
            assert released.wait(PATIENCE_SECONDS)
            return []

        reading.provider.get_meter("tests").create_observable_gauge("slow", [observe])
        begun = time.monotonic()
        reading.reader.shutdown(timeout_millis=200)
        assert time.monotonic() - begun < 0.7
        released.set()
        client.released.set()
        join_all([reading.reader.thread])


class TestWithoutAThread:
    """No thread can be started, as at exit in Python 3.12 and later, or when the system's limit is reached."""

    @pytest.fixture
    def reading(
        self, cloudwatch: FakeCloudWatch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> Reading:
        """A reader whose thread could not be started."""
        start = threading.Thread.start

        def start_others(thread: threading.Thread) -> None:
            if thread.name == "CloudWatchMetricReader":
                raise RuntimeError("can't start new thread")
            start(thread)  # OpenTelemetry's own threads, which detect the resource

        with monkeypatch.context() as limited:
            limited.setattr(threading.Thread, "start", start_others)
            reading = Reading(cloudwatch)
        assert "Cannot start the metric reader's thread" in caplog.text
        return reading

    def test_a_flush_is_made_by_the_caller(self, reading: Reading, cloudwatch: FakeCloudWatch) -> None:
        """The calling thread flushes; several threads may flush concurrently, and each measurement arrives once."""

        def record_and_flush() -> None:
            reading.counter.add(1)
            assert reading.reader.flush()

        join_all(in_threads(*[record_and_flush] * 8))
        assert cloudwatch.sum("orders") == 8

    def test_a_delivery_that_raises(self, reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
        """A flush returns ``False``, and shutdown closes the exporter."""
        errors, deliver = [MemoryError(), MemoryError()], reading.exporter.deliver

        def fail_twice(deadline: float, *, is_last: bool = False) -> bool:
            if errors:
                raise errors.pop()
            return deliver(deadline, is_last=is_last)

        monkeypatch.setattr(reading.exporter, "deliver", fail_twice)
        monkeypatch.setattr(threading.Thread, "start", raising(RuntimeError("can't start new thread")))
        reading.counter.add(1)
        assert not reading.reader.flush()
        reading.reader.shutdown()
        assert reading.exporter.is_shut_down
        assert reading.exporter.stats().datums_pending == 0

    def test_it_starts_later(
        self, reading: Reading, cloudwatch: FakeCloudWatch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each request tries again to start the thread, until that is possible."""
        reading.counter.add(1)
        with monkeypatch.context() as limited:
            limited.setattr(threading.Thread, "start", raising(RuntimeError("can't start new thread")))
            reading.reader.request_flush()
        assert cloudwatch.requests == []
        reading.reader.request_flush()
        assert eventually(lambda: cloudwatch.sum("orders") == 1)
        reading.reader.shutdown()

    def test_the_end(self, reading: Reading, cloudwatch: FakeCloudWatch) -> None:
        """Shutdown delivers the last measurements."""
        reading.counter.add(1)
        reading.reader.request_flush()
        reading.reader.shutdown()
        assert cloudwatch.sum("orders") == 1


class TestThreads:
    """Several threads of the program record and flush."""

    def test_recording_while_flushing(self) -> None:
        """While two threads record and others flush, the sums stay exact."""
        client = ScriptedClient()
        reading = Reading(client)
        histogram = reading.provider.get_meter("tests").create_histogram("latency")
        is_over = threading.Event()

        def record() -> None:
            for _ in range(3000):
                reading.counter.add(1)
                histogram.record(2.0)

        def flush() -> None:
            while not is_over.is_set():
                assert reading.reader.flush()

        recording, flushing = in_threads(record, record), in_threads(flush, flush)
        join_all(recording)
        is_over.set()
        join_all(flushing)
        assert reading.reader.flush()
        assert client.cloudwatch.sum("orders") == 6000
        assert client.cloudwatch.count("latency") == 6000
        assert client.cloudwatch.sum("latency") == 12000
        reading.reader.shutdown()


class FailingHook:
    """A fork hook that raises while it is armed."""

    def __init__(self) -> None:
        self.is_armed = False
        call_after_fork(self.run)

    def run(self) -> None:
        """Raise an error if armed."""
        if self.is_armed:
            raise OSError("a hook of another part of the program")


def raising(error: Exception) -> Callable[..., Any]:
    """Return a function that always raises this error."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
class TestFork:
    """The reader in a forked child process."""

    @staticmethod
    def in_child(work: Any) -> Any:
        """Fork, run the function in the child, and return its result."""
        reading_end, writing_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writing_end, json.dumps(work()).encode())
            finally:
                os._exit(0)
        os.close(writing_end)
        with os.fdopen(reading_end) as pipe:
            result = pipe.read()
        os.waitpid(pid, 0)
        return json.loads(result)

    @pytest.mark.parametrize("is_added", [False, True], ids=["constructor", "added"])
    def test_child_sends_its_own_only(self, cloudwatch: FakeCloudWatch, is_added: bool) -> None:  # noqa: FBT001
        """The child delivers only its own data, by flush, request or shutdown; the parent delivers all of its own."""
        reading = Reading(cloudwatch, is_added=is_added)
        reading.counter.add(100)

        def work() -> list[float]:
            assert reading.reader.flush()
            of_the_parent = cloudwatch.sum("orders")
            reading.counter.add(1)
            assert reading.reader.flush()
            reading.counter.add(2)
            reading.reader.request_flush()
            assert eventually(lambda: cloudwatch.sum("orders") == 3, within_seconds=3)
            reading.counter.add(4)
            reading.reader.shutdown()
            return [of_the_parent, cloudwatch.sum("orders"), reading.exporter.stats().datums_sent]

        assert self.in_child(work) == [0, 7, 3]
        assert reading.reader.flush()
        assert cloudwatch.sum("orders") == 100
        reading.reader.shutdown()

    def test_child_makes_its_own_connections(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A child does not send over the connection that a boto3 client has opened in the parent."""
        monkeypatch.setenv("NO_PROXY", "*")
        ports = []

        class KeepAlive(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Note the client's port, and accept the request without ending the connection."""
                ports.append(self.client_address[1])
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("x-amzn-RequestId", "1")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

        with ThreadingHTTPServer(("127.0.0.1", 0), KeepAlive) as server:
            in_threads(server.serve_forever)
            session = boto3.Session("id", "secret", region_name="us-east-1")
            client = session.client("cloudwatch", endpoint_url=f"http://127.0.0.1:{server.server_port}")
            reading = Reading(client)

            def work() -> bool:
                reading.counter.add(1)
                return reading.reader.flush()

            assert [work(), self.in_child(work), work()] == [True, True, True]
            reading.reader.shutdown()
            server.shutdown()
        of_the_parent, of_the_child, again = ports
        assert of_the_parent == again != of_the_child

    def test_child_forgets_what_waits(self) -> None:
        """Data that the parent had not sent before the fork is sent only by the parent."""
        client = ScriptedClient(resting(1000))
        reading = Reading(client)
        reading.counter.add(100)
        assert not reading.reader.flush(timeout_seconds=0.05)

        def work() -> list[float]:
            pending = reading.exporter.stats().datums_pending
            reading.counter.add(1)
            is_flushed = reading.reader.flush()
            return [pending, is_flushed, client.cloudwatch.sum("orders")]

        assert self.in_child(work) == [0, True, 1]
        assert reading.exporter.stats().datums_pending == 1
        reading.exporter.sender.expedite()
        assert reading.reader.flush()
        assert client.cloudwatch.sum("orders") == 100
        reading.reader.shutdown()

    @pytest.mark.parametrize("fault", ["full disk", "no descriptors", "no threads", "hook"])
    def test_child_with_a_fault_sends_its_own_only(
        self, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If a fork hook fails or a resource is lacking, the child still sends all of its own data, and only that."""
        client = ScriptedClient(resting(1000))
        hook = FailingHook()
        reading = Reading(client, spool_directory=str(tmp_path))
        reading.counter.add(100)
        assert not reading.reader.flush(timeout_seconds=0.05)
        reading.counter.add(1000)
        if fault == "hook":
            hook.is_armed = True
        elif fault == "no threads":
            monkeypatch.setattr(threading.Thread, "start", raising(RuntimeError("can't start new thread")))
        else:
            number = errno.ENOSPC if fault == "full disk" else errno.EMFILE
            monkeypatch.setattr(tempfile, "mkdtemp", raising(OSError(number, fault)))

        def work() -> list[float]:
            reading.counter.add(1)
            is_flushed = reading.reader.flush()
            return [is_flushed, client.cloudwatch.sum("orders"), reading.exporter.stats().datums_pending]

        assert self.in_child(work) == [True, 1, 0]
        monkeypatch.undo()
        hook.is_armed = False
        reading.exporter.sender.expedite()
        assert reading.reader.flush()
        assert client.cloudwatch.sum("orders") == 1100
        reading.reader.shutdown()

    def test_child_with_its_own_spool(self, tmp_path: Path) -> None:
        """A child spools unsent data in its own directory."""
        reading = Reading(ScriptedClient(*[resting(1000)] * 9), spool_directory=str(tmp_path))

        def work() -> list[float]:
            reading.counter.add(1)
            is_flushed = reading.reader.flush(timeout_seconds=0.05)
            return [is_flushed, len([*tmp_path.glob("*/*.batch")])]

        assert self.in_child(work) == [False, 1]
        reading.reader.shutdown()

    def test_fork_while_the_parent_sends(self) -> None:
        """Locks that the parent holds during the fork do not block the child."""
        client = BlockedClient()
        reading = Reading(client)
        reading.counter.add(100)
        reading.reader.request_flush()
        assert client.entered.wait(PATIENCE_SECONDS)

        def work() -> list[float]:
            client.released.set()
            reading.counter.add(1)
            return [reading.reader.flush(timeout_seconds=3), client.cloudwatch.sum("orders")]

        assert self.in_child(work) == [True, 1]
        client.released.set()
        assert reading.reader.flush()
        assert client.cloudwatch.sum("orders") == 100
        reading.reader.shutdown()


def test_the_end_makes_no_attempt_of_its_own() -> None:
    """Shutdown makes no calls in its own thread, only in the reader's."""
    callers: list[str] = []
    client = ScriptedClient(*[resting(60)] * 9, before_each=lambda: callers.append(threading.current_thread().name))
    reading = Reading(client)
    reading.counter.add(1)
    reading.reader.shutdown()
    assert callers == ["CloudWatchMetricReader"]
    assert reading.exporter.stats().datums_lost == {"shutdown": 1}
