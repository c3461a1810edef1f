"""A reporter's own reader, and who publishes what on a provider that has several for CloudWatch."""

import logging
import weakref
from typing import Any, Final

from opentelemetry.sdk.metrics.export import MetricsData

from otel_cloudwatch_flask.config import Settings
from otel_cloudwatch_flask.exporter import CloudWatchMetricExporter
from otel_cloudwatch_flask.reader import CloudWatchMetricReader
from otel_cloudwatch_flask.sdk_internals import consumer_of, exporters_on

_logger = logging.getLogger(__name__)

REPORTER_GAVE_WAY: Final = (
    "A CloudWatch exporter was added to a meter provider whose metrics a CloudWatchMetricsReporter was publishing: "
    "from now on that publishes only its own there, so that nothing is counted twice. What was measured between its "
    "last flush and now may be missing. Add the exporter before the reporter, or not at all."
)

_reporter_readers: "list[weakref.ref[ReporterReader]]" = []
"""Oldest first. All other readers belong to the program, or to the environment's entry point."""


class ReporterReader(CloudWatchMetricReader):
    """A reporter's own reader, which publishes what belongs to no reporter only if nobody else on the provider does.

    The program's CloudWatch exporters go first, whenever they come; of the reporters the one that was attached first.
    """

    def __init__(self, exporter: CloudWatchMetricExporter, settings: Settings) -> None:
        super().__init__(
            exporter,
            export_interval_seconds=settings.export_interval_seconds,
            flush_min_interval_seconds=settings.flush_min_interval_seconds,
        )
        self._timeout_seconds = settings.export_timeout_seconds  # which is no argument of a program's own reader
        self._has_published_plain_metrics = False
        _reporter_readers[:] = [*(each for each in _reporter_readers if each()), weakref.ref(self)]

    def hand_over(self) -> None:
        """Let the other reporters forget what this one has just published, before one of them takes its place."""
        for each in _reporter_readers_on(self):
            if each is not self and not each.exporter.is_shut_down:
                each.collect()

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        is_wanted = self._is_first()
        if self._has_published_plain_metrics and not is_wanted:
            _logger.warning(REPORTER_GAVE_WAY)
        self._has_published_plain_metrics = is_wanted
        self.exporter.publish_plain_metrics(is_wanted=is_wanted)
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)

    def _is_first(self) -> bool:
        reporters = _reporter_readers_on(self)
        own = {each.exporter for each in reporters}
        others = [each for each in exporters_on(self) if isinstance(each, CloudWatchMetricExporter) and each not in own]
        return (reporters or [self])[0] is self and all(each.is_shut_down for each in others)


def _reporter_readers_on(reader: ReporterReader) -> list[ReporterReader]:
    """The readers of reporters on the same provider, oldest first, until they are removed from it.

    One that is being shut down keeps its place until its last flush is done.
    """
    consumer = consumer_of(reader)
    readers = [each for reference in list(_reporter_readers) if (each := reference()) is not None]
    return [each for each in readers if consumer and consumer_of(each) is consumer]
