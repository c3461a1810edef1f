"""A reporter's own reader, and who publishes what on a provider that has several exporters for CloudWatch."""

import logging
import weakref
from typing import Any, Final

from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import SERVICE_NAME, Resource

from otel_cloudwatch_flask.config import Settings, parse_namespace
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.model.dimensions import namespace_of
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter, live_exporters
from otel_cloudwatch_flask.sdk.internals import consumer_of
from otel_cloudwatch_flask.sdk.reader import CloudWatchMetricReader, live_readers

_logger = logging.getLogger(__name__)

REPORTER_GAVE_WAY: Final = (
    "A CloudWatch exporter was added to a meter provider whose metrics a CloudWatchMetricsReporter was publishing: "
    "from now on that publishes only its own there, so that nothing is counted twice. What was measured between its "
    "last flush and now may be missing. Add the exporter before the reporter, or not at all."
)
_UNKNOWN_SERVICE: Final = "unknown_service"

_reporter_readers: "list[weakref.ref[ReporterReader]]" = []
"""Oldest first. All other readers belong to the program, or to the environment's entry point."""


class ReporterReader(CloudWatchMetricReader):
    """A reporter's own reader. It publishes plain metrics, those of no reporter, only if nothing else does.

    The program's CloudWatch exporters go first, whenever they are added; of the reporters the oldest.
    """

    def __init__(self, exporter: CloudWatchMetricExporter, settings: Settings, app_name: str) -> None:
        super().__init__(
            exporter,
            export_interval_seconds=settings.export_interval_seconds,
            flush_min_interval_seconds=settings.flush_min_interval_seconds,
        )
        self._timeout_seconds = settings.export_timeout_seconds  # which is no argument of a program's own reader
        self._app_name = app_name
        self._publishes_plain_metrics = False
        _reporter_readers[:] = [*(each for each in _reporter_readers if each()), weakref.ref(self)]

    def drop_plain_metrics_of_others(self) -> None:
        """Let the other reporters collect while this one still goes first: the plain metrics so far are published."""
        for each in self._reporters_here():
            if each is not self and not each.exporter.is_shut_down:
                each.collect()

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        resource = metrics_data.resource_metrics[0].resource
        if not self.exporter.settings.namespace:
            self.exporter.use_namespace(self._namespace_from(resource))
        goes_first = (self._reporters_here() or [self])[0] is self and not programs_exporters_on(self, resource)
        if self._publishes_plain_metrics and not goes_first:
            _logger.warning(REPORTER_GAVE_WAY)
        self._publishes_plain_metrics = goes_first
        self.exporter.publish_plain_metrics(is_wanted=goes_first)
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)

    def _namespace_from(self, resource: Resource) -> str:
        try:
            return default_namespace(resource, self._app_name)
        except ConfigurationError as error:
            namespace = namespace_of(str(error.value))
            _logger.warning("Metrics are published in the namespace %r: %s", namespace, error)
            return namespace

    def _reporters_here(self) -> "list[ReporterReader]":
        """The readers of reporters on the same provider, oldest first, until they are removed from it.

        One that is being shut down keeps its place until its last flush is done.
        """
        consumer = consumer_of(self)
        readers = [each for reference in list(_reporter_readers) if (each := reference()) is not None]
        return [each for each in readers if consumer and consumer_of(each) is consumer]


def programs_exporters() -> list[CloudWatchMetricExporter]:
    """The exporters that no reporter has made, and that are not shut down."""
    of_reporters = {reader.exporter for reference in list(_reporter_readers) if (reader := reference()) is not None}
    return [each for each in live_exporters() if each not in of_reporters and not each.is_shut_down]


def programs_exporters_on(provider_or_reader: object, resource: Resource | None) -> list[CloudWatchMetricExporter]:
    """The program's exporters on a provider, whose resource this is, as far as it is known.

    An exporter under a reader of the SDK's is recognised by the resource of its last collection. Before its first it
    counts as one of them, because that will have all measurements since the reader was added.
    """
    consumer = consumer_of(provider_or_reader)
    readers = {each.exporter: each for each in live_readers()} if consumer else {}
    return [
        each
        for each in programs_exporters()
        if (
            consumer_of(readers[each]) is consumer
            if each in readers
            else each.is_in_use and (each.resource or resource) is resource
        )
    ]


def default_namespace(resource: Resource, app_name: str) -> str:
    """The namespace where none is set: the service's name, or else the app's, with a warning.

    Raises :class:`ConfigurationError` for a name that cannot be one.
    """
    service_name = str(resource.attributes.get(SERVICE_NAME, ""))
    if service_name and not service_name.startswith(_UNKNOWN_SERVICE):
        return _checked(service_name, SERVICE_NAME)
    namespace = _checked(app_name, "app.name")
    _logger.warning(
        "No CloudWatch namespace is set, so metrics are published in one with the app's name, %r; "
        'pass namespace="...", or set app.config["CLOUDWATCH_NAMESPACE"] or OTEL_SERVICE_NAME.',
        namespace,
    )
    return namespace


def _checked(name: str, source: str) -> str:
    try:
        return parse_namespace(name)
    except ValueError as problem:
        message = f"{source}={name!r}, taken as the CloudWatch namespace since none is set, {problem}."
        raise ConfigurationError(message, key=source, value=name) from None
