"""Redirect the exporters in the process to a fake CloudWatch, so that apps can be tested unchanged."""

import contextlib
import gc
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Final

from otel_cloudwatch_flask.delivery.boto_client import client_substitutes
from otel_cloudwatch_flask.delivery.emf import stream_substitutes
from otel_cloudwatch_flask.delivery.stats import DeliveryStats
from otel_cloudwatch_flask.flask_extension.provider_setup import live_reporter_readers
from otel_cloudwatch_flask.flask_extension.reporter import drain_current_buffer
from otel_cloudwatch_flask.flask_extension.reporter_reader import ReporterReader
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter, live_exporters, seconds_until
from otel_cloudwatch_flask.sdk.reader import CloudWatchMetricReader, live_readers
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch

__all__ = ["InterceptedCloudWatch", "intercepted_cloudwatch"]

_FLUSH_TIMEOUT_SECONDS: Final = 10.0
_MANY_READERS: Final = 4
"""If reporters have more readers than this, garbage is collected to find the readers of deleted apps."""


class InterceptedCloudWatch(FakeCloudWatch):
    """The fake that :func:`intercepted_cloudwatch` yields. It flushes before every lookup, so tests need not wait."""

    _is_strict = True

    def __init__(self) -> None:
        super().__init__()
        # Exporters outlive tests, and their statistics are never reset.
        self._stats_before = {exporter: exporter.stats() for exporter in live_exporters()}

    def flush(self, timeout_seconds: float = _FLUSH_TIMEOUT_SECONDS) -> bool:
        """Flush every reporter and ``CloudWatchMetricReader`` in the process. Returns whether all succeeded in time."""
        return _flush_process(timeout_seconds)

    def _refresh(self) -> None:
        self.flush()

    def report(self) -> str:
        """Describe the published metrics, at most 50, and all problems, and say why metrics may be missing."""
        return "\n".join([super().report(), *_hints(live_exporters())])

    def _problems(self, *stats: DeliveryStats) -> list[str]:
        """Describe the problems, including data that any exporter lost since the test began or still has pending."""
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
    """Yield a line for each possible reason why metrics are missing."""
    if not exporters:
        yield "  (No reporter or exporter exists: is ENABLED false, or OTEL_SDK_DISABLED=true?)"
    if any(map(_has_own_client, exporters)):
        yield "  (An exporter was created with its own client, and publishes to that client instead.)"
    if any(each.settings.dry_run for each in exporters):
        yield "  (An exporter has DRY_RUN enabled, and publishes nothing.)"


@contextlib.contextmanager
def intercepted_cloudwatch() -> Iterator[InterceptedCloudWatch]:
    """Redirect every exporter that was created without a client to a fake inside the ``with`` block.

    Exporters, readers, reporters and apps may be created before or inside the block. Measurements recorded before the
    block are discarded, and measurements recorded inside are flushed no later than the end of the block. After the
    block, the redirected exporters discard all metrics, so that they never publish to an AWS account.

    Blocks may be nested. Measurements recorded before and after the inner block then belong to the outer block.

    Exporters with ``output="emf"`` and no ``stream`` write to the fake inside the block, and to standard output before
    and after the block.
    """
    outer = client_substitutes[-1]() if client_substitutes else _Client(_discard)
    _redirect(outer)
    _shut_down_orphaned_readers()
    _flush_process()
    cloudwatch = InterceptedCloudWatch()
    client = _Client(cloudwatch.put_metric_data)
    # Exporters that are created inside the block must also get the fake when they create their clients.
    client_substitutes.append(lambda: client)
    stream_substitutes.append(cloudwatch.stream)
    try:
        _redirect(client)
        yield cloudwatch
    finally:
        # The final flush must not fail because of errors that the test left queued.
        cloudwatch.heal()
        try:
            _flush_process()
        finally:
            _redirect(outer)
            client_substitutes.pop()
            stream_substitutes.pop()


def _flush_process(timeout_seconds: float = _FLUSH_TIMEOUT_SECONDS) -> bool:
    """Flush every CloudWatch reader in the process. Returns whether all flushes succeeded in time."""
    deadline = time.monotonic() + timeout_seconds
    drain_current_buffer()
    flushed = [reader.flush(timeout_seconds=seconds_until(deadline)) for reader in live_readers()]
    return all(flushed)


def _redirect(client: "_Client") -> None:
    """Redirect every exporter that was created without a client to ``client``."""
    for exporter in live_exporters():
        if not _has_own_client(exporter):
            exporter.use_client(client)


class _Client:
    """The parts of boto3's client that exporters use.

    Its protocol, ``none``, keeps exporters from encoding requests.
    """

    meta = SimpleNamespace(service_model=SimpleNamespace(resolved_protocol="none"))

    def __init__(self, put_metric_data: Callable[..., object]) -> None:
        self.put_metric_data = put_metric_data


def _discard(**_request: object) -> None:
    """Accept a request without storing it."""


def _has_own_client(exporter: CloudWatchMetricExporter) -> bool:
    return exporter.client is not None and not isinstance(exporter.client, _Client)


def _shut_down_orphaned_readers() -> None:
    """Shut down and remove the readers of reporters whose apps no longer exist.

    Tests with app factories leave such readers behind.
    """
    if len(_reporter_readers()) > _MANY_READERS:
        gc.collect()  # Flask apps are in reference cycles, so they outlive their last use
    for reader in _reporter_readers() - live_reporter_readers():
        reader.shutdown()
        reader.remove()


def _reporter_readers() -> set[CloudWatchMetricReader]:
    return {reader for reader in live_readers() if isinstance(reader, ReporterReader)}
