"""A reporter works with a program's existing providers, readers, views, instrumentation and exporters."""

import io
import itertools
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flask
import pytest
from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import View

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader, CloudWatchMetricsReporter
from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.sdk.internals import consumer_of
from otel_cloudwatch_flask.sdk.reader import readers_on
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.fakes import PATIENCE_SECONDS, BlockedClient, eventually

NEVER_SECONDS = 3600


class Shop:
    """An app, its reporter and the CloudWatch it publishes to; requests do not flush."""

    def __init__(
        self, provider: MeterProvider, namespace: str = "Shop", app: Flask | None = None, **arguments: Any
    ) -> None:
        self.cloudwatch = FakeCloudWatch()
        self.app = app or Flask(namespace.lower())
        self.app.add_url_rule("/", view_func=self.view)
        arguments = {"cloudwatch_client": self.cloudwatch, "flush": "interval", **arguments}
        self.reporter = CloudWatchMetricsReporter(
            self.app, namespace, meter_provider=provider, export_interval_seconds=NEVER_SECONDS, **arguments
        )

    def view(self) -> str:
        """Count one order."""
        self.reporter.add_metric("Orders", 1, "Count")
        return "ordered"

    def order(self, requests: int = 1) -> None:
        """Serve this number of requests."""
        for _ in range(requests):
            assert self.app.test_client().get("/", buffered=True).status_code == 200

    def published(self) -> dict[str, float]:
        """Flush, and return the number of samples published for each metric, except the active requests."""
        assert self.reporter.flush()
        return counts(self.cloudwatch)


def counts(cloudwatch: FakeCloudWatch) -> dict[str, float]:
    """Return the number of samples published for each metric, except the active requests."""
    names = dict.fromkeys(metric.name for metric in cloudwatch.metrics())
    return {name: cloudwatch.count(name) for name in names if name != "http.server.active_requests"}


@contextmanager
def provider_of(*readers: MetricReader, views: list[View] | None = None) -> Iterator[MeterProvider]:
    """Create a provider with these readers, and shut it down at the end."""
    provider = MeterProvider(readers, views=views or [], shutdown_on_exit=False)
    try:
        yield provider
    finally:
        provider.shutdown(timeout_millis=1000)


def instrument(app: Flask, provider: MeterProvider) -> None:
    """Instrument an app as a program would."""
    FlaskInstrumentor().instrument_app(app, meter_provider=provider)  # type: ignore[no-untyped-call]


# Instrumentation.


@contextmanager
def instrumented_flask(provider: MeterProvider) -> Iterator[type[Flask]]:
    """Provide the ``Flask`` class that ``opentelemetry-instrument`` substitutes."""
    instrumentor = FlaskInstrumentor()
    instrumentor.instrument(meter_provider=provider)
    try:
        yield flask.Flask
    finally:
        instrumentor.uninstrument()


@pytest.mark.parametrize("instruments", [False, True])
def test_an_instrumented_flask(*, instruments: bool) -> None:
    """With Flask instrumented globally, each request has one duration, even if the reporter has ``instrument=True``."""
    with provider_of() as provider, instrumented_flask(provider) as flask_class:
        shop = Shop(provider, app=flask_class("shop"), instrument=instruments)
        shop.order(3)
        assert shop.published() == {"Orders": 3, "http.server.duration": 3}
        shop.reporter.shutdown()


@pytest.mark.parametrize("order", ["before", "after", "both"])
@pytest.mark.parametrize("instruments", [False, True])
def test_an_instrumented_app(order: str, *, instruments: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Each request has one duration, no matter how often, when and by which code the app is instrumented."""
    app = Flask("shop")
    with provider_of() as provider:
        if order != "after":
            instrument(app, provider)
        shop = Shop(provider, app=app, instrument=instruments)
        if order != "before":
            instrument(app, provider)
        shop.order(3)
        assert shop.published() == {"Orders": 3, "http.server.duration": 3}
        shop.reporter.shutdown()
    # OpenTelemetry itself warns about a second instrumentation.
    assert ("already instrumented" in caplog.text) == (order == "both" or (order == "after" and instruments))


def test_two_instrumented_apps() -> None:
    """Each app's requests are published with its own metrics, and another exporter gets all of them."""
    other = InMemoryMetricReader()
    with provider_of(other) as provider:
        shop, cafe = (Shop(provider, namespace, instrument=True) for namespace in ("Shop", "Cafe"))
        shop.order(3)
        cafe.order(2)
        provider.get_meter("plain").create_counter("plain").add(1)
        assert shop.published() == {"Orders": 3, "http.server.duration": 3, "plain": 1}
        assert cafe.published() == {"Orders": 2, "http.server.duration": 2}
        durations = metrics_in(other, "http.server.duration")
        assert sum(count_of(metric) for metric in durations) == 5
        shop.reporter.shutdown()
        cafe.reporter.shutdown()


def metrics_in(reader: InMemoryMetricReader, name: str) -> list[Metric]:
    """Return the metrics of this name that a reader currently has."""
    data = reader.get_metrics_data()
    assert data is not None
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    return [metric for scope in scopes for metric in scope.metrics if metric.name == name]


def count_of(metric: Metric) -> int:
    """Return the number of samples of a histogram."""
    return sum(point.count for point in metric.data.data_points if isinstance(point, HistogramDataPoint))


# Views and other readers.


def test_views_of_the_program() -> None:
    """The program's views decide what is measured, and the reporter publishes the results."""
    views = [View(instrument_name="requests", name="visits", attribute_keys={"page"}), View(instrument_name="orders")]
    with provider_of(views=views) as provider:
        shop = Shop(provider)
        provider.get_meter("plain").create_counter("requests").add(2, {"page": "index", "user": "u1"})
        shop.order()
        assert shop.published() == {"Orders": 1, "visits": 1}
        assert shop.cloudwatch.sum("visits", page="index") == 2
        shop.reporter.shutdown()


def test_other_readers_keep_their_own_temporality() -> None:
    """Readers in memory and on the console get the same values as CloudWatch, each with its own temporality."""
    memory, console = InMemoryMetricReader(), io.StringIO()
    printing = PeriodicExportingMetricReader(ConsoleMetricExporter(out=console), NEVER_SECONDS * 1000)
    with provider_of(memory, printing) as provider:
        shop = Shop(provider)
        for _ in range(2):
            shop.order(2)
            assert shop.reporter.flush()
        assert shop.published() == {"Orders": 4}
        (orders,) = metrics_in(memory, "orders")
        assert isinstance(orders.data.data_points[0], HistogramDataPoint), "the SDK's own default, not ours"
        assert count_of(orders) == 4
        provider.force_flush()
        assert '"name": "orders"' in console.getvalue()
        shop.reporter.shutdown()


class OtherExporter(MetricExporter):
    """A third-party exporter with configurable behavior."""

    def __init__(self, export: Callable[[], object]) -> None:
        super().__init__()
        self._export = export
        self.entered = threading.Event()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:  # noqa: ARG002
        """Run the configured behavior."""
        self.entered.set()
        self._export()
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002
        """Return True, since no data is buffered."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Do nothing."""


def fail() -> None:
    """Raise ``ConnectionError``."""
    raise ConnectionError("The other exporter's backend is gone.")


def test_another_exporter_hangs() -> None:
    """While another exporter hangs, a flush that returns True has delivered the measurements to CloudWatch."""
    released = threading.Event()
    other = OtherExporter(lambda: released.wait(PATIENCE_SECONDS))
    with provider_of(PeriodicExportingMetricReader(other, 1)) as provider:
        shop = Shop(provider)
        shop.order()
        assert other.entered.wait(PATIENCE_SECONDS)
        shop.order(2)
        assert shop.published() == {"Orders": 3}
        assert not released.is_set()
        released.set()
        shop.reporter.shutdown()


def test_another_exporter_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Another exporter that always raises does not affect CloudWatch."""
    other = OtherExporter(fail)
    with provider_of(PeriodicExportingMetricReader(other, 1)) as provider:
        shop = Shop(provider)
        shop.order()
        assert other.entered.wait(PATIENCE_SECONDS)
        shop.order(2)
        assert shop.published() == {"Orders": 3}
        shop.reporter.shutdown()
    caplog.clear()


def test_cloudwatch_hangs() -> None:
    """While CloudWatch hangs, another reader gets all measurements immediately."""
    memory, client = InMemoryMetricReader(), BlockedClient()
    with provider_of(memory) as provider:
        shop = Shop(provider, cloudwatch_client=client, flush="background")
        shop.order()
        assert client.entered.wait(PATIENCE_SECONDS)
        shop.order(2)
        (orders,) = metrics_in(memory, "orders")
        assert count_of(orders) == 3
        assert not client.released.is_set()
        client.released.set()
        shop.reporter.shutdown()
        assert counts(client.cloudwatch) == {"Orders": 3}


# Another CloudWatch exporter on the same provider.


def reader_to(cloudwatch: FakeCloudWatch) -> CloudWatchMetricReader:
    """Return the package's reader, as a program would create it."""
    exporter = CloudWatchMetricExporter("Plain", client=cloudwatch)
    return CloudWatchMetricReader(exporter, export_interval_seconds=NEVER_SECONDS)


def periodic_reader_to(cloudwatch: FakeCloudWatch) -> PeriodicExportingMetricReader:
    """Return the package's exporter under the SDK's reader, as a program would create it."""
    return PeriodicExportingMetricReader(CloudWatchMetricExporter("Plain", client=cloudwatch), NEVER_SECONDS * 1000)


@pytest.mark.parametrize("reader_of", [reader_to, periodic_reader_to])
@pytest.mark.parametrize("comes", ["first", "last"])
def test_another_cloudwatch_exporter(
    reader_of: Callable[[FakeCloudWatch], MetricReader], comes: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever comes first, the program's exporter publishes its metrics, and the reporter its own, each once."""
    cloudwatch = FakeCloudWatch()
    reader = reader_of(cloudwatch)
    with provider_of(*([reader] if comes == "first" else [])) as provider:
        shop = Shop(provider)
        if comes == "last":
            provider.add_metric_reader(reader)
        counter = provider.get_meter("plain").create_counter("plain")
        for _ in range(2):
            counter.add(1)
            shop.order()
            assert shop.reporter.flush()
            reader.force_flush()
        assert counts(shop.cloudwatch) == {"Orders": 2}
        assert counts(cloudwatch) == {"plain": 2}
        assert not caplog.messages
        provider.remove_metric_reader(reader)
        counter.add(1)
        assert shop.published() == {"Orders": 2, "plain": 1}
        shop.reporter.shutdown()


@pytest.mark.parametrize("reader_of", [reader_to, periodic_reader_to])
def test_another_cloudwatch_exporter_comes_late(
    reader_of: Callable[[FakeCloudWatch], MetricReader], caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter added after the reporter takes over all metrics except the reporter's own, with a log message."""
    cloudwatch = FakeCloudWatch()
    with provider_of() as provider:
        shop = Shop(provider)
        counter = provider.get_meter("plain").create_counter("plain")
        counter.add(1)
        assert shop.published() == {"plain": 1}
        reader = reader_of(cloudwatch)
        provider.add_metric_reader(reader)
        for _ in range(2):
            counter.add(1)
            shop.order()
            assert shop.reporter.flush()
            reader.force_flush()
        assert counts(shop.cloudwatch) == {"plain": 1, "Orders": 2}
        assert counts(cloudwatch) == {"plain": 2}
        (message,) = caplog.messages
        assert message.startswith("A CloudWatch exporter was added to a meter provider whose metrics")
        provider.remove_metric_reader(reader)
        shop.reporter.shutdown()


def test_a_cloudwatch_exporter_on_another_provider(caplog: pytest.LogCaptureFixture) -> None:
    """After its first export, an exporter is known to be on another provider, even if the resources are equal."""
    cloudwatch = FakeCloudWatch()
    reader = periodic_reader_to(cloudwatch)
    with provider_of() as provider, provider_of(reader) as other_provider:
        other_provider.get_meter("plain").create_counter("other").add(1)
        reader.force_flush()
        shop = Shop(provider)
        provider.get_meter("plain").create_counter("plain").add(1)
        assert shop.published() == {"plain": 1}
        shop.reporter.shutdown()
    assert counts(cloudwatch) == {"other": 1}
    assert not caplog.messages


def test_a_cloudwatch_exporter_that_no_reader_has() -> None:
    """A reporter publishes the plain metrics although an exporter without a reader exists."""
    exporter = CloudWatchMetricExporter("Plain", client=FakeCloudWatch())
    with provider_of() as provider:
        shop = Shop(provider)
        provider.get_meter("plain").create_counter("plain").add(1)
        assert shop.published() == {"plain": 1}
        shop.reporter.shutdown()
    exporter.shutdown()


def test_another_reporter_takes_over(caplog: pytest.LogCaptureFixture) -> None:
    """Of several reporters, one publishes the plain metrics, and another one takes over at its shutdown."""
    with provider_of() as provider:
        shop, cafe = Shop(provider), Shop(provider, "Cafe")
        counter = provider.get_meter("plain").create_counter("plain")
        counter.add(1)
        shop.reporter.shutdown()
        counter.add(1)
        assert counts(shop.cloudwatch) == {"plain": 1}
        assert cafe.published() == {"plain": 1}
        cafe.reporter.shutdown()
    assert not caplog.messages


def test_another_reporter_fails_to_take_over(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the other reporter cannot collect metrics, the shutdown logs that, and removes the first reporter's reader."""
    with provider_of() as provider:
        shop, cafe = Shop(provider), Shop(provider, "Cafe")
        provider.get_meter("plain").create_counter("plain").add(1)
        first, second = readers_on(provider)
        with monkeypatch.context() as patched:
            patched.setattr(second, "collect", lambda **_: 1 / 0)
            shop.reporter.shutdown()
        assert counts(shop.cloudwatch) == {"plain": 1}
        assert consumer_of(first) is None
        (message,) = caplog.messages
        assert message.startswith("Failed to collect metrics")
        cafe.reporter.shutdown()


def test_a_shutdown_does_not_wait_for_the_reporter_that_takes_over() -> None:
    """If a callback delays the other reporter's collection, the first one's reader is removed after the shutdown."""
    with provider_of() as provider:
        shop, cafe = Shop(provider), Shop(provider, "Cafe")
        has_ended, calls = threading.Event(), itertools.count(1)

        def observe(_options: CallbackOptions) -> list[Observation]:
            if next(calls) == 2:  # the other reporter's collection, which follows the final one of the first
                assert has_ended.wait(PATIENCE_SECONDS)
            return [Observation(1)]

        provider.get_meter("plain").create_observable_gauge("plain", [observe])
        first, _ = readers_on(provider)
        shop.reporter.shutdown(1.0)
        assert consumer_of(first) is not None
        shop.reporter.shutdown(0.1)
        has_ended.set()
        assert eventually(lambda: consumer_of(first) is None)
        # An exception in one of the threads that remove the reader makes pytest fail the test.
        assert eventually(lambda: all("removal" not in each.name for each in threading.enumerate()))
        cafe.reporter.shutdown()


def run_alone(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, because a global provider cannot be replaced."""
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with isolated_environment():
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_global_provider_that_comes_too_late() -> None:
    """OpenTelemetry rejects a provider set after the reporter created one, and the reporter keeps working."""
    program = """
        from flask import Flask
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from otel_cloudwatch_flask import CloudWatchMetricsReporter
        from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
        cloudwatch = FakeCloudWatch()
        reporter = CloudWatchMetricsReporter(Flask("shop"), "Shop", cloudwatch)
        metrics.set_meter_provider(MeterProvider())
        metrics.get_meter("plain").create_counter("plain").add(1)
        reporter.add_metric("Orders", 1)
        print(reporter.flush(), cloudwatch.sum("plain"), cloudwatch.sum("Orders"))
    """
    done = run_alone(program)
    assert done.returncode == 0
    assert done.stdout.strip() == "True 1.0 1.0"
    assert "Overriding of current MeterProvider is not allowed" in done.stderr


def test_a_global_provider_that_does_nothing() -> None:
    """A reporter refuses a global ``NoOpMeterProvider``, and does not try to replace it."""
    program = """
        from flask import Flask
        from opentelemetry import metrics
        from otel_cloudwatch_flask import CloudWatchMetricsReporter

        metrics.set_meter_provider(metrics.NoOpMeterProvider())
        CloudWatchMetricsReporter(Flask("shop"))
    """
    done = run_alone(program)
    assert "NoOpMeterProvider object" in done.stderr
    assert "does not accept metric readers" in done.stderr
    assert "Overriding" not in done.stderr


def test_a_global_provider_of_another_implementation() -> None:
    """A reporter refuses a global provider that does not accept readers, and logs no loss of metrics."""
    program = """
        from flask import Flask
        from opentelemetry import metrics
        from opentelemetry.metrics import MeterProvider, NoOpMeter
        from otel_cloudwatch_flask import CloudWatchMetricsReporter

        class OtherProvider(MeterProvider):
            def get_meter(self, name, *arguments, **options):
                return NoOpMeter(name)

        metrics.set_meter_provider(OtherProvider())
        CloudWatchMetricsReporter(Flask("shop"), "Shop")
    """
    done = run_alone(program)
    assert "OtherProvider object" in done.stderr
    assert "does not accept metric readers" in done.stderr
    assert "are lost" not in done.stderr
