"""Private names of the SDK that this package uses: they exist, or their absence is handled."""

import re
from collections.abc import Callable
from typing import Any, cast

import pytest
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from otel_cloudwatch_flask import (
    CloudWatchMetricExporter,
    CloudWatchMetricReader,
    CloudWatchMetricsReporter,
)
from otel_cloudwatch_flask.sdk import internals
from otel_cloudwatch_flask.sdk.reader import readers_on
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch

NEVER_SECONDS = 3600


def registered_reader() -> InMemoryMetricReader:
    """Return a reader that is registered with a provider."""
    reader = InMemoryMetricReader()
    MeterProvider([reader], shutdown_on_exit=False)
    return reader


def consumer() -> object:
    """Return the object from which a reader collects."""
    return internals.consumer_of(registered_reader())


def storage() -> object:
    """Return the SDK's storage for a reader."""
    reader = registered_reader()
    found: Any = internals.consumer_of(reader)
    return found._reader_storages[reader]


USED: list[tuple[str, Callable[..., object], Callable[[], object]]] = [
    ("_measurement_consumer", internals.consumer_of, lambda: MeterProvider(shutdown_on_exit=False)),
    ("_collect", internals.consumer_of, InMemoryMetricReader),
    ("_collect", internals.is_registered, InMemoryMetricReader),
    ("_sdk_config", internals.service_name_of, consumer),
    ("_lock", internals.SelectiveReader.forget_measurements, consumer),
    ("add_metric_reader", internals.SelectiveReader.forget_measurements, consumer),
    ("_set_collect_callback", internals.SelectiveReader, InMemoryMetricReader),
    ("_reader_storages", internals.SelectiveReader, consumer),
    ("_instrument_view_instrument_matches", internals.SelectiveReader, storage),
    ("_get_or_init_view_instrument_match", internals.SelectiveReader, storage),
    ("_attribute_keys", internals.SelectiveReader, lambda: View(instrument_name="*")),
    (
        "_create_aggregation",
        internals.FreshScaleHistogramAggregation,
        lambda: ExponentialBucketHistogramAggregation,
    ),
]


@pytest.mark.parametrize(("name", "user", "owner"), USED, ids=[f"{name} {user.__name__}" for name, user, _ in USED])
def test_the_sdk_still_has_it(name: str, user: Callable[..., object], owner: Callable[[], object]) -> None:
    """If an SDK release removes the name, the failure message says which feature is lost."""
    lost = re.sub(r"\s+", " ", user.__doc__ or "")
    assert hasattr(owner(), name), f"This opentelemetry-sdk has no {name} any more. {user.__name__}: {lost}"


def test_the_sdk_still_collects_through_a_bound_method() -> None:
    """The provider of a reader can be found through the method that the reader calls to collect."""
    provider, reader = MeterProvider(shutdown_on_exit=False), InMemoryMetricReader()
    provider.add_metric_reader(reader)
    found = internals.consumer_of(reader)
    assert found is internals.consumer_of(provider) is not None, internals.consumer_of.__doc__


def test_the_sdk_s_reader_still_reads_preferences() -> None:
    """Reading the preferences reveals that an exporter is in use before its first export."""
    exporter = CloudWatchMetricExporter("Plain", client=FakeCloudWatch())
    assert not exporter.is_in_use
    reader = PeriodicExportingMetricReader(exporter, NEVER_SECONDS * 1000)
    assert exporter.is_in_use, (
        "PeriodicExportingMetricReader does not call items() of an exporter's preferred temporality any more: a "
        "reporter on the same provider publishes plain metrics until the exporter has exported, which are then twice "
        "in CloudWatch."
    )
    reader.shutdown()


def test_other_objects_have_none_of_it() -> None:
    """Objects without these internals are handled without an exception."""
    assert internals.consumer_of(object()) is None
    assert internals.service_name_of(InMemoryMetricReader()) is None
    assert not internals.is_registered(InMemoryMetricReader())


@pytest.fixture
def without_consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate an SDK in which the provider of a reader cannot be found."""
    for module in ("sdk.reader", "flask_extension.reporter_reader", "sdk.internals"):
        monkeypatch.setattr(f"otel_cloudwatch_flask.{module}.consumer_of", lambda _: None)


@pytest.mark.usefixtures("without_consumers")
def test_without_consumers_everything_is_published_once() -> None:
    """If a reader's provider cannot be found, a reporter does not share the reader, but leaves plain metrics to it."""
    shop, plain = FakeCloudWatch(), FakeCloudWatch()
    reader = CloudWatchMetricReader(
        CloudWatchMetricExporter("Plain", client=plain), export_interval_seconds=NEVER_SECONDS
    )
    provider = MeterProvider([reader], shutdown_on_exit=False)
    assert readers_on(provider) == []
    counter = provider.get_meter("plain").create_counter("plain")
    counter.add(1)
    assert reader.flush()
    reporter = CloudWatchMetricsReporter(Flask("shop"), "Shop", shop, meter_provider=provider, flush="interval")
    counter.add(1)
    reporter.add_metric("Orders", 1)
    assert reporter.flush()
    assert reader.flush()
    assert (shop.sum("plain"), plain.sum("plain"), shop.sum("Orders"), plain.sum("Orders")) == (0, 2, 1, 0)
    reporter.shutdown()
    provider.shutdown()


@pytest.mark.usefixtures("without_consumers")
def test_without_consumers_nothing_is_forgotten() -> None:
    """If a reader's provider cannot be found, a forked child keeps the measurements, and no error is raised."""
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Plain", client=FakeCloudWatch()))
    MeterProvider([reader], shutdown_on_exit=False)
    consumer = cast("Any", reader._collect).__self__
    storage = consumer._reader_storages[reader]
    reader.forget_measurements()
    assert consumer._reader_storages[reader] is storage
    reader.shutdown()
