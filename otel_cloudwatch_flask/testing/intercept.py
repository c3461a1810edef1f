"""A whole process whose metrics go to a fake instead of CloudWatch, for tests of apps as they are."""

import contextlib
import gc
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask.delivery.boto_client import clients_made_by
from otel_cloudwatch_flask.delivery.stats import DeliveryStats
from otel_cloudwatch_flask.flask_extension.reporter import drain_current_buffer, live_reporter_readers
from otel_cloudwatch_flask.flask_extension.reporter_reader import ReporterReader
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter, live_exporters
from otel_cloudwatch_flask.sdk.reader import CloudWatchMetricReader, live_readers, readers_on
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch, Publisher
from otel_cloudwatch_flask.testing.published import AcceptedDatum
from otel_cloudwatch_flask.testing.request_rules import Refusal

__all__ = ["InterceptedCloudWatch", "intercepted_cloudwatch"]

FLUSH_TIMEOUT_SECONDS: Final = 10.0
_MANY_READERS: Final = 4
"""So many readers of reporters may live before it is worth its while to look for apps that are gone."""


class InterceptedCloudWatch(FakeCloudWatch):
    """What :func:`intercepted_cloudwatch` gives: every look-up flushes first, so a test never waits nor sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self._lost_before = {exporter: exporter.stats().datums_lost for exporter in live_exporters()}

    @property
    def requests(self) -> list[Mapping[str, Any]]:
        """The accepted requests, as they were sent."""
        self.flush()
        return super().requests

    @property
    def accepted(self) -> list[AcceptedDatum]:
        """The accepted datums with their metric and times."""
        self.flush()
        return super().accepted

    @property
    def refusals(self) -> list[Refusal]:
        """Why requests were refused, in order."""
        self.flush()
        return super().refusals

    def clear(self) -> None:
        """Forget what was published, and what was recorded before."""
        self.flush()
        super().clear()

    def flush(self, timeout_seconds: float = FLUSH_TIMEOUT_SECONDS) -> bool:
        """Publish all that was recorded before, by whichever reporter or reader; whether all of it arrived."""
        return flush_process(timeout_seconds)

    def assert_no_losses(self, *publishers: Publisher) -> None:
        """Raise an ``AssertionError`` if a request was refused, or if any exporter here lost a datum or still has one.

        What was lost before the test does not count.
        """
        self.flush()
        super().assert_no_losses(*publishers)

    def report(self) -> str:
        """What was published, what was refused and what was lost, a line each, and why there may be nothing."""
        return "\n".join([super().report(), *_hints(live_exporters())])

    def _problems(self, *stats: DeliveryStats) -> list[str]:
        """Of all exporters here, what was lost since the test began or is not sent yet."""
        return super()._problems(*stats, *map(self._since_begin, live_exporters()))

    def _since_begin(self, exporter: CloudWatchMetricExporter) -> DeliveryStats:
        stats = exporter.stats()
        return replace(stats, datums_lost=Counter(stats.datums_lost) - Counter(self._lost_before.get(exporter, {})))


def _hints(exporters: Collection[CloudWatchMetricExporter]) -> Iterator[str]:
    """Why metrics of an app may not have come here."""
    if not exporters:
        yield "  (No reporter or exporter exists: is ENABLED false, or OTEL_SDK_DISABLED=true?)"
    if any(map(_has_own_client, exporters)):
        yield "  (An exporter was given a client of its own, and publishes to that, not here.)"
    if any(each.settings.dry_run for each in exporters):
        yield "  (An exporter has DRY_RUN on, and publishes nowhere.)"


@contextlib.contextmanager
def intercepted_cloudwatch() -> Iterator[InterceptedCloudWatch]:
    """Let every exporter without a client of its own publish to a fake, as long as the block lasts.

    It does not matter whether exporters, readers, reporters and apps are made before the block or in it. What was
    recorded before it is left out. What is recorded in it and not looked at is published when it ends. What took part
    in it publishes nowhere afterwards, until there is another block: tests do not end in an AWS account.
    """
    _redirect(_nowhere)
    flush_process()
    _end_orphans()
    cloudwatch = InterceptedCloudWatch()
    # Those that are made in the block make their client themselves.
    with clients_made_by(lambda: _Client(cloudwatch.put_metric_data)):
        _redirect(cloudwatch.put_metric_data)
        try:
            yield cloudwatch
        finally:
            cloudwatch.heal()
            flush_process()
            _redirect(_nowhere)


def flush_process(timeout_seconds: float = FLUSH_TIMEOUT_SECONDS) -> bool:
    """Flush every reader for CloudWatch that there is in this process; whether all of them are done in time."""
    deadline = time.monotonic() + timeout_seconds
    drain_current_buffer()
    flushed = [reader.flush(timeout_seconds=max(0.0, deadline - time.monotonic())) for reader in live_readers()]
    return all(flushed)


def _redirect(put_metric_data: Callable[..., object]) -> None:
    """Give every exporter that was given no client by anybody else one that does this."""
    client = _Client(put_metric_data)
    for exporter in live_exporters():
        if not _has_own_client(exporter):
            exporter.use_client(client)


class _Client:
    """What looks like boto3's client as far as anybody looks; its protocol is none that is encoded in advance."""

    meta = SimpleNamespace(service_model=SimpleNamespace(resolved_protocol="none"))

    def __init__(self, put_metric_data: Callable[..., object]) -> None:
        self.put_metric_data = put_metric_data


def _nowhere(**_request: object) -> None:
    """Take a request, and forget it."""


def _has_own_client(exporter: CloudWatchMetricExporter) -> bool:
    return exporter.client is not None and not isinstance(exporter.client, _Client)


def _end_orphans() -> None:
    """End the readers of reporters whose apps are gone: a factory that each test calls makes one after the other."""
    if len(_reporters_readers()) > _MANY_READERS:
        gc.collect()  # apps are cycles
    provider = metrics.get_meter_provider()
    for reader in _reporters_readers() - live_reporter_readers():
        is_global = reader in readers_on(provider)
        reader.shutdown()
        if is_global and isinstance(provider, MeterProvider):
            provider.remove_metric_reader(reader)


def _reporters_readers() -> set[CloudWatchMetricReader]:
    return {reader for reader in live_readers() if isinstance(reader, ReporterReader)}
