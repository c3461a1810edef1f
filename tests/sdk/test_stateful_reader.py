"""Reader and exporter with the real SDK, threads and forks: every measurement arrives or is counted as lost."""

import contextlib
import os
import traceback
import warnings
from collections.abc import Callable
from math import inf
from typing import Any
from unittest.mock import patch

from botocore.exceptions import EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader
from otel_cloudwatch_flask.delivery import sender
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch, client_error
from tests.sdk.test_reader import FailingHook
from tests.support.fakes import eventually
from tests.support.fuzzing import effort, repeatable_jitter  # noqa: F401 - a fixture

ANSWER_LOST = ReadTimeoutError(endpoint_url="https://monitoring")
REFUSED = client_error("InvalidParameterValue")
FAULTS: list[Exception | None] = [
    None,
    ANSWER_LOST,
    REFUSED,
    client_error("ThrottlingException"),
    client_error("InternalServiceFault", status=500),
    EndpointConnectionError(endpoint_url="https://monitoring"),
    NoCredentialsError(),
    RuntimeError("a bug in somebody's client"),
]


MAX_FORKS = 2
"""Maximum number of forks in one example, because they are slow."""


class Client:
    """A scripted client of a strict fake CloudWatch; records rejected datums and those whose response was lost."""

    def __init__(self) -> None:
        self.script: list[Exception | None] = []
        self.cloudwatch = FakeCloudWatch()
        self.unsure: list[dict[str, Any]] = []
        self.lost: list[dict[str, Any]] = []

    def put_metric_data(self, **request: Any) -> Any:
        """Respond as scripted, or else accept the request."""
        error = self.script.pop(0) if self.script else None
        if error is REFUSED and len(request["MetricData"]) == 1:
            self.lost += request["MetricData"]
        if error is not None and error is not ANSWER_LOST:
            raise error
        answer = self.cloudwatch.put_metric_data(**request)
        if error is ANSWER_LOST:
            self.unsure += request["MetricData"]
            raise error
        return answer

    def arrived(self) -> list[dict[str, Any]]:
        """Return all stored datums, without duplicates."""
        arrived = [dict(datum) for datum in self.cloudwatch.datums]
        for datum in self.unsure:
            arrived.remove(datum)
        return arrived


def samples(datum: dict[str, Any]) -> float:
    """Return the number of samples in a histogram's datum, or the value of a counter's."""
    return float(sum(datum["Counts"]) if "Counts" in datum else datum.get("Value", 0))


class ReaderMachine(RuleBasedStateMachine):
    """A program measures, flushes, forks and ends in any order, while CloudWatch fails in different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.forks = 0
        self.raising: list[BaseException] = []
        """The exceptions that the next callbacks will raise."""
        self.hook = FailingHook()
        # Datums of series known to be rejected would be dropped without a call, and the client could not count them.
        self.patched = patch.multiple(sender, _LONGEST_BACKOFF_SECONDS=0.01, _REFUSED_SERIES_SECONDS=0.0)
        self.patched.start()

    @initialize()
    def begin(self) -> None:
        """Start a program."""
        self.client = Client()
        self.exporter = CloudWatchMetricExporter("Shop", client=self.client)
        self.reader = CloudWatchMetricReader(self.exporter, export_interval_seconds=1e6, flush_min_interval_seconds=0.0)
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        meter = self.provider.get_meter("tests")
        self.counter = meter.create_counter("orders")
        self.histogram = meter.create_histogram("latency", unit="ms")
        meter.create_observable_gauge("observed", [self.observe])
        self.recorded = 0

    def observe(self, _options: CallbackOptions) -> list[Observation]:
        """Return no observations, but count once, as code that runs during a collection may do."""
        self.recorded += 1
        self.counter.add(1, {"page": "collected"})
        if self.raising:
            raise self.raising.pop()
        return []

    @rule(error=st.sampled_from([ValueError(), SystemExit(1), KeyboardInterrupt()]))
    def callback_fails(self, error: BaseException) -> None:
        """Make the callback raise an exception during the next collection."""
        self.raising.append(error)

    @rule(amount=st.integers(1, 9), page=st.integers(0, 3))
    def add(self, amount: int, page: int) -> None:
        """Increment the counter."""
        self.counter.add(amount, {"page": page})
        self.recorded += amount

    @rule(value=st.floats(0.1, 1000), page=st.integers(0, 3))
    def record(self, value: float, page: int) -> None:
        """Record a histogram value."""
        self.histogram.record(value, {"page": page})
        self.recorded += 1

    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=4))
    def fail(self, faults: list[Exception | None]) -> None:
        """Script the next responses of CloudWatch."""
        self.client.script = list(faults)

    @rule(timeout_seconds=st.sampled_from([0.0, 0.005, 1.0]))
    def flush(self, timeout_seconds: float) -> None:
        """Flush, and check that a result of ``True`` is correct. Without faults, the result must be ``True``."""
        had_faults = bool(self.client.script or self.raising) or self.exporter.sender.retry_at > -inf
        is_delivered = self.reader.flush(timeout_seconds if had_faults else 10.0)
        assert is_delivered or had_faults
        if is_delivered:
            self.all_is_there()

    @rule()
    def force_flush(self) -> None:
        """Flush the provider."""
        self.provider.force_flush(5)

    @rule()
    def collect(self) -> None:
        """Collect through the SDK, without sending."""
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            MetricReader.collect(self.reader)

    @rule()
    def request_flush(self) -> None:
        """Request a flush, as at the end of a request, and wait until the reader's thread has served it."""
        self.reader.request_flush()
        assert eventually(lambda: not self.reader._is_requested)
        self.reader.flush(0.05)

    @rule()
    def time_passes(self) -> None:
        """Let CloudWatch's ``Retry-After`` pass."""
        self.exporter.sender.retry_at = -inf

    @precondition(lambda self: self.forks < MAX_FORKS)
    @rule(hook_fails=st.booleans())
    def fork(self, *, hook_fails: bool) -> None:
        """Fork a child, which must send only its own measurements."""
        self.add(1, 0)
        self.forks += 1
        self.hook.is_armed = hook_fails
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # raised because threads are running
            child = os.fork()
        if child == 0:
            in_child(self.child_is_right)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def child_is_right(self) -> None:
        """Check in the child that only its own measurements are sent."""
        self.raising.clear()
        self.client.script.clear()
        self.client.cloudwatch.clear()
        assert self.exporter.stats().datums_pending == 0
        self.counter.add(7, {"page": "child"})
        assert self.reader.flush(10)
        found = self.client.cloudwatch
        assert (found.sum("orders", page="child"), found.sum("orders", page="collected"), len(found.datums)) == (
            7,
            1,
            2,
        )
        assert self.exporter.stats().datums_sent == 2

    @rule(timeout_millis=st.sampled_from([0, 5, 20]))
    def end(self, timeout_millis: int) -> None:
        """End the program, whatever CloudWatch responds, and start another one."""
        self.raising.clear()
        had_faults = bool(self.client.script) or self.exporter.sender.retry_at > -inf
        self.reader.shutdown(timeout_millis=timeout_millis if had_faults else 10_000)
        assert eventually(lambda: not self.reader.thread.is_alive())
        assert eventually(lambda: not self.exporter.stats().datums_pending)  # a response may arrive late
        stats = self.exporter.stats()
        assert stats.datums_sent <= len(self.client.cloudwatch.datums) <= stats.datums_sent + len(self.client.unsure)
        if stats.datums_lost.keys() - {"refused"}:
            assert had_faults
            assert sum(samples(datum) for datum in self.client.arrived()) <= self.recorded
        else:
            self.all_is_there()
        self.begin()

    def all_is_there(self) -> None:
        """Check that every measurement is in CloudWatch, except rejected ones."""
        arrived = sum(samples(datum) for datum in self.client.arrived())
        assert arrived + sum(samples(datum) for datum in self.client.lost) == self.recorded
        stats = self.exporter.stats()
        assert stats.datums_lost == ({"refused": len(self.client.lost)} if self.client.lost else {})

    def teardown(self) -> None:
        """When CloudWatch no longer fails, every measurement arrives."""
        self.client.script.clear()
        self.raising.clear()
        self.time_passes()
        self.flush(10.0)
        self.reader.shutdown()
        self.patched.stop()


def in_child(check: Callable[[], object]) -> None:
    """Run a check in a forked child, and exit."""
    try:
        check()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the process boundary
        traceback.print_exc()
    finally:
        os._exit(1)


TestReader = ReaderMachine.TestCase
TestReader.settings = effort(30)
