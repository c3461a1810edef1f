"""A reporter without an app, as scripts and jobs use it."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask import CloudWatchMetricsReporter, get_metrics
from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.flask_extension import provider_setup
from otel_cloudwatch_flask.flask_extension import reporter as reporter_module
from otel_cloudwatch_flask.runtime.live_objects import LiveObjects
from otel_cloudwatch_flask.sdk.reader import readers_on
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch


@pytest.fixture
def cloudwatch() -> FakeCloudWatch:
    """The fake CloudWatch that the reporter publishes to."""
    return FakeCloudWatch()


@pytest.fixture
def provider() -> MeterProvider:
    """The reporter's meter provider, which is not the global one."""
    return MeterProvider(shutdown_on_exit=False)


@pytest.fixture
def reporter(
    cloudwatch: FakeCloudWatch, provider: MeterProvider, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CloudWatchMetricsReporter]:
    """A reporter that is not registered on an app."""
    monkeypatch.setattr(reporter_module, "_live_reporters", LiveObjects())  # hide other reporters
    reporter = CloudWatchMetricsReporter(None, "Cron", cloudwatch, meter_provider=provider)
    yield reporter
    reporter.shutdown(timeout_seconds=1)


def test_metrics_and_timers(reporter: CloudWatchMetricsReporter, cloudwatch: FakeCloudWatch) -> None:
    """``add_metric`` and ``timer`` initialize the reporter, and ``flush`` delivers their metrics."""
    reporter.add_metric("Runs", 1, "Count", {"Job": "nightly"})
    with reporter.timer("Duration"):
        pass
    assert reporter.flush()
    assert cloudwatch.sum("Runs", namespace="Cron", Job="nightly") == 1
    assert cloudwatch.count("Duration", namespace="Cron") == 1
    assert get_metrics() is reporter
    assert reporter.stats().datums_sent == 2


def test_a_flush_comes_first(reporter: CloudWatchMetricsReporter, provider: MeterProvider) -> None:
    """A ``flush`` before any metric initializes the reporter, and has nothing to deliver."""
    assert reporter.flush()
    assert len(readers_on(provider)) == 1


def test_threads_that_come_first_at_once(
    reporter: CloudWatchMetricsReporter, provider: MeterProvider, cloudwatch: FakeCloudWatch
) -> None:
    """Threads that use an uninitialized reporter at the same time share one reader, and no metric is lost."""
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        reporter.add_metric("Runs", 1, "Count")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reporter.flush()
    assert cloudwatch.sum("Runs") == 8
    assert len(readers_on(provider)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_sets_up(
    reporter: CloudWatchMetricsReporter,
    provider: MeterProvider,
    cloudwatch: FakeCloudWatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fork waits until a thread has set up a reporter, so the child can set up another one."""
    has_begun, shared_reader = threading.Event(), provider_setup._shared_reader

    def slow(*arguments: Any) -> Any:
        has_begun.set()
        time.sleep(0.2)
        return shared_reader(*arguments)

    monkeypatch.setattr(provider_setup, "_shared_reader", slow)
    thread = threading.Thread(target=reporter.add_metric, args=("Runs", 1))
    thread.start()
    assert has_begun.wait(30)
    child = os.fork()
    if not child:
        signal.alarm(20)
        own = CloudWatchMetricsReporter(None, "Child", cloudwatch, meter_provider=provider)
        own.add_metric("Runs", 1)
        os._exit(not own.flush())
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    thread.join()
    assert reporter.flush()
    assert cloudwatch.sum("Runs") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_counts_only_its_own_losses(
    reporter: CloudWatchMetricsReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics that the parent lost before the reporter could be set up are not counted in a child."""
    monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_MAX_METRICS", "many")
    reporter.add_metric("Runs", 1)
    child = os.fork()
    if not child:
        lost_by_parent = reporter.stats().measurements_lost
        reporter.add_metric("Runs", 1)
        os._exit((lost_by_parent, reporter.stats().measurements_lost) != ({}, {"not_set_up": 1}))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("namespace", ["Cron", None])
def test_an_app_that_comes_later(provider: MeterProvider, cloudwatch: FakeCloudWatch, namespace: str | None) -> None:
    """A later ``init_app`` uses the existing reader and namespace."""
    reporter = CloudWatchMetricsReporter(None, namespace, cloudwatch, meter_provider=provider)
    reporter.add_metric("Runs", 1, "Count")
    app = Flask("shop")
    reporter.init_app(app)

    @app.get("/")
    def run() -> str:
        reporter.add_metric("Runs", 1, "Count")
        return "ran"

    assert app.test_client().get("/", buffered=True).text == "ran"
    assert reporter.flush()
    (metric,) = cloudwatch.metrics()
    assert cloudwatch.sum("Runs", namespace=metric.namespace) == 2
    assert len(readers_on(provider)) == 1
    reporter.shutdown()
    assert readers_on(provider) == []


def test_an_app_elsewhere(reporter: CloudWatchMetricsReporter, cloudwatch: FakeCloudWatch) -> None:
    """``init_app`` with another namespace publishes there; ``flush`` and ``stats`` cover both namespaces."""
    reporter.add_metric("Runs", 1, "Count")
    reporter.init_app(Flask("shop"), "Shop")
    reporter.add_metric("Runs", 2, "Count")
    assert reporter.flush()
    assert (cloudwatch.sum("Runs", namespace="Cron"), cloudwatch.sum("Runs", namespace="Shop")) == (1, 2)
    assert reporter.stats().datums_sent == 2


def test_invalid_settings(
    reporter: CloudWatchMetricsReporter,
    cloudwatch: FakeCloudWatch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While the environment is invalid, metrics count as lost, with one log message; later metrics are sent."""
    monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_MAX_METRICS", "many")
    for _ in range(3):
        reporter.add_metric("Runs", 1, "Count")
    assert not reporter.flush()
    assert reporter.stats().measurements_lost == {"not_set_up": 3}
    (message,) = caplog.messages
    assert "OTEL_EXPORTER_CLOUDWATCH_MAX_METRICS='many' is not a positive integer" in message
    monkeypatch.delenv("OTEL_EXPORTER_CLOUDWATCH_MAX_METRICS")
    reporter.add_metric("Runs", 1, "Count")
    assert reporter.flush()
    assert cloudwatch.sum("Runs") == 1
    assert reporter.stats().measurements_lost == {"not_set_up": 3}


def test_a_provider_that_is_not_usable() -> None:
    """If the provider does not accept readers, metrics are lost, and ``flush`` returns False."""
    reporter = CloudWatchMetricsReporter(None, "Cron", FakeCloudWatch(), meter_provider=NoOpMeterProvider())
    reporter.add_metric("Runs", 1, "Count")
    assert not reporter.flush()
    assert sum(reporter.stats().measurements_lost.values()) == 1


def test_disabled(reporter: CloudWatchMetricsReporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ENABLED=false, calls succeed and nothing counts as lost."""
    monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_ENABLED", "false")
    reporter.add_metric("Runs", 1, "Count")
    assert reporter.flush()
    assert reporter.stats().measurements_lost == {}


TWO_LINES = """
    from otel_cloudwatch_flask import CloudWatchMetricsReporter
    CloudWatchMetricsReporter(None, "Cron").add_metric("Runs", 1, "Count")
"""
EIGHT_THREADS = """
    import threading
    from otel_cloudwatch_flask import CloudWatchMetricsReporter

    reporter, barrier = CloudWatchMetricsReporter(None, "Cron"), threading.Barrier(8)

    def work():
        barrier.wait()
        reporter.add_metric("Runs", 1, "Count")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


@pytest.mark.parametrize(("program", "runs"), [(TWO_LINES, 1), (EIGHT_THREADS, 8)])
def test_a_script(program: str, runs: int) -> None:
    """A script's metrics are published when it ends, even if several threads create the global provider at once."""
    with LocalCloudWatch() as cloudwatch, isolated_environment():
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env={**os.environ, **cloudwatch.environment()},
            check=True,
            timeout=60,
        )
        assert cloudwatch.published.sum("Runs", namespace="Cron") == runs
