"""Redirect all exporters of the process to a fake CloudWatch, to test apps without changing them."""

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
from otel_cloudwatch_flask.testing.request_rules import ValidationError

__all__ = ["InterceptedCloudWatch", "intercepted_cloudwatch"]

FLUSH_TIMEOUT_SECONDS: Final = 10.0
_MANY_READERS: Final = 4
"""Only with more reporters' readers than this is it worth a garbage collection to find those of deleted apps."""


class InterceptedCloudWatch(FakeCloudWatch):
    """The fake of :func:`intercepted_cloudwatch`. Every look-up flushes first, so tests need not wait or sleep."""

    def __init__(self) -> None:
        super().__init__()
        self._stats_before = {exporter: exporter.stats() for exporter in live_exporters()}

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
    def validation_errors(self) -> list[ValidationError]:
        """The errors of the requests that were rejected, oldest first."""
        self.flush()
        return super().validation_errors

    def clear(self) -> None:
        """Delete what was published, including what was recorded and not published yet."""
        self.flush()
        super().clear()

    def flush(self, timeout_seconds: float = FLUSH_TIMEOUT_SECONDS) -> bool:
        """Flush every reporter and reader of the process; return True if everything was delivered."""
        return flush_process(timeout_seconds)

    def assert_no_losses(self, *publishers: Publisher) -> None:
        """Raise an ``AssertionError`` if a request was rejected, or if any exporter has lost or pending datums.

        Losses from before the test do not count.
        """
        self.flush()
        super().assert_no_losses(*publishers)

    def report(self) -> str:
        """Describe what was published, rejected and lost, one line each, with hints if something may be missing."""
        return "\n".join([super().report(), *_hints(live_exporters())])

    def _problems(self, *stats: DeliveryStats) -> list[str]:
        """Add what the exporters of the process have lost since the test began, or have pending."""
        return super()._problems(*stats, *map(self._since_start, live_exporters()))

    def _since_start(self, exporter: CloudWatchMetricExporter) -> DeliveryStats:
        stats = exporter.stats()
        before = self._stats_before.get(exporter, DeliveryStats())
        return replace(
            stats,
            datums_lost=Counter(stats.datums_lost) - Counter(before.datums_lost),
            measurements_lost=Counter(stats.measurements_lost) - Counter(before.measurements_lost),
        )


def _hints(exporters: Collection[CloudWatchMetricExporter]) -> Iterator[str]:
    """Yield possible reasons for missing metrics."""
    if not exporters:
        yield "  (No reporter or exporter exists: is ENABLED false, or OTEL_SDK_DISABLED=true?)"
    if any(map(_has_own_client, exporters)):
        yield "  (An exporter was created with a client of its own, and publishes there instead.)"
    if any(each.settings.dry_run for each in exporters):
        yield "  (An exporter has DRY_RUN enabled, and publishes nothing.)"


@contextlib.contextmanager
def intercepted_cloudwatch() -> Iterator[InterceptedCloudWatch]:
    """Make every exporter without a client of its own publish to a fake inside the ``with`` block.

    Exporters, readers, reporters and apps may be created before the block or in it. Measurements from before the block
    are discarded; those recorded in it are flushed at its end at the latest. After the block these exporters discard
    everything until the next block, so that no test publishes to an AWS account.
    """
    _redirect(_discard)
    flush_process()
    _shut_down_orphaned_readers()
    cloudwatch = InterceptedCloudWatch()
    # Exporters created in the block make their own client: theirs is the fake, too.
    with clients_made_by(lambda: _Client(cloudwatch.put_metric_data)):
        _redirect(cloudwatch.put_metric_data)
        try:
            yield cloudwatch
        finally:
            cloudwatch.heal()
            flush_process()
            _redirect(_discard)


def flush_process(timeout_seconds: float = FLUSH_TIMEOUT_SECONDS) -> bool:
    """Flush every CloudWatch reader of the process; return True if all of them succeeded in time."""
    deadline = time.monotonic() + timeout_seconds
    drain_current_buffer()
    flushed = [reader.flush(timeout_seconds=max(0.0, deadline - time.monotonic())) for reader in live_readers()]
    return all(flushed)


def _redirect(put_metric_data: Callable[..., object]) -> None:
    """Give every exporter without a client of its own a client with this ``put_metric_data``."""
    client = _Client(put_metric_data)
    for exporter in live_exporters():
        if not _has_own_client(exporter):
            exporter.use_client(client)


class _Client:
    """The part of boto3's client that exporters use, with a protocol for which bodies are not encoded in advance."""

    meta = SimpleNamespace(service_model=SimpleNamespace(resolved_protocol="none"))

    def __init__(self, put_metric_data: Callable[..., object]) -> None:
        self.put_metric_data = put_metric_data


def _discard(**_request: object) -> None:
    """Accept a request and drop it."""


def _has_own_client(exporter: CloudWatchMetricExporter) -> bool:
    return exporter.client is not None and not isinstance(exporter.client, _Client)


def _shut_down_orphaned_readers() -> None:
    """Shut down the readers of reporters whose apps are gone: with an app factory, each test creates another one."""
    if len(_reporters_readers()) > _MANY_READERS:
        gc.collect()  # Flask apps are reference cycles.
    provider = metrics.get_meter_provider()
    for reader in _reporters_readers() - live_reporter_readers():
        is_global = reader in readers_on(provider)
        reader.shutdown()
        if is_global and isinstance(provider, MeterProvider):
            provider.remove_metric_reader(reader)


def _reporters_readers() -> set[CloudWatchMetricReader]:
    return {reader for reader in live_readers() if isinstance(reader, ReporterReader)}
