"""The exporter as the SDK uses it: under the SDK's readers, at shutdown, and for reporters."""

import threading
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader, MetricRule
from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.delivery.spool import Spool
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.model.datum import Datum, Series
from otel_cloudwatch_flask.model.scope import FacadeMetric
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch, client_error
from tests.support.fakes import BlockedClient, ScriptedClient, eventually, in_threads, join_all
from tests.support.programs import CUMULATIVE, Program


def collected(*names: str, resource: dict[str, Any] | None = None) -> MetricsData:
    """Return a collection of counters, each with one increment."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=Resource(resource or {}), shutdown_on_exit=False)
    for name in names:
        provider.get_meter("tests").create_counter(name).add(1)
    data = reader.get_metrics_data()
    assert data is not None
    return data


def many_series(*, number: int, text: str) -> MetricsData:
    """Return a collection of 800 series of counter ``number``, each with a dimension value that contains ``text``."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    counter = provider.get_meter("tests").create_counter(f"orders{number}")
    for i in range(800):
        counter.add(1, {"text": f"{text}{i}"})
    data = reader.get_metrics_data()
    assert data is not None
    return data


def resting(seconds: float) -> Exception:
    """Return a throttling error with a ``Retry-After`` header."""
    error = client_error("ThrottlingException")
    error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] = str(seconds)
    return error


@pytest.fixture
def cloudwatch() -> FakeCloudWatch:
    """A strict in-memory fake CloudWatch."""
    return FakeCloudWatch()


class TestUnderTheSdksReader:
    """The exporter under ``PeriodicExportingMetricReader``."""

    @staticmethod
    def provider(exporter: MetricExporter) -> MeterProvider:
        """Return a provider whose reader collects only on request."""
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
        return MeterProvider([reader], shutdown_on_exit=False)

    def test_temporality(self, cloudwatch: FakeCloudWatch) -> None:
        """The exporter asks the SDK for deltas of sums, current values of gauges, and narrow buckets of histograms."""
        provider = self.provider(CloudWatchMetricExporter("Shop", client=cloudwatch))
        meter = provider.get_meter("tests")
        counter, queue = meter.create_counter("orders"), meter.create_up_down_counter("queue")
        histogram = meter.create_histogram("latency")
        for i in range(1, 101):
            counter.add(1)
            queue.add(1 if i % 2 else -1)
            histogram.record(i)
        assert provider.force_flush()
        counter.add(1)
        assert provider.force_flush()
        assert cloudwatch.sum("orders") == 101
        assert cloudwatch.count("orders") == 2
        assert cloudwatch.values("queue") == {0: 2}
        assert cloudwatch.count("latency") == 100
        assert cloudwatch.percentile("latency", 90) == pytest.approx(90, rel=0.02)
        provider.shutdown()

    def test_shutdown_flushes(self, cloudwatch: FakeCloudWatch) -> None:
        """The last measurements arrive when the SDK shuts down the provider."""
        provider = self.provider(CloudWatchMetricExporter("Shop", client=cloudwatch))
        provider.get_meter("tests").create_counter("orders").add(1)
        provider.shutdown()
        assert cloudwatch.sum("orders") == 1

    def test_an_outage_loses_nothing(self) -> None:
        """The SDK does not export data twice, so unsent data is kept and sent with the next export."""
        client = ScriptedClient(client_error("InternalFailure", status=500))
        exporter = CloudWatchMetricExporter("Shop", client=client)
        provider = self.provider(exporter)
        counter = provider.get_meter("tests").create_counter("orders")
        for _ in range(3):
            counter.add(1)
            provider.force_flush()
        exporter.sender.expedite()
        assert exporter.force_flush()
        assert client.cloudwatch.sum("orders") == 3
        provider.shutdown()

    def test_calls_in_the_readers_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The exporter starts no thread; it makes its calls in the exporting thread."""
        callers: list[threading.Thread] = []
        client = ScriptedClient(before_each=lambda: callers.append(threading.current_thread()))
        started: list[threading.Thread] = []
        here, start = threading.current_thread(), threading.Thread.start

        def start_and_note(thread: threading.Thread) -> None:
            started.append(thread)
            start(thread)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start_and_note)
            exporter = CloudWatchMetricExporter("Shop", client=client)
            reader = PeriodicExportingMetricReader(exporter, export_interval_millis=5)
            # The SDK detects the default resource in a thread.
            provider = MeterProvider([reader], Resource.get_empty(), shutdown_on_exit=False)
            provider.get_meter("tests").create_counter("orders").add(1)
            assert eventually(lambda: exporter.stats().datums_sent == 1)
            assert exporter.export(collected("errors")) is MetricExportResult.SUCCESS
        assert [callers[0]] == started
        assert callers[-1] is here
        provider.shutdown()


def test_cumulative_reader() -> None:
    """Under a reader with cumulative temporality, each increment is counted once."""
    program = Program(temporality=CUMULATIVE)
    counter, histogram = program.meter.create_counter("orders"), program.meter.create_histogram("latency")
    for i in range(1, 5):
        counter.add(i)
        histogram.record(i)
        program.publish()
    program.publish()
    assert program.cloudwatch.sum("orders") == 10
    assert program.cloudwatch.values("latency") == {1: 1, 2: 1, 3: 1, 4: 1}


def test_cumulative_readers_of_two_providers(cloudwatch: FakeCloudWatch) -> None:
    """Series of two resources have their own running totals, even if nothing else distinguishes them."""
    exporter = CloudWatchMetricExporter("Shop", client=cloudwatch)
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    counters = [
        MeterProvider([reader], resource=Resource({"host.name": host}), shutdown_on_exit=False)
        .get_meter("tests")
        .create_counter("orders")
        for host, reader in zip("ab", readers, strict=True)
    ]
    for _ in range(3):
        for amount, counter, reader in zip((10, 1), counters, readers, strict=True):
            counter.add(amount)
            data = reader.get_metrics_data()
            assert data is not None
            exporter.export(data)
    assert cloudwatch.sum("orders") == 33


class TestNamespace:
    """The namespace in which metrics are published."""

    @pytest.mark.parametrize(
        ("given", "resource", "namespace"),
        [
            ("Shop", {"service.name": "other"}, "Shop"),
            (None, {"service.name": "shop"}, "shop"),
            (None, {}, "unknown_service"),
        ],
    )
    def test_precedence(
        self, cloudwatch: FakeCloudWatch, given: str | None, resource: dict[str, Any], namespace: str
    ) -> None:
        """The namespace is the argument, or else the service name, or else OpenTelemetry's default service name."""
        exporter = CloudWatchMetricExporter(given, client=cloudwatch)
        exporter.export(collected("orders", resource=resource))
        assert [metric.namespace for metric in cloudwatch.metrics()] == [namespace]

    def test_two_providers_at_a_time(self, cloudwatch: FakeCloudWatch, monkeypatch: pytest.MonkeyPatch) -> None:
        """Metrics keep the namespace of their own provider if another provider exports while they are mapped."""
        exporter = CloudWatchMetricExporter(client=cloudwatch)
        cafe = collected("orders", resource={"service.name": "cafe"})
        mapped = exporter._mapper.datums

        def mapped_while_another_exports(data: MetricsData) -> list[Datum]:
            datums = [*mapped(data)]
            exporter.resource = cafe.resource_metrics[0].resource
            return datums

        monkeypatch.setattr(exporter._mapper, "datums", mapped_while_another_exports)
        exporter.export(collected("orders", resource={"service.name": "shop"}))
        assert [metric.namespace for metric in cloudwatch.metrics()] == ["shop"]

    @pytest.mark.parametrize("name", ["Bücher", "AWS/Lambda", ":shop", "x" * 300, " ", "shop\n"])
    def test_a_service_name_that_is_no_namespace(self, cloudwatch: FakeCloudWatch, name: str) -> None:
        """CloudWatch accepts the metrics of a service, whatever its name."""
        exporter = CloudWatchMetricExporter(client=cloudwatch)
        exporter.export(collected("orders", resource={"service.name": name}))
        assert [error.message for error in cloudwatch.validation_errors] == []
        assert cloudwatch.sum("orders") == 1

    @pytest.mark.parametrize("namespace", ["", "AWS/Shop", "Bücher", ":shop", 5])
    def test_unusable(self, namespace: Any) -> None:
        """A namespace that CloudWatch does not accept is rejected at setup."""
        with pytest.raises(ConfigurationError, match="namespace"):
            CloudWatchMetricExporter(namespace, client=FakeCloudWatch())


def assert_each_is_sent_or_lost(exporter: CloudWatchMetricExporter, datums: int) -> None:
    """Check that every datum is eventually sent or lost, and none stays pending."""
    assert eventually(lambda: exporter.stats().datums_pending == 0, within_seconds=2)
    stats = exporter.stats()
    assert stats.datums_sent + sum(stats.datums_lost.values()) == datums


class TestShutdown:
    """Shutdown of the exporter."""

    def test_sends_what_waits(self) -> None:
        """Shutdown tries pending datums once more, without waiting until the next attempt is due."""
        error = resting(1000)
        client = ScriptedClient(error)
        exporter = CloudWatchMetricExporter("Shop", client=client)
        assert exporter.export(collected("orders"), timeout_millis=100) is MetricExportResult.FAILURE
        assert exporter.stats().datums_pending == 1
        exporter.shutdown(timeout_millis=5_000)
        assert client.cloudwatch.sum("orders") == 1
        assert exporter.stats().datums_lost == {}

    def test_counts_the_rest_as_lost(self, caplog: pytest.LogCaptureFixture) -> None:
        """Datums that cannot be sent within the timeout are lost with the reason ``shutdown``, and logged."""
        error = resting(1000)
        exporter = CloudWatchMetricExporter("Shop", client=ScriptedClient(*[error] * 9))
        exporter.export(collected("orders", "errors"), timeout_millis=100)
        exporter.shutdown(timeout=100)
        stats = exporter.stats()
        assert (stats.datums_pending, stats.datums_lost) == (0, {"shutdown": 2})
        assert "could not be sent before the exporter was shut down" in caplog.text

    def test_twice(self, cloudwatch: FakeCloudWatch) -> None:
        """A second shutdown does nothing."""
        exporter = CloudWatchMetricExporter("Shop", client=cloudwatch)
        exporter.export(collected("orders"))
        exporter.shutdown()
        exporter.shutdown()
        assert len(cloudwatch.requests) == 1

    def test_export_afterwards(self, cloudwatch: FakeCloudWatch) -> None:
        """Data exported after shutdown is not sent, and counts as lost, because the SDK no longer has it."""
        exporter = CloudWatchMetricExporter("Shop", client=cloudwatch)
        exporter.shutdown()
        assert exporter.export(collected("orders", "errors")) is MetricExportResult.FAILURE
        assert cloudwatch.requests == []
        stats = exporter.stats()
        assert (stats.datums_pending, stats.datums_lost) == (0, {"shutdown": 2})

    def test_while_the_client_hangs(self) -> None:
        """A hanging request delays shutdown by at most the timeout; then each datum is sent or lost."""
        client = BlockedClient()
        exporter = CloudWatchMetricExporter("Shop", client=client)
        threads = in_threads(lambda: exporter.export(collected("orders")))
        assert client.entered.wait(5)
        begun = time.monotonic()
        exporter.shutdown(timeout_millis=200)
        assert time.monotonic() - begun < 1.5
        client.released.set()
        join_all(threads)
        assert_each_is_sent_or_lost(exporter, 1)

    def test_what_the_next_process_may_send_again(self, tmp_path: Path) -> None:
        """A request in progress at shutdown counts as possibly duplicated if its datums are in the spool."""
        client, following = BlockedClient(), FakeCloudWatch()
        exporter = CloudWatchMetricExporter("Shop", client=client, spool_directory=str(tmp_path))
        threads = in_threads(lambda: exporter.export(collected("orders")))
        assert client.entered.wait(20)
        exporter.shutdown(timeout_millis=10)
        CloudWatchMetricExporter("Shop", client=following, spool_directory=str(tmp_path)).force_flush()
        client.released.set()
        join_all(threads)
        assert client.cloudwatch.count("orders") == following.count("orders") == 1
        assert (exporter.stats().datums_sent, exporter.stats().datums_possibly_duplicated) == (1, 1)

    def test_a_hanging_request_that_fails_afterwards(self) -> None:
        """If a request in progress at shutdown fails later, no datum stays pending."""
        entered, released = threading.Event(), threading.Event()

        def hang() -> None:
            entered.set()
            assert released.wait(5)

        exporter = CloudWatchMetricExporter("Shop", client=ScriptedClient(OSError("gone"), before_each=hang))
        threads = in_threads(lambda: exporter.export(collected("orders"), timeout_millis=50))
        assert entered.wait(5)
        exporter.shutdown(timeout_millis=50)
        released.set()
        join_all(threads)
        assert_each_is_sent_or_lost(exporter, 1)
        assert exporter.stats().datums_lost == {"shutdown": 1}


def test_others_wait_for_a_call_no_longer_than_they_want_to() -> None:
    """While one thread is blocked in a call, a flush or export in another thread returns at its timeout."""
    client = BlockedClient()
    exporter = CloudWatchMetricExporter("Shop", client=client)
    threads = in_threads(lambda: exporter.export(collected("orders")))
    assert client.entered.wait(5)
    begun = time.monotonic()
    assert not exporter.force_flush(timeout_millis=50)
    assert exporter.export(collected("errors"), timeout_millis=50) is MetricExportResult.FAILURE
    assert 0.1 <= time.monotonic() - begun < 2
    client.released.set()
    join_all(threads)
    assert exporter.force_flush()
    assert client.cloudwatch.sum("errors") == 1


def test_a_large_spool_of_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush that adopts a large spool returns at its deadline, and later flushes continue the adoption."""
    client = ScriptedClient()
    other = Spool(tmp_path)
    for number in range(40):
        other.write(Batch(Envelope("Shop"), (Datum(Series(f"orders{number}", (), "Count"), int(time.time()), 1.0),)))
    other.release()
    read = Spool.read

    def read_slowly(spool: Spool, path: Path) -> Batch | None:
        threading.Event().wait(0.02)  # simulates a slow disk
        return read(spool, path)

    monkeypatch.setattr(Spool, "read", read_slowly)
    exporter = CloudWatchMetricExporter("Shop", client=client, spool_directory=tmp_path)
    begun = time.monotonic()
    assert not exporter.force_flush(timeout_millis=100)
    assert time.monotonic() - begun < 0.6
    assert 0 < exporter.stats().datums_pending < 40
    assert exporter.force_flush()
    assert len(client.cloudwatch.datums) == 40
    exporter.shutdown()


def test_odd_numbers_cost_nothing_but_themselves() -> None:
    """Decimals are accepted; values that are not numbers are lost and counted, and all others arrive."""
    cloudwatch = FakeCloudWatch()
    exporter = CloudWatchMetricExporter("Shop", client=cloudwatch)
    reader = InMemoryMetricReader(
        preferred_temporality=dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA)
    )
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("shop")
    meter.create_histogram("price").record(Decimal("9.90"))  # type: ignore[arg-type]
    meter.create_counter("weight", unit="min").add(Decimal("0.5"))  # type: ignore[arg-type]
    meter.create_counter("orders").add(7)
    data = reader.get_metrics_data()
    assert data is not None
    prices: Any = data.resource_metrics[0].scope_metrics[0].metrics[0].data
    odd: list[dict[str, Any]] = [{"sum": None}, {"bucket_counts": None}, {"time_unix_nano": None}, {"count": 10**400}]
    prices.data_points.extend([replace(prices.data_points[0], **change) for change in odd])
    assert exporter.export(data) is MetricExportResult.SUCCESS
    assert cloudwatch.values("price") == {9.9: 1}
    assert cloudwatch.sum("weight") == 30
    assert cloudwatch.sum("orders") == 7
    assert exporter.stats().datums_lost == {"invalid": 4}


class TestForceFlush:
    """``force_flush`` returns whether nothing is pending."""

    def test_truth(self) -> None:
        """``True`` if all data has been sent, and ``False`` while some of it is pending."""
        error = resting(1000)
        exporter = CloudWatchMetricExporter("Shop", client=ScriptedClient(error))
        assert exporter.force_flush()
        assert exporter.export(collected("orders"), timeout_millis=50) is MetricExportResult.FAILURE
        assert not exporter.force_flush(timeout_millis=50)
        exporter.sender.expedite()
        assert exporter.force_flush()


class TestBacklog:
    """The size limit of the backlog."""

    def test_oldest_are_lost(self, caplog: pytest.LogCaptureFixture) -> None:
        """If a reader keeps collecting, the oldest datums are dropped and counted as ``backlog_full``."""
        client = ScriptedClient(resting(1000))
        exporter = CloudWatchMetricExporter("Shop", client=client, max_backlog_bytes=2_000_000, max_metrics=10_000)
        for number in range(5):
            exporter.export(many_series(number=number, text="x" * 1000), timeout_millis=20)
        stats = exporter.stats()
        assert stats.datums_pending + stats.datums_lost["backlog_full"] == 5 * 800
        assert 2 * 800 >= stats.datums_pending >= 800
        assert "backlog is full" in caplog.text
        exporter.shutdown()
        assert client.cloudwatch.sum("orders4") == 800
        assert client.cloudwatch.sum("orders0") == 0

    def test_one_series_is_put_together(self) -> None:
        """Datums of the same series are merged, so that the oldest need not be dropped."""
        client = ScriptedClient(resting(1000))
        exporter = CloudWatchMetricExporter("Shop", client=client, max_backlog_bytes=2_000_000, max_metrics=10_000)
        for _ in range(5):
            exporter.export(many_series(number=0, text="x" * 1000), timeout_millis=20)
        assert exporter.stats().datums_lost == {}
        exporter.shutdown()
        assert client.cloudwatch.sum("orders0") == 5 * 800
        assert client.cloudwatch.count("orders0") == 5 * 800


class TestFacade:
    """An exporter publishes the facade metrics of its own reporters only."""

    @staticmethod
    def facade(*reporters: str) -> MetricsData:
        """Return a collection of a plain counter and one facade metric for each reporter."""
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], shutdown_on_exit=False)
        provider.get_meter("tests").create_counter("plain").add(1)
        for reporter in reporters:
            metric = FacadeMetric(f"Of {reporter}", reporter)
            provider.get_meter(metric.scope_name, attributes=metric.scope_attributes()).create_histogram("x").record(1)
        data = reader.get_metrics_data()
        assert data is not None
        return data

    def test_adopted_only(self, cloudwatch: FakeCloudWatch) -> None:
        """Only plain metrics and the metrics of the exporter's reporters are published."""
        exporter = CloudWatchMetricExporter("Shop", client=cloudwatch)
        exporter.reporters.add("one")
        exporter.export(self.facade("one", "two"))
        assert {metric.name for metric in cloudwatch.metrics()} == {"plain", "Of one"}
        assert exporter.stats().datums_lost == {}

    def test_not_adopted(self, cloudwatch: FakeCloudWatch) -> None:
        """An exporter without reporters publishes plain metrics only."""
        exporter = CloudWatchMetricExporter("Shop", client=cloudwatch)
        exporter.export(self.facade("one"))
        assert {metric.name for metric in cloudwatch.metrics()} == {"plain"}


class TestSettings:
    """Settings of the exporter."""

    def test_disabled(self, cloudwatch: FakeCloudWatch, monkeypatch: pytest.MonkeyPatch) -> None:
        """With sending disabled, all calls succeed, and no datum is sent or lost."""
        monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_ENABLED", "false")
        exporter = CloudWatchMetricExporter("Shop", client=cloudwatch)
        assert exporter.export(collected("orders")) is MetricExportResult.SUCCESS
        exporter.shutdown()
        assert cloudwatch.requests == []
        assert exporter.stats().datums_lost == {}

    def test_no_client_is_made_before_something_is_sent(self) -> None:
        """Creating an exporter creates no client and makes no network call."""
        exporter = CloudWatchMetricExporter("Shop")
        assert exporter.force_flush()
        assert exporter.stats().requests_failed == 0

    def test_large_collections_are_several_requests(self) -> None:
        """More than 1000 datums are split into several requests, all of which CloudWatch accepts."""
        program = Program(max_metrics=5000)
        counters = [program.meter.create_counter(name) for name in ("orders", "items")]
        for i in range(2500):
            counters[i % 2].add(1, {"i": i})
        program.publish()
        assert [len(request["MetricData"]) for request in program.cloudwatch.requests] == [1000, 1000, 500]


class TestWatching:
    """Callbacks passed to ``watch()`` receive the batches that are sent."""

    def test_each_accepted_batch_is_shown(self, cloudwatch: FakeCloudWatch) -> None:
        """Accepted batches are passed exactly as CloudWatch received them; failed requests are not passed."""
        cloudwatch.fail_next(client_error("ThrottlingException"))
        exporter = CloudWatchMetricExporter("Shop", client=cloudwatch)
        seen: list[dict[str, Any]] = []
        exporter.watch(lambda batch: seen.append(batch.parameters()))
        assert exporter.export(collected("orders")) is MetricExportResult.SUCCESS
        assert seen == cloudwatch.requests
        assert len(seen) == 1

    def test_a_watcher_that_fails(self, cloudwatch: FakeCloudWatch, caplog: pytest.LogCaptureFixture) -> None:
        """An error raised by a callback is logged, and has no effect on delivery."""

        def fail(_batch: object) -> None:
            raise RuntimeError("cannot look")

        exporter = CloudWatchMetricExporter("Shop", client=cloudwatch)
        seen: list[Batch] = []
        exporter.watch(fail)
        exporter.watch(seen.append)
        assert exporter.export(collected("orders")) is MetricExportResult.SUCCESS
        assert (exporter.stats().datums_sent, len(seen)) == (1, 1)
        assert "A callback passed to watch() failed" in caplog.text

    def test_dry_run(self, monkeypatch: pytest.MonkeyPatch, cloudwatch: FakeCloudWatch) -> None:
        """With ``dry_run``, no network call is made, but batches are passed to the callbacks and counted as sent."""
        monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_DRY_RUN", "true")
        exporter = CloudWatchMetricExporter("Shop", client=cloudwatch)
        seen: list[Any] = []
        exporter.watch(seen.append)
        assert exporter.export(collected("orders")) is MetricExportResult.SUCCESS
        assert (len(seen), exporter.stats().datums_sent, cloudwatch.requests) == (1, 1, [])

    def test_dry_run_leaves_the_spool_alone(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """With ``dry_run``, batches that an earlier process spooled are neither counted as sent nor deleted."""
        earlier = Spool(tmp_path)
        path = earlier.write(Batch(Envelope("Shop"), (Datum(Series("Orders", (), "Count"), int(time.time()), 1.0),)))
        earlier.close()
        monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_DRY_RUN", "true")
        exporter = CloudWatchMetricExporter("Shop", client=FakeCloudWatch(), spool_directory=tmp_path)
        exporter.export(collected("orders"))
        exporter.shutdown()
        assert path is not None
        assert (path.exists(), exporter.stats().datums_sent) == (True, 1)


def test_concurrent_exports() -> None:
    """Several threads may export concurrently, and every datum arrives once."""
    client = ScriptedClient()
    exporter = CloudWatchMetricExporter("Shop", client=client)
    collections = [collected(f"orders{i}") for i in range(8)]
    threads = in_threads(*[lambda data=data: exporter.export(data) for data in collections])
    join_all(threads)
    assert eventually(lambda: exporter.stats().datums_pending == 0)
    assert sorted(name for names in client.names() for name in names) == sorted(f"orders{i}" for i in range(8))


def test_dimensions_that_never_come_cause_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A warning is logged once, in the tenth collection, if no measurement has a dimension that a rule lists."""
    rules = [
        MetricRule(match="orders", dimensions=["http.route", "paln"]),
        MetricRule(match="late", dimensions=["plan"]),
    ]
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=FakeCloudWatch(), rules=rules))
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("shop")
    orders, late = meter.create_counter("orders"), meter.create_counter("late")
    late.add(1, {"plan": "pro"})
    for number in range(1, 21):
        orders.add(1, {"http.target": "/cart", "plan": "pro"})
        late.add(1, {"user": "4711"})
        assert reader.flush()
        assert ("which the metric's rule lists" in caplog.text) == (number >= 10)
    (record,) = caplog.records
    assert "orders had the attribute paln" in record.getMessage()
    assert "http.target, plan" in record.getMessage()
    reader.shutdown()


def test_a_forked_child_knows_only_its_own_measurements(caplog: pytest.LogCaptureFixture) -> None:
    """A child does not warn about an attribute that its measurements have and those of its parent do not."""
    exporter = CloudWatchMetricExporter("Shop", client=FakeCloudWatch(), rules=[{"match": "*", "dimensions": ["plan"]}])
    reader = CloudWatchMetricReader(exporter)
    counter = MeterProvider([reader], shutdown_on_exit=False).get_meter("shop").create_counter("orders")
    counter.add(1, {"user": "4711"})
    exporter._restart()
    reader.forget_measurements()
    for _ in range(11):
        counter.add(1, {"plan": "pro"})
        assert reader.flush()
    assert caplog.messages == []
    reader.shutdown()
