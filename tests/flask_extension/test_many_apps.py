"""Many apps in one process: app factories, several apps on one meter provider, and short-lived apps."""

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from opentelemetry.metrics import Meter, NoOpMeterProvider, Observation
from opentelemetry.sdk.metrics import Meter as SdkMeter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from otel_cloudwatch_flask import (
    CloudWatchMetricExporter,
    CloudWatchMetricReader,
    CloudWatchMetricsReporter,
    MetricRule,
)
from otel_cloudwatch_flask.flask_extension import provider_setup
from otel_cloudwatch_flask.flask_extension.provider_setup import ProviderSetup
from otel_cloudwatch_flask.flask_extension.reporter_reader import ReporterReader
from otel_cloudwatch_flask.sdk import internals
from otel_cloudwatch_flask.sdk import reader as reader_module
from otel_cloudwatch_flask.sdk.reader import readers_on
from otel_cloudwatch_flask.testing import FakeCloudWatch
from tests.support.fakes import eventually

APPS = 40


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Garbage-collect this module's reporters so that other tests do not find them."""
    yield
    gc.collect()


@pytest.fixture
def provider() -> Iterator[MeterProvider]:
    """The program's meter provider."""
    provider = MeterProvider(shutdown_on_exit=False)
    yield provider
    for reader in readers_on(provider):
        reader.shutdown()


@pytest.fixture
def cloudwatch() -> FakeCloudWatch:
    """A strict fake CloudWatch."""
    return FakeCloudWatch()


def make_app(name: str = "shop", **options: Any) -> Flask:
    """Return an app with a reporter, as an app factory would; only the app references the reporter."""
    app = Flask(name)
    reporter = CloudWatchMetricsReporter(app, flush="interval", **options)

    @app.get("/")
    def index() -> str:
        reporter.add_metric("Orders", 1, "Count")
        return "ordered"

    return app


def reporter_of(app: Flask) -> CloudWatchMetricsReporter:
    """Return the app's reporter."""
    reporter = app.extensions["cloudwatch_metrics"].reporter
    assert isinstance(reporter, CloudWatchMetricsReporter)
    return reporter


def setup_of(app: Flask) -> ProviderSetup:
    """Return the setup that the app shares with other apps."""
    setup = app.extensions["cloudwatch_metrics"].registration.setup
    assert isinstance(setup, ProviderSetup)
    return setup


def reader_threads() -> int:
    """Return the number of reader threads in this process."""
    return sum(thread.name == "CloudWatchMetricReader" for thread in threading.enumerate())


def test_equal_targets_share_a_reader(provider: MeterProvider, cloudwatch: FakeCloudWatch) -> None:
    """Apps with equal targets share one thread and one request per flush; per-app settings stay separate."""
    apps = [
        make_app(
            f"app{number}",
            namespace="Shop",
            cloudwatch_client=cloudwatch,
            meter_provider=provider,
            default_dimensions={"App": str(number % 2)},
        )
        for number in range(4)
    ]
    assert len(readers_on(provider)) == 1
    for app in apps:
        app.test_client().get("/")
    assert reporter_of(apps[0]).flush()
    assert len(cloudwatch.requests) == 1
    assert [cloudwatch.sum("Orders", App=app) for app in "01"] == [2, 2]


@pytest.mark.parametrize(
    "difference",
    [
        lambda: {"namespace": "Cafe"},
        lambda: {"cloudwatch_client": FakeCloudWatch()},
        lambda: {"rules": [MetricRule(match="Orders")]},
        lambda: {"export_interval_seconds": 30.0},
        lambda: {"flush_min_interval_seconds": 5.0},
        lambda: {"meter_provider": MeterProvider(shutdown_on_exit=False)},
    ],
)
def test_other_targets_have_a_reader_of_their_own(
    provider: MeterProvider, cloudwatch: FakeCloudWatch, difference: Callable[[], dict[str, Any]]
) -> None:
    """Reporters that differ in any reader setting have separate readers."""
    options: dict[str, Any] = {"namespace": "Shop", "cloudwatch_client": cloudwatch, "meter_provider": provider}
    first, second = make_app(**options), make_app(**options | difference())
    assert setup_of(first).reader is not setup_of(second).reader
    reporter_of(second).shutdown()


def test_a_shared_reader_outlives_the_first_shutdown(provider: MeterProvider, cloudwatch: FakeCloudWatch) -> None:
    """A shared reader shuts down with the last reporter that uses it."""
    options: dict[str, Any] = {"namespace": "Shop", "cloudwatch_client": cloudwatch, "meter_provider": provider}
    first, second = make_app(**options), make_app(**options)
    first.test_client().get("/")
    reporter_of(first).shutdown()
    assert cloudwatch.sum("Orders") == 1
    second.test_client().get("/")
    assert reporter_of(second).flush()
    assert cloudwatch.sum("Orders") == 2
    reporter_of(second).shutdown()
    assert readers_on(provider) == []


@pytest.mark.parametrize("namespaces", [1, APPS])
@pytest.mark.parametrize("instrument", [False, True])
def test_dropped_apps_are_flushed_and_gone(
    provider: MeterProvider,
    cloudwatch: FakeCloudWatch,
    caplog: pytest.LogCaptureFixture,
    namespaces: int,
    instrument: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Dropped apps deliver every metric, detach their readers, end their threads, and cause no SDK warning."""
    threads = reader_threads()
    for number in range(APPS):
        app = make_app(
            namespace=f"Shop{number % namespaces}",
            cloudwatch_client=cloudwatch,
            meter_provider=provider,
            instrument=instrument,
        )
        app.test_client().get("/")
        del app
    gc.collect()
    assert eventually(lambda: readers_on(provider) == [] and reader_threads() <= threads)
    assert sum(cloudwatch.sum("Orders", namespace=f"Shop{number}") for number in range(namespaces)) == APPS
    assert len(getattr(internals.consumer_of(provider), "_reader_storages", ())) == 0
    assert caplog.messages == []


def test_identities_are_used_again(provider: MeterProvider, cloudwatch: FakeCloudWatch) -> None:
    """Reporter IDs are reused, because the SDK keeps one meter per ID for the provider's lifetime."""
    identities = set()
    gc.freeze()  # so that each collection examines only the objects of this test, which is much faster
    for _ in range(APPS):
        app = make_app(namespace="Reused", cloudwatch_client=cloudwatch, meter_provider=provider)
        app.test_client().get("/")
        setup = setup_of(app)
        identities.add(setup.reporter_id)
        assert setup.reader
        thread = setup.reader.thread
        del app, setup
        gc.collect()
        thread.join(30)  # the thread removes the reader after its final flush
    gc.unfreeze()
    assert identities == {"Reused"}
    assert cloudwatch.sum("Orders") == APPS


def test_a_dropped_app_leaves_the_program_s_reader(cloudwatch: FakeCloudWatch) -> None:
    """Metrics of a dropped app are published by the next flush of the program's own reader."""
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=cloudwatch), export_interval_seconds=3600)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    for _ in range(3):
        app = Flask("shop")
        CloudWatchMetricsReporter(app, meter_provider=provider).add_metric("Orders", 1)
        del app
        gc.collect()
    assert readers_on(provider) == [reader]
    assert len(reader.exporter.reporters) == 1
    assert reader.flush()
    assert cloudwatch.sum("Orders") == 3
    reader.shutdown()


@pytest.mark.parametrize("namespaces", [("Shop", "Cafe"), ("Shop", "Shop")])
def test_two_apps_behind_a_dispatcher(
    cloudwatch: FakeCloudWatch, caplog: pytest.LogCaptureFixture, namespaces: tuple[str, str]
) -> None:
    """Two instrumented apps and another reader share a provider without an SDK warning."""
    other = InMemoryMetricReader()
    provider = MeterProvider([other], shutdown_on_exit=False)
    shop, cafe = (
        make_app(name, namespace=name, cloudwatch_client=cloudwatch, meter_provider=provider, instrument=True)
        for name in namespaces
    )
    client = Client(DispatcherMiddleware(shop, {"/cafe": cafe}))
    for path in ("/", "/cafe/", "/cafe/"):
        assert client.get(path).status_code == 200
    assert reporter_of(shop).flush()
    assert reporter_of(cafe).flush()
    counts = {name: cloudwatch.count("http.server.duration", namespace=name) for name in namespaces}
    assert counts == ({"Shop": 1, "Cafe": 2} if len(counts) == 2 else {"Shop": 3})
    assert other.get_metrics_data()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    reporter_of(shop).shutdown()
    reporter_of(cafe).shutdown()


def test_a_reader_stores_its_own_reporters_metrics_only(provider: MeterProvider, cloudwatch: FakeCloudWatch) -> None:
    """Each reader stores only its own reporter's metrics, so memory grows linearly with the number of reporters."""
    apps = [
        make_app(namespace=f"Shop{number}", cloudwatch_client=cloudwatch, meter_provider=provider, instrument=True)
        for number in range(10)
    ]
    for app in apps:
        app.test_client().get("/")
    storages = getattr(internals.consumer_of(provider), "_reader_storages", {})
    assert {len(storage._instrument_view_instrument_matches) for storage in storages.values()} == {3}
    for app in apps:
        assert reporter_of(app).flush()
    assert {metric.namespace for metric in cloudwatch.metrics()} == {f"Shop{number}" for number in range(10)}


def test_plain_metrics_of_reporters_that_shut_down_in_turn(provider: MeterProvider, cloudwatch: FakeCloudWatch) -> None:
    """Each measurement of a plain metric is published once, by whichever reporter comes first at the time."""
    reporters = [
        CloudWatchMetricsReporter(Flask(name), name, cloudwatch, meter_provider=provider, flush="interval")
        for name in ("first", "second", "third", "fourth")
    ]
    counter = provider.get_meter("plain").create_counter("plain")
    counter.add(1)
    for reporter in reporters[:3]:
        reporter.shutdown()
    counter.add(10)
    reporters[3].shutdown()
    assert cloudwatch.sum("plain", namespace="first") == 1
    assert cloudwatch.sum("plain", namespace="fourth") == 10
    assert cloudwatch.sum("plain") == 11


@pytest.mark.parametrize("slow_class", [ReporterReader, CloudWatchMetricReader])
def test_plain_metrics_at_exit(
    provider: MeterProvider, cloudwatch: FakeCloudWatch, monkeypatch: pytest.MonkeyPatch, slow_class: type
) -> None:
    """At exit, a reporter does not take over a program's plain metrics, whether it flushes before or after it."""
    programs = CloudWatchMetricReader(CloudWatchMetricExporter("Program", client=cloudwatch))
    provider.add_metric_reader(programs)
    app = make_app(namespace="Shop", cloudwatch_client=cloudwatch, meter_provider=provider)
    provider.get_meter("plain").create_counter("plain").add(1)
    collect_now = CloudWatchMetricReader.collect_now

    def collect(reader: CloudWatchMetricReader, deadline: float) -> bool:
        time.sleep(0.2 * (type(reader) is slow_class))
        return collect_now(reader, deadline)

    monkeypatch.setattr(CloudWatchMetricReader, "collect_now", collect)
    reporters = setup_of(app).reader
    assert reporters is not None
    reader_module._shut_down([programs, reporters], time.monotonic() + 30)
    assert [cloudwatch.sum("plain", namespace=each) for each in ("Program", "Shop")] == [1, 0]


def test_plain_metrics_at_exit_beside_a_reader_without_a_provider(
    provider: MeterProvider, cloudwatch: FakeCloudWatch
) -> None:
    """At exit, a reporter publishes a provider's plain metrics if the program's reader is not on that provider."""
    programs = CloudWatchMetricReader(CloudWatchMetricExporter("Program", client=cloudwatch))
    app = make_app(namespace="Shop", cloudwatch_client=cloudwatch, meter_provider=provider)
    provider.get_meter("plain").create_counter("plain").add(1)
    reporters = setup_of(app).reader
    assert reporters is not None
    reader_module._shut_down([programs, reporters], time.monotonic() + 30)
    assert cloudwatch.sum("plain", namespace="Shop") == 1


def test_plain_metrics_while_another_reader_is_created(
    provider: MeterProvider, cloudwatch: FakeCloudWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reporter that flushes while the program creates a reader publishes the plain metrics of its own provider."""
    reporter = CloudWatchMetricsReporter(Flask("shop"), "Shop", cloudwatch, meter_provider=provider, flush="interval")
    provider.get_meter("plain").create_counter("plain").add(1)
    monkeypatch.setattr(reader_module, "call_at_exit", lambda _: reporter.flush())
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Program", client=cloudwatch))
    assert cloudwatch.sum("plain", namespace="Shop") == 1
    reader.shutdown()


def test_two_reporters_that_shut_down_at_the_same_time(
    provider: MeterProvider, cloudwatch: FakeCloudWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reporter's final flush includes what another reporter, which shuts down as well, collects for it."""
    first, second = (
        CloudWatchMetricsReporter(Flask(name), name, cloudwatch, meter_provider=provider, flush="interval")
        for name in ("first", "second")
    )
    second.add_metric("Orders", 1)
    has_begun, receive_metrics = threading.Event(), ReporterReader._receive_metrics
    shutdown = threading.Thread(target=second.shutdown)

    def receive(reader: ReporterReader, *arguments: Any, **options: Any) -> None:
        if threading.current_thread().name == "CloudWatchMetricReader removal" and not has_begun.is_set():
            has_begun.set()
            shutdown.start()
            shutdown.join(0.2)
        receive_metrics(reader, *arguments, **options)

    monkeypatch.setattr(ReporterReader, "_receive_metrics", receive)
    first.shutdown()
    assert has_begun.is_set()
    shutdown.join()
    assert cloudwatch.sum("Orders") == 1


class CopyingProvider(MeterProvider):
    """A program's provider that passes on a copy of each scope's name."""

    def get_meter(self, name: str, *args: Any, **kwargs: Any) -> Meter:
        """Return the meter for a copy of the name."""
        return super().get_meter("".join(name), *args, **kwargs)


def test_a_provider_that_copies_scope_names(cloudwatch: FakeCloudWatch) -> None:
    """Each reporter publishes its own metrics, even if the program's provider copies the names of scopes."""
    provider = CopyingProvider(shutdown_on_exit=False)
    apps = [
        make_app(namespace=name, cloudwatch_client=cloudwatch, meter_provider=provider) for name in ("Shop", "Cafe")
    ]
    reporter_of(apps[1]).add_metric("Debts", -2)
    for app in apps:
        assert reporter_of(app).flush()
    assert [(metric.namespace, metric.name) for metric in cloudwatch.metrics()] == [("Cafe", "Debts")]
    assert cloudwatch.sum("Debts") == -2


def test_disabled_reporters_share_nothing_with_others(provider: MeterProvider, cloudwatch: FakeCloudWatch) -> None:
    """Metrics of disabled reporters never reach CloudWatch, whatever other reporters publish."""
    disabled = Flask("disabled")
    disabled.config["CLOUDWATCH_ENABLED"] = False
    options: dict[str, Any] = {"namespace": "Shop", "cloudwatch_client": cloudwatch, "meter_provider": provider}
    first = CloudWatchMetricsReporter(disabled, **options)
    app = make_app(**options)
    first.add_metric("Orders", 1)
    assert reporter_of(app).flush()
    assert cloudwatch.metrics() == []
    assert CloudWatchMetricsReporter(disabled_app(), meter_provider=NoOpMeterProvider()).flush()


def disabled_app() -> Flask:
    """Return an app that publishes nothing."""
    app = Flask("disabled")
    app.config["CLOUDWATCH_ENABLED"] = False
    return app


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_during_a_shutdown(provider: MeterProvider, cloudwatch: FakeCloudWatch) -> None:
    """A child that is forked during a reporter's final collection sets up reporters, and publishes plain metrics."""
    is_collecting, may_end = threading.Event(), threading.Event()
    first, second = (
        CloudWatchMetricsReporter(Flask(name), name, cloudwatch, meter_provider=provider, flush="interval")
        for name in ("first", "second")
    )
    meter = provider.get_meter("plain")

    def wait(_: object) -> list[Observation]:
        is_collecting.set()
        may_end.wait(30)
        return []

    meter.create_observable_gauge("blocked", [wait])
    shutdown = threading.Thread(target=first.shutdown)
    shutdown.start()
    assert is_collecting.wait(30)
    child = os.fork()
    if not child:
        signal.alarm(20)
        may_end.set()
        third = CloudWatchMetricsReporter(Flask("third"), "third", cloudwatch, meter_provider=provider)
        meter.create_counter("plain").add(1)
        third.add_metric("Own", 1)
        is_sent = third.flush() and second.flush()
        os._exit((is_sent, cloudwatch.sum("plain"), cloudwatch.sum("Own")) != (True, 1, 1))
    _, status = os.waitpid(child, 0)
    may_end.set()
    shutdown.join()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_records_a_new_metric(
    provider: MeterProvider, cloudwatch: FakeCloudWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork waits until the SDK has created a metric's instrument, so the child can record that metric."""
    reporter = CloudWatchMetricsReporter(Flask("shop"), "Shop", cloudwatch, meter_provider=provider, flush="interval")
    has_begun, register = threading.Event(), SdkMeter._register_instrument

    def slow(*arguments: Any) -> Any:
        has_begun.set()
        time.sleep(0.2)
        return register(*arguments)

    monkeypatch.setattr(SdkMeter, "_register_instrument", slow)
    thread = threading.Thread(target=reporter.add_metric, args=("New", 1))
    thread.start()
    assert has_begun.wait(30)
    child = os.fork()
    if not child:
        signal.alarm(20)
        reporter.add_metric("New", 1)
        os._exit((reporter.flush(), cloudwatch.sum("New")) != (True, 1))
    _, status = os.waitpid(child, 0)
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_set_up_that_waits(
    provider: MeterProvider, cloudwatch: FakeCloudWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a reporter's set-up waits, as for an observable callback that is running, other reporters still deliver."""
    reporter = CloudWatchMetricsReporter(Flask("shop"), "Shop", cloudwatch, meter_provider=provider, flush="interval")
    has_begun, may_end, shared_reader = threading.Event(), threading.Event(), provider_setup._shared_reader

    def wait(*arguments: Any) -> Any:
        has_begun.set()
        may_end.wait(30)
        return shared_reader(*arguments)

    monkeypatch.setattr(provider_setup, "_shared_reader", wait)
    thread = threading.Thread(target=make_app, kwargs={"cloudwatch_client": cloudwatch, "meter_provider": provider})
    thread.start()
    assert has_begun.wait(30)
    reporter.add_metric("Orders", 1)
    assert reporter.flush()
    may_end.set()
    thread.join()
    assert cloudwatch.sum("Orders") == 1
