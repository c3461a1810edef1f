"""Measurements that wait: whoever collects sees them, whatever waits is bounded, and each is recorded once."""

import contextlib
import gc
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.context import Context, attach, detach, set_value
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader, collection_hook, deferral
from otel_cloudwatch_flask.deferral import Deferral
from otel_cloudwatch_flask.known_series import FacadeSeries, Measurement
from otel_cloudwatch_flask.sdk_internals import consumer_of
from otel_cloudwatch_flask.testing import FakeCloudWatch
from tests.fakes import PATIENCE_SECONDS, eventually, in_threads, join_all

SERIES = FacadeSeries("Orders", "None", {})
NEVER = 10**9


class Deferring:
    """A deferral on a provider of its own, and what it has recorded, by whom."""

    def __init__(self, *readers: Any, before_each: Callable[[], object] = lambda: None) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader, *readers], shutdown_on_exit=False)
        self.recorded: list[float] = []
        self.contexts: list[Context] = []
        self.threads: list[threading.Thread] = []
        self._before_each = before_each
        self.deferral = Deferral(self.provider, self.record_all)

    def record_all(self, measurements: deque[Measurement], context: Context) -> None:
        """Note all of them."""
        with contextlib.suppress(IndexError):
            while True:
                _, value = measurements.popleft()
                self._before_each()
                self.recorded.append(value)
                self.contexts.append(context)
                self.threads.append(threading.current_thread())

    def add(self, *values: float) -> None:
        """Let a request end."""
        self.deferral.add(measurements(*values))


def measurements(*values: float) -> deque[Measurement]:
    """Measurements of one series."""
    return deque((SERIES, value) for value in values)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread comes to help."""
    monkeypatch.setattr(deferral, "ENOUGH_REQUESTS", NEVER)


@pytest.mark.usefixtures("alone")
class TestCollections:
    """Before somebody collects, everything is recorded."""

    def test_whoever_collects(self) -> None:
        """In the order it came in, each once, and nothing before."""
        deferring = Deferring()
        deferring.add(1, 2)
        deferring.add(3)
        assert deferring.recorded == []
        for _ in range(2):
            deferring.reader.collect()
            assert deferring.recorded == [1, 2, 3]

    def test_nothing_can_be_seen_of_it(self) -> None:
        """Exporters get no metric more."""
        deferring = Deferring()
        deferring.add(1)
        assert deferring.reader.get_metrics_data() is None

    def test_several_on_one_provider(self, caplog: pytest.LogCaptureFixture) -> None:
        """Each is asked, also one that comes later, and OpenTelemetry has nothing to warn of."""
        deferring = Deferring()
        other: list[float] = []
        second = Deferral(deferring.provider, lambda each, _: other.extend(value for _, value in each))
        deferring.add(1)
        second.add(measurements(2))
        deferring.reader.collect()
        assert (deferring.recorded, other) == ([1], [2])
        assert caplog.records == []

    def test_one_that_is_gone(self) -> None:
        """It is forgotten, and costs the others nothing."""
        deferring = Deferring()
        gone = Deferral(deferring.provider, lambda *_: pytest.fail("it is gone"))
        del gone
        deferring.add(1)
        deferring.reader.collect()
        assert deferring.recorded == [1]

    def test_our_reader_has_its_whole_timeout_for_the_sdk(self) -> None:
        """What is recorded before does not count: the SDK would give up the collection, and with it the data."""
        cloudwatch = FakeCloudWatch()
        reader = CloudWatchMetricReader(
            CloudWatchMetricExporter("Shop", client=cloudwatch), export_interval_seconds=NEVER
        )
        threads: list[threading.Thread] = []
        pause = threading.Event()

        def slowly() -> None:
            pause.wait(0.02)
            threads.append(threading.current_thread())

        deferring = Deferring(reader, before_each=slowly)
        counter = deferring.provider.get_meter("tests").create_counter("orders")
        counter.add(1)
        deferring.add(1)
        reader.shutdown(timeout_millis=1)
        assert eventually(lambda: reader.exporter.stats().datums_lost or cloudwatch.requests)
        assert len(threads) == 1
        stats = reader.exporter.stats()
        assert stats.datums_sent + sum(stats.datums_lost.values()) == 1

    def test_no_consumer_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With an SDK that hides which reader belongs where, the collection itself records."""
        monkeypatch.setattr(collection_hook, "consumer_of", lambda _: None)
        cloudwatch = FakeCloudWatch()
        reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=cloudwatch))
        deferring = Deferring(reader)
        deferring.add(1)
        assert reader.flush()
        assert deferring.recorded == [1]
        reader.shutdown()


class TestLives:
    """Whose end comes first."""

    @pytest.mark.usefixtures("alone")
    def test_whoever_deferred_is_gone(self) -> None:
        """An app that is forgotten before somebody collects loses nothing, and is forgotten after that."""
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], shutdown_on_exit=False)
        recorded: list[float] = []
        gone = Deferral(provider, lambda each, _: recorded.extend(each.popleft()[1] for _ in range(len(each))))
        reference = weakref.ref(gone)
        gone.add(measurements(1, 2))
        del gone
        gc.collect()
        reader.collect()
        assert recorded == [1, 2]
        gc.collect()
        assert reference() is None

    @pytest.mark.usefixtures("alone")
    def test_the_provider_is_gone(self) -> None:
        """What waits keeps no provider alive that nobody has any more."""
        deferring = Deferring()
        reference = weakref.ref(deferring.provider)
        deferring.add(1)
        assert reference() is deferring.provider
        del deferring
        gc.collect()
        assert reference() is None


@pytest.mark.usefixtures("alone")
def test_no_pause_with_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither with ours nor with the SDK's: under gevent, another greenlet would stop the whole thread in it."""
    pauses: list[int] = []
    deferring = Deferring()
    consumer: Any = consumer_of(deferring.reader)

    def pause(_seconds: float) -> None:
        others = ThreadPoolExecutor(1).submit(lambda: deferring.deferral._recording.acquire(blocking=False))
        assert others.result(PATIENCE_SECONDS)
        assert not consumer._lock.locked()
        pauses.append(len(deferring.recorded))
        deferring.deferral._recording = threading.RLock()  # that of the other thread is not given back

    monkeypatch.setattr(deferral, "time", SimpleNamespace(sleep=pause))
    for number in range(250):
        deferring.add(number)
    deferring.deferral.catch_up_gently()
    assert pauses == [100, 200, 250]
    for number in range(250):
        deferring.add(number)
    deferring.reader.collect()
    assert (len(deferring.recorded), len(pauses)) == (500, 3)


class TestContext:
    """What OpenTelemetry's context says when a request ends."""

    @pytest.mark.usefixtures("alone")
    def test_context(self) -> None:
        """It is that of the request, for exemplars; without any it is not that of whoever records."""
        deferring = Deferring()
        deferring.add(1)
        token = attach(set_value("request", 7))
        deferring.add(2)
        detach(token)
        token = attach(set_value("request", 8))
        deferring.deferral.catch_up()
        detach(token)
        none, context = deferring.contexts
        assert none  # or OpenTelemetry would ask for the current one
        assert "request" not in none
        assert context["request"] == 7


class TestBounds:
    """What waits is bounded."""

    def test_a_thread_helps(self) -> None:
        """Where many wait they are recorded by a thread, though nobody collects."""
        deferring = Deferring()
        for number in range(deferral.ENOUGH_REQUESTS):
            deferring.add(number)
        assert eventually(lambda: len(deferring.recorded) == deferral.ENOUGH_REQUESTS)
        assert deferring.recorded == [*range(deferral.ENOUGH_REQUESTS)]
        assert {thread.name for thread in deferring.threads} == {"CloudWatchRecorder"}
        deferring.add(-1)
        assert len(deferring.recorded) == deferral.ENOUGH_REQUESTS  # not enough for the thread
        for number in range(deferral.ENOUGH_REQUESTS):
            deferring.add(number)
        assert eventually(lambda: len(deferring.recorded) == 2 * deferral.ENOUGH_REQUESTS + 1)

    @pytest.mark.usefixtures("alone")
    def test_requests_help_themselves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no thread comes, as under uWSGI without threads, they record themselves: only so many wait."""
        monkeypatch.setattr(deferral, "MOST_REQUESTS", 5)
        monkeypatch.setattr(deferral, "ENOUGH_REQUESTS", 5)
        deferring = Deferring()
        monkeypatch.setattr(deferring.deferral, "_wake_thread", lambda: None)
        for number in range(20):
            deferring.add(number)
            assert len(deferring.deferral._waiting) <= 5
        assert deferring.recorded == [*range(5, 20)]
        assert set(deferring.threads) == {threading.current_thread()}
        deferring.deferral.catch_up()
        assert sorted(deferring.recorded) == [*range(20)]

    def test_a_full_queue_does_not_make_requests_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not even while another thread is recording all of it."""
        may_go_on, has_begun = threading.Event(), threading.Event()
        helper: list[threading.Thread] = []

        def pause() -> None:
            if threading.current_thread() in helper:
                has_begun.set()
                assert may_go_on.wait(PATIENCE_SECONDS)

        monkeypatch.setattr(deferral, "MOST_REQUESTS", 3)
        deferring = Deferring(before_each=pause)
        for number in range(3):
            deferring.add(number)
        helper.append(threading.Thread(target=deferring.deferral.catch_up, daemon=True))
        helper[0].start()
        assert has_begun.wait(PATIENCE_SECONDS)
        for number in range(3, 10):
            deferring.add(number)
        assert deferring.recorded  # by this thread
        may_go_on.set()
        join_all(helper)
        deferring.deferral.catch_up()
        assert sorted(deferring.recorded) == [*range(10)]


class TestThreads:
    """Several threads."""

    @pytest.mark.usefixtures("alone")
    def test_what_another_thread_is_recording(self) -> None:
        """Whoever catches up waits for it: out of the queue is not yet recorded."""
        may_go_on, has_begun = threading.Event(), threading.Event()

        def pause() -> None:
            has_begun.set()
            assert may_go_on.wait(PATIENCE_SECONDS)

        deferring = Deferring(before_each=pause)
        deferring.add(1)
        threads = in_threads(deferring.deferral.catch_up)
        assert has_begun.wait(PATIENCE_SECONDS)
        seen: list[list[float]] = []

        def catch_up_and_look() -> None:
            deferring.deferral.catch_up()
            seen.append([*deferring.recorded])

        threads += in_threads(catch_up_and_look)
        may_go_on.set()
        join_all(threads)
        assert seen == [[1]]

    @pytest.mark.usefixtures("alone")
    def test_the_handler_of_a_signal(self) -> None:
        """It may flush in the middle of a flush, in the same thread."""

        def flush_again() -> None:
            deferring.deferral.catch_up()

        deferring = Deferring(before_each=flush_again)
        deferring.add(1)
        deferring.add(2)
        deferring.deferral.catch_up()
        assert sorted(deferring.recorded) == [1, 2]

    def test_requests_and_collections(self) -> None:
        """Each measurement is recorded once, whoever comes between."""
        deferring = Deferring()
        is_over = threading.Event()

        def collect() -> None:
            while not is_over.is_set():
                deferring.reader.collect()

        def end_requests(first: int) -> None:
            for number in range(first, first + 500):
                deferring.add(number, -number)

        collecting = in_threads(collect)
        join_all(in_threads(*(partial(end_requests, first) for first in (0, 1000, 2000))))
        is_over.set()
        join_all(collecting)
        deferring.deferral.catch_up()
        wanted = [number for first in (0, 1000, 2000) for number in range(first, first + 500)]
        assert sorted(deferring.recorded) == sorted([*wanted, *(-number for number in wanted)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_nothing_of_what_waited() -> None:
    """That is the parent's, even if another thread was recording it at the time of the fork."""
    may_go_on, has_begun = threading.Event(), threading.Event()

    def pause() -> None:
        has_begun.set()
        may_go_on.wait(PATIENCE_SECONDS)

    deferring = Deferring(before_each=pause)
    deferring.add(1)
    deferring.add(2)
    threads = in_threads(deferring.deferral.catch_up)
    assert has_begun.wait(PATIENCE_SECONDS)
    child = os.fork()
    if not child:
        may_go_on.set()
        deferring.recorded.clear()
        deferring.add(3)
        deferring.deferral.catch_up()
        os._exit(0 if deferring.recorded == [3] else 1)
    _, status = os.waitpid(child, 0)
    may_go_on.set()
    join_all(threads)
    assert os.waitstatus_to_exitcode(status) == 0
    assert deferring.recorded == [1, 2]
