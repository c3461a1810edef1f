"""The reader that a reporter creates, and the choice of the exporter that publishes the provider's plain metrics.

Plain metrics are those that belong to no reporter. They must be published only once.
"""

import logging
import time
from collections.abc import Iterator
from typing import Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import SERVICE_NAME, Resource

from otel_cloudwatch_flask.config import parse_namespace
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.model.dimensions import namespace_of
from otel_cloudwatch_flask.runtime.live_objects import LiveObjects
from otel_cloudwatch_flask.runtime.process import no_fork
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter, live_exporters
from otel_cloudwatch_flask.sdk.internals import consumer_of
from otel_cloudwatch_flask.sdk.reader import EXIT_TIMEOUT_SECONDS, CloudWatchMetricReader, all_readers, live_readers

_logger = logging.getLogger(__name__)

_UNKNOWN_SERVICE: Final = "unknown_service"

_reporter_readers: "LiveObjects[ReporterReader]" = LiveObjects()
"""The readers that reporters created, oldest first. All other readers belong to the program."""


class ReporterReader(CloudWatchMetricReader):
    """A reader that a reporter creates.

    It publishes plain metrics (those that belong to no reporter) only if no other exporter has priority.

    The program's CloudWatch exporters have priority, even if they are added later. Without them, the oldest reporter
    has priority.
    """

    def __init__(self, exporter: CloudWatchMetricExporter, provider: MeterProvider, app_name: str) -> None:
        super().__init__(exporter)
        self._provider: MeterProvider | None = provider
        self._app_name = app_name
        exporter.publishes_plain_metrics = False  # until the first collection decides
        _reporter_readers.add(self)

    def remove(self) -> None:
        """Remove this reader from its provider after its shutdown. The reporter's ID can then be reused.

        Does nothing if the final collection has not ended: a callback hangs, and removing the reader would wait for it.
        """
        if not self.has_collected or self._provider is None:
            return
        provider, self._provider = self._provider, None  # another thread may shut down the reporter again
        if self.has_priority(self.exporter.resource):
            # The successor collects, and thereby drops, the plain metrics that this reader, or another reader before
            # it, has published so far.
            live = live_readers()
            successor = next((each for each in self._reporters_here() if each in live), None)
            if successor:
                successor.collect_now(time.monotonic() + EXIT_TIMEOUT_SECONDS)
        with self.collection_lock, no_fork("set-up"):  # the child would inherit locks of the SDK
            provider.remove_metric_reader(self)
        self.exporter.reporters.clear()

    def has_priority(self, resource: Resource | None) -> bool:
        """Return whether this reader publishes the plain metrics of its provider, which has this ``resource``."""
        return next(self._reporters_here(), self) is self and not programs_exporters_on(self, resource)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        # Decided at each collection, because the program may add or remove exporters at any time.
        resource = metrics_data.resource_metrics[0].resource
        if not self.exporter.settings.namespace:
            self.exporter.use_namespace(self._namespace_from(resource))
        has_priority = self.has_priority(resource)
        if self.exporter.publishes_plain_metrics and not has_priority:
            _logger.warning(
                "A CloudWatch exporter was added to a meter provider whose metrics a CloudWatchMetricsReporter already "
                "publishes. To avoid double counting, the reporter now publishes only its own metrics from that "
                "provider. Measurements of other metrics since the reporter's last flush may be missing. Add the "
                "exporter before the reporter, or remove the exporter."
            )
        self.exporter.publishes_plain_metrics = has_priority
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)

    def _namespace_from(self, resource: Resource) -> str:
        try:
            return default_namespace(resource, self._app_name)
        except ConfigurationError as error:
            namespace = namespace_of(str(error.value))
            _logger.warning(
                "The default CloudWatch namespace is invalid, so %r is used instead. To choose another, pass "
                'namespace="...". The error: %s',
                namespace,
                error,
            )
            return namespace

    def _reporters_here(self) -> "Iterator[ReporterReader]":
        """Yield the readers that reporters added to this reader's provider, oldest first.

        A reader that is being shut down is included until its final flush has ended.
        """
        consumer = consumer_of(self)
        return (each for each in _reporter_readers if consumer and consumer_of(each) is consumer)


def programs_exporters() -> list[CloudWatchMetricExporter]:
    """Return the exporters that the program created and has not shut down."""
    of_reporters = {reader.exporter for reader in _reporter_readers}
    return [each for each in live_exporters() if each not in of_reporters and not each.is_shut_down]


def programs_exporters_on(provider_or_reader: object, resource: Resource | None) -> list[CloudWatchMetricExporter]:
    """Return the exporters that the program, not a reporter, uses on a provider.

    ``provider_or_reader`` is the provider or one of its readers. ``resource`` is the provider's resource, or ``None``
    if it is unknown.

    An exporter that one of the SDK's readers uses is matched by the resource of the metrics that it last received.
    Before its first export, that exporter is always included, because the export will contain all measurements since
    the reader was added.
    """
    consumer = consumer_of(provider_or_reader)
    # Includes readers whose final flush has not ended. They are still registered with their providers.
    reader_of = {each.exporter: each for each in all_readers()} if consumer else {}
    return [
        each
        for each in programs_exporters()
        if (
            consumer_of(reader_of[each]) is consumer
            if each in reader_of
            else each.is_in_use and (each.resource or resource) is resource
        )
    ]


def default_namespace(resource: Resource, app_name: str) -> str:
    """Return the service name as the default namespace. If there is none, log a warning and return the app's name.

    Raises :class:`ConfigurationError` if the name is not a valid namespace.
    """
    name, source = str(resource.attributes.get(SERVICE_NAME, "")), SERVICE_NAME
    if not name or name.startswith(_UNKNOWN_SERVICE):
        name, source = app_name, "app.name"
    try:
        parse_namespace(name)
    except ValueError as problem:
        message = f"{source}={name!r}, the default CloudWatch namespace, {problem}."
        raise ConfigurationError(message, key=source, value=name) from None
    if source != SERVICE_NAME:
        _logger.warning(
            "No CloudWatch namespace is configured; using the name of the app or program, %r. To choose another, "
            'pass namespace="...", or set app.config["CLOUDWATCH_NAMESPACE"] or OTEL_SERVICE_NAME.',
            name,
        )
    return name
