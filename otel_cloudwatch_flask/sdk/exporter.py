"""The exporter: OpenTelemetry's metrics go in, and are in CloudWatch or accounted for."""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, ItemsView, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation
from opentelemetry.sdk.resources import Resource

from otel_cloudwatch_flask.config import DEFAULT_MAX_BACKLOG_BYTES, DEFAULT_MAX_METRICS, Settings
from otel_cloudwatch_flask.delivery import boto_client
from otel_cloudwatch_flask.delivery.backlog import Backlog
from otel_cloudwatch_flask.delivery.batch import Batch, Envelope, batches
from otel_cloudwatch_flask.delivery.boto_client import (
    Client,
    ClientFactory,
    Put,
    checked_client,
    encoded_put,
    plain_put,
)
from otel_cloudwatch_flask.delivery.sender import Delivery
from otel_cloudwatch_flask.delivery.spool import Spool
from otel_cloudwatch_flask.delivery.stats import DeliveryStats, LossReason, StatsRecorder
from otel_cloudwatch_flask.histograms.values_counts import MAX_BUCKETS
from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.mapper import Mapper
from otel_cloudwatch_flask.mapping.metric_streams import MetricStreams
from otel_cloudwatch_flask.model.dimensions import namespace_of
from otel_cloudwatch_flask.model.entity import service_entity
from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.runtime.process import call_after_fork
from otel_cloudwatch_flask.runtime.rate_limited_log import QuietLog
from otel_cloudwatch_flask.sdk.internals import FreshScaleHistogramAggregation

_logger = logging.getLogger(__name__)
_each_minute = QuietLog(_logger, interval_seconds=60.0)

_DELTA, _CUMULATIVE = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE

TEMPORALITY: Final[dict[type, AggregationTemporality]] = {
    Counter: _DELTA,
    ObservableCounter: _DELTA,
    Histogram: _DELTA,
    UpDownCounter: _CUMULATIVE,
    ObservableUpDownCounter: _CUMULATIVE,
    ObservableGauge: _CUMULATIVE,
}
"""CloudWatch adds up what it gets: deltas of what is counted, current values of what goes up and down."""


class _Preferences(dict[type, AggregationTemporality]):
    """Preferred temporalities that notice when a reader reads them: from then on the exporter is in use."""

    were_read = False

    def items(self) -> "ItemsView[type, AggregationTemporality]":  # type: ignore[override]  # typeshed: dict_items
        self.were_read = True
        return super().items()


def default_aggregation() -> dict[type, Aggregation]:
    """The aggregation of instruments for which no view chooses one: histograms whose percentiles can be published."""
    # Not all filled buckets fit in a datum if there are more, and a zero bucket may be among them.
    return {Histogram: FreshScaleHistogramAggregation(max_size=MAX_BUCKETS - 1)}


_live_exporters: "weakref.WeakSet[CloudWatchMetricExporter]" = weakref.WeakSet()


class CloudWatchMetricExporter(MetricExporter):
    """Publish OpenTelemetry's metrics as CloudWatch metrics, under any metric reader.

    ``namespace`` falls back to ``OTEL_EXPORTER_CLOUDWATCH_NAMESPACE``, then to the resource's ``service.name``.
    ``client`` is anything with ``put_metric_data(**kwargs)``; without one a boto3 client is made when the first
    request is sent, in the process that sends it. ``rules`` say what is published of which metric, the first match
    wins. ``resource_dimensions`` name the resource attributes to publish as dimensions. ``max_metrics`` bounds the
    distinct CloudWatch metrics of the process, ``max_backlog_bytes`` the memory for what could not be sent yet, and a
    ``spool_directory`` keeps that on disk, for the next process to send.
    ``entity=True`` tells CloudWatch which service the metrics belong to (``service.name`` and
    ``deployment.environment.name``), so that its "Explore related" finds them.

    Raises :class:`ConfigurationError`, here and at no other time. What cannot be sent now is kept, and tried again at
    the next export or flush; what can never be sent is counted in :meth:`stats`.

    :meth:`export`, :meth:`force_flush` and :meth:`shutdown` call CloudWatch in the calling thread, one at a time. They
    check their timeout between calls; a call in progress lasts until the client's own timeouts end it. The client that
    the exporter makes waits 3 seconds for a connection and 8 for each part of an answer, so an answer that arrives in
    drops takes longer. With a :class:`CloudWatchMetricReader` no caller waits longer than its timeout.
    """

    def __init__(
        self,
        namespace: str | None = None,
        *,
        client: Client | None = None,
        region_name: str | None = None,
        rules: Sequence[MetricRule | Mapping[str, Any]] = (),
        resource_dimensions: Collection[str] = (),
        max_metrics: int = DEFAULT_MAX_METRICS,
        max_backlog_bytes: int = DEFAULT_MAX_BACKLOG_BYTES,
        spool_directory: str | os.PathLike[str] | None = None,
        entity: bool | None = None,
    ) -> None:
        arguments = {
            "namespace": namespace,
            "region_name": region_name,
            "rules": rules or None,
            "resource_dimensions": resource_dimensions or None,
            "max_metrics": max_metrics,
            "max_backlog_bytes": max_backlog_bytes,
            "spool_directory": spool_directory,
            "entity": entity,
        }
        settings = Settings.resolve(arguments=arguments, app_config={}, environ=os.environ)
        self._set_up(settings, client=client, client_factory=None)

    @classmethod
    def from_settings(
        cls, settings: Settings, *, client: Client | None = None, client_factory: ClientFactory | None = None
    ) -> "CloudWatchMetricExporter":
        """An exporter for settings that are resolved already."""
        exporter = cls.__new__(cls)
        exporter._set_up(settings, client=client, client_factory=client_factory)  # noqa: SLF001 - a second constructor
        return exporter

    def _set_up(self, settings: Settings, *, client: Client | None, client_factory: ClientFactory | None) -> None:
        self._preferences = _Preferences(TEMPORALITY)
        super().__init__(preferred_temporality=self._preferences, preferred_aggregation=default_aggregation())
        self._settings = settings
        self._publishes_plain_metrics = True
        self._adopted: set[str] = set()
        self._client = checked_client(client)
        self._client_factory = client_factory or boto_client.client_factory(settings.region_name)
        self._watchers: list[Callable[[Batch], object]] = []
        self._is_shut_down = False
        self._is_closed = False
        self._start()
        _live_exporters.add(self)
        call_after_fork(self._restart)

    def _start(self) -> None:
        """Make everything that belongs to one process: locks, client, what is pending, what is remembered."""
        # Of the last collection; all collections of one provider have the very same object.
        self.resource: Resource | None = None
        self._stats_recorder = StatsRecorder()
        spool_directory = self._settings.spool_directory
        spool = Spool(spool_directory) if spool_directory else None
        self._backlog = Backlog(self._settings.max_backlog_bytes, self._stats_recorder, spool)
        self._delivery = Delivery(self._make_put, self._backlog, self._stats_recorder, on_accepted=self._tell_watchers)
        self._turns = threading.Condition()
        self._is_delivering = False
        self._guard = CardinalityGuard(self._settings.max_metrics, time.monotonic)
        self._accepting = threading.Lock()
        self._mapper = Mapper(
            MetricStreams(
                Rules(self._settings.rules),
                resource_dimensions=self._settings.resource_dimensions,
                publishes=self._publishes,
            ),
            guard=self._guard,
            start_unix_nano=time.time_ns(),
            lost=lambda datums: self._stats_recorder.lost(LossReason.INVALID, datums),
        )

    def _restart(self) -> None:
        """Start anew in a forked child: what is pending, and every lock that may be held, is the parent's."""
        self._backlog.release()
        self._start()

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_kwargs: object
    ) -> MetricExportResult:
        """Take over a collection and send what waits, oldest first; ``SUCCESS`` if nothing waits any more."""
        if self._is_shut_down:
            _logger.warning(
                "Metrics came after the exporter was shut down; they are lost. Shut it down after whoever gives it "
                "metrics."
            )
            self.accept(metrics_data)
            return MetricExportResult.FAILURE
        self.accept(metrics_data)
        is_delivered = self.deliver(time.monotonic() + timeout_millis / 1000)
        return MetricExportResult.SUCCESS if is_delivered else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Send what waits; whether nothing waits any more."""
        return self.deliver(time.monotonic() + timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Send what waits, within the timeout; what is left then is lost, and counted as ``shutdown``."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        # The SDK's periodic reader calls the argument "timeout", in milliseconds too.
        deadline = time.monotonic() + kwargs.get("timeout", timeout_millis) / 1000
        self._delivery.expedite(is_ending=True)
        self.deliver(deadline, is_last=True)
        self._is_closed = True
        self._backlog.close()

    def stats(self) -> DeliveryStats:
        """What became of the datums of this process so far."""
        return self._stats_recorder.stats(
            datums_pending=self._backlog.datums,
            metrics_active=self._guard.active(),
            metrics_overflowed=self._guard.overflowed,
        )

    @property
    def stats_recorder(self) -> StatsRecorder:
        """Counts what is lost before it reaches the exporter."""
        return self._stats_recorder

    @property
    def delivery(self) -> Delivery:
        """What calls CloudWatch, to see whether it does and to change when it does."""
        return self._delivery

    @property
    def settings(self) -> Settings:
        """What it was told, parsed."""
        return self._settings

    @property
    def is_in_use(self) -> bool:
        """Whether a reader of the SDK's has it, or it has exported."""
        return self._preferences.were_read or self.resource is not None

    def use_namespace(self, namespace: str) -> None:
        """Publish in this namespace from now on."""
        self._settings = replace(self._settings, namespace=namespace)

    def watch(self, watcher: Callable[[Batch], object]) -> None:
        """Show ``watcher`` each batch that CloudWatch has accepted, from now on, in a forked child too.

        It is called in the thread that delivers, so it has to be quick; what it raises is logged.
        """
        self._watchers.append(watcher)

    def adopt(self, reporter: str) -> None:
        """Publish what belongs to this reporter; what belongs to others is left to theirs."""
        self._adopted.add(reporter)

    def publish_plain_metrics(self, *, is_wanted: bool) -> None:
        """Publish from the next collection on also what belongs to no reporter, as it is at first, or leave it."""
        self._publishes_plain_metrics = is_wanted

    @property
    def is_shut_down(self) -> bool:
        """Whether it takes nothing any more."""
        return self._is_shut_down

    def accept(self, metrics_data: MetricsData) -> None:
        """Make a collection's datums pending, or after the end lost; no network."""
        self.resource = next((each.resource for each in metrics_data.resource_metrics), self.resource)
        if not self._settings.enabled:
            return
        with self._accepting:
            datums = self._mapper.datums(metrics_data)
        self._backlog.add(batches(self._envelope(metrics_data), datums, is_plain=self._client is not None))
        if self._is_closed:
            self._backlog.close()

    def deliver(self, deadline: float, *, is_last: bool = False) -> bool:
        """Send what is pending; ``False`` if something still is at ``deadline``, in seconds of ``time.monotonic``.

        ``is_last`` is for the delivery after ``delivery.expedite(is_ending=True)``, which stops all others.
        """
        # No lock is held during a call: the handler of a signal may interrupt it and flush in the same thread, and a
        # greenlet must not block on a lock that was made before gevent patched threading.
        with self._turns:
            if not self._turns.wait_for(lambda: not self._is_delivering, seconds_until(deadline)):
                return False
            self._is_delivering = True
        try:
            if not self._is_closed:
                self._backlog.adopt_spooled()
            return self._delivery.deliver(deadline, is_last=is_last)
        finally:
            if self._is_closed:
                self._backlog.close()  # the exporter was shut down during a call, and its batch may have come back
            with self._turns:
                self._is_delivering = False
                self._turns.notify()

    @property
    def client(self) -> Client | None:
        """What it was given to send with; ``None`` if it makes its own."""
        return self._client

    def use_client(self, client: Client) -> None:
        """Send with this client from now on, at once if anything waits."""
        self._client = client
        self._delivery.renew_client()

    def _tell_watchers(self, batch: Batch) -> None:
        try:
            for watcher in self._watchers:
                watcher(batch)
        except Exception:  # noqa: BLE001 - the boundary to whatever watches: it must not cost the accounts
            _each_minute.log(
                logging.ERROR,
                "watcher",
                "What watches the metrics failed; all were sent. Mend the callable that was given to watch().",
                exc_info=True,
            )

    def _make_put(self) -> Put:
        if self._settings.dry_run:
            return lambda _batch: None
        return encoded_put(self._client_factory()) if self._client is None else plain_put(self._client)

    def _publishes(self, reporter: str | None) -> bool:
        return self._publishes_plain_metrics if reporter is None else reporter in self._adopted

    def _envelope(self, metrics_data: MetricsData) -> Envelope:
        resources = [each.resource.attributes for each in metrics_data.resource_metrics]
        resource = resources[0] if resources else {}
        namespace = self._settings.namespace or namespace_of(str(resource.get("service.name", "")))
        return Envelope(namespace, service_entity(resource) if self._settings.entity else None)


def seconds_until(deadline: float) -> float:
    """The time to wait until a deadline of the monotonic clock, within what the operating system can wait."""
    return min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)


def live_exporters() -> list[CloudWatchMetricExporter]:
    """All exporters of this process that somebody still has."""
    return list(_live_exporters)
