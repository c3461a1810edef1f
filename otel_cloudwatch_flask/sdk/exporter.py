"""The metric exporter: OpenTelemetry's metrics go in; each is delivered to CloudWatch, pending, or counted as lost."""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Container, ItemsView, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
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
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

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
from otel_cloudwatch_flask.delivery.stats import DeliveryStats, Ledger, LossReason
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.histograms.values_counts import MAX_BUCKETS
from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.mapper import Mapper
from otel_cloudwatch_flask.mapping.metric_streams import MetricStreams
from otel_cloudwatch_flask.model.dimensions import namespace_of
from otel_cloudwatch_flask.model.entity import service_entity
from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, facade_metric, reporter_of
from otel_cloudwatch_flask.runtime.process import call_after_fork
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog
from otel_cloudwatch_flask.sdk.internals import FreshScaleHistogramAggregation

_logger = logging.getLogger(__name__)
_each_minute = RateLimitedLog(_logger, interval_seconds=60.0)

_DELTA, _CUMULATIVE = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE

TEMPORALITY: Final[dict[type, AggregationTemporality]] = {
    Counter: _DELTA,
    ObservableCounter: _DELTA,
    Histogram: _DELTA,
    UpDownCounter: _CUMULATIVE,
    ObservableUpDownCounter: _CUMULATIVE,
    ObservableGauge: _CUMULATIVE,
}
"""CloudWatch adds up what it receives, so counts are sent as deltas and current values as they are."""


class _Preferences(dict[type, AggregationTemporality]):
    """Preferred temporalities that record whether a reader has read them: from then on the exporter is in use."""

    were_read = False

    def items(self) -> "ItemsView[type, AggregationTemporality]":  # type: ignore[override]  # typeshed: dict_items
        self.were_read = True
        return super().items()


def default_aggregation() -> dict[type, Aggregation]:
    """Default aggregations: exponential histograms, so that percentiles can be published."""
    # All filled buckets must fit in one datum; the zero bucket may be one more.
    return {Histogram: FreshScaleHistogramAggregation(max_size=MAX_BUCKETS - 1)}


_live_exporters: "weakref.WeakSet[CloudWatchMetricExporter]" = weakref.WeakSet()


class CloudWatchMetricExporter(MetricExporter):
    """Publish OpenTelemetry's metrics as CloudWatch metrics. Works with any metric reader.

    ``namespace`` falls back to ``OTEL_EXPORTER_CLOUDWATCH_NAMESPACE``, then to the resource's ``service.name``.
    ``client`` is any object with ``put_metric_data(**kwargs)``; by default a boto3 client is created for the first
    request, in the process that sends it. ``rules`` choose what is published of each metric; the first match wins.
    ``resource_dimensions`` are the resource attributes to publish as dimensions. ``max_metrics`` limits the distinct
    CloudWatch metrics of the process, ``max_backlog_bytes`` the memory for pending datums; with a ``spool_directory``
    pending datums are also on disk, and survive the process. ``entity=True`` tells CloudWatch which service the metrics
    belong to (``service.name`` and ``deployment.environment.name``), so that its "Explore related" finds them.

    The constructor raises :class:`ConfigurationError`. Datums that cannot be sent now are kept, and retried by the next
    export or flush; those that can never be sent are counted in :meth:`stats`.

    :meth:`export`, :meth:`force_flush` and :meth:`shutdown` call CloudWatch in the calling thread, one at a time. They
    check their timeout between calls; a call in progress ends by the client's own timeouts: the default client
    waits 3 seconds for a connection and 8 for each part of a response, so a response that trickles in takes longer.
    With a :class:`CloudWatchMetricReader` no caller waits longer than its timeout.
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
        """Return an exporter for settings that are already resolved."""
        exporter = cls.__new__(cls)
        exporter._set_up(settings, client=client, client_factory=client_factory)  # noqa: SLF001 - a second constructor
        return exporter

    def _set_up(self, settings: Settings, *, client: Client | None, client_factory: ClientFactory | None) -> None:
        self._preferences = _Preferences(TEMPORALITY)
        super().__init__(preferred_temporality=self._preferences, preferred_aggregation=default_aggregation())
        self._settings = settings
        self._rules = Rules(settings.rules)
        self._publishes_plain_metrics = True
        self._reporters: set[str] = set()
        self._client = checked_client(client)
        self._client_factory = client_factory or boto_client.client_factory(settings.region_name)
        self._watchers: list[Callable[[Batch], object]] = []
        self._is_shut_down = False
        self._is_closed = False
        self._start()
        self._open_spool()
        _live_exporters.add(self)
        call_after_fork(self._restart)

    def _start(self) -> None:
        """Create the state of one process: locks, client, pending datums and caches."""
        # The resource of the last collection: one object for all collections of a provider.
        self.resource: Resource | None = None
        self._ledger = Ledger()
        self._backlog = Backlog(self._settings.max_backlog_bytes, self._ledger)
        self._delivery = Delivery(self._make_put, self._backlog, self._ledger, on_accepted=self._notify_watchers)
        self._turn = threading.Condition()
        self._is_delivering = False
        self._guard = CardinalityGuard(self._settings.max_metrics, time.monotonic)
        self._mapping_lock = threading.Lock()
        self._mapper = Mapper(
            MetricStreams(
                self._rules,
                resource_dimensions=self._settings.resource_dimensions,
                publishes=self._publishes,
            ),
            guard=self._guard,
            start_unix_nano=time.time_ns(),
            lost=lambda datums: self._ledger.lost(LossReason.INVALID, datums),
        )

    def _restart(self) -> None:
        """Start afresh in a forked child: pending datums and locks that may be held belong to the parent."""
        parents_backlog = self._backlog
        self._start()
        parents_backlog.abandon()

    def _open_spool(self) -> None:
        """Open the spool of this process, if one is configured; raises :class:`ConfigurationError`."""
        if self._settings.spool_directory and not self._backlog.has_spool:
            self._backlog.use_spool(Spool(self._settings.spool_directory))

    def _try_to_open_spool(self) -> None:
        """Open the spool of a forked child, which may have dropped privileges since the fork, or found a full disk."""
        try:
            self._open_spool()
        except ConfigurationError as error:
            _each_minute.warning(
                "spool", "Cannot open the spool: pending metrics are kept in memory only, and retried. (%s)", error
            )

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_kwargs: object
    ) -> MetricExportResult:
        """Add a collection to the backlog and send it, oldest first; ``SUCCESS`` if nothing is left pending."""
        if self._is_shut_down:
            _logger.warning(
                "Metrics exported after shutdown are lost. Shut down the metric reader before the exporter."
            )
            self.accept(metrics_data)
            return MetricExportResult.FAILURE
        self.accept(metrics_data)
        is_delivered = self.deliver(time.monotonic() + timeout_millis / 1000)
        return MetricExportResult.SUCCESS if is_delivered else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Send the backlog; return ``True`` if nothing is left pending."""
        return self.deliver(time.monotonic() + timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Send the backlog within the timeout; datums left pending are lost, and counted as ``shutdown``."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        # PeriodicExportingMetricReader passes "timeout" instead, also in milliseconds.
        deadline = time.monotonic() + kwargs.get("timeout", timeout_millis) / 1000
        self._delivery.expedite(is_ending=True)
        self.deliver(deadline, is_last=True)
        self._is_closed = True
        self._backlog.close()

    def stats(self) -> DeliveryStats:
        """Return how many datums of this process were sent, are pending, and were lost and why."""
        return self._ledger.stats(
            datums_pending=self._backlog.datums,
            metrics_active=self._guard.active(),
            metrics_overflowed=self._guard.overflowed,
        )

    @property
    def ledger(self) -> Ledger:
        """Counts of sent and lost datums, for callers that lose a measurement before it gets here."""
        return self._ledger

    @property
    def delivery(self) -> Delivery:
        """Sends the backlog to CloudWatch; callers can see whether a call is in progress, and expedite the next."""
        return self._delivery

    @property
    def settings(self) -> Settings:
        """The resolved settings."""
        return self._settings

    @property
    def is_in_use(self) -> bool:
        """Whether one of the SDK's readers uses it, or it has exported."""
        return self._preferences.were_read or self.resource is not None

    def use_namespace(self, namespace: str) -> None:
        """Publish in this namespace from now on."""
        self._settings = replace(self._settings, namespace=namespace)

    def watch(self, watcher: Callable[[Batch], object]) -> None:
        """Call ``watcher`` with each batch that CloudWatch accepts from now on, also in forked children.

        It runs in the delivering thread, so it must be quick; exceptions are logged.
        """
        self._watchers.append(watcher)

    def publish_metrics_of(self, reporter: str) -> None:
        """Also publish the metrics of this reporter; other reporters' exporters publish theirs."""
        self._reporters.add(reporter)

    @property
    def reporters(self) -> Collection[str]:
        """The reporters whose metrics are published."""
        return self._reporters

    def kept_attributes(self, scope: InstrumentationScope, instrument_name: str) -> Container[str] | None:
        """Return the attributes of an instrument that are published; ``None`` if it belongs to another's reporter."""
        reporter = reporter_of(scope)
        if reporter is not None and reporter not in self._reporters:
            return None
        facade = facade_metric(scope)
        return _KeptAttributes(self._rules.of(instrument_name if facade is None else facade.name))

    def publish_plain_metrics(self, *, is_wanted: bool) -> None:
        """Choose whether to publish metrics that belong to no reporter (default: yes), from the next collection."""
        self._publishes_plain_metrics = is_wanted

    @property
    def is_shut_down(self) -> bool:
        """Whether :meth:`shutdown` was called."""
        return self._is_shut_down

    def accept(self, metrics_data: MetricsData) -> None:
        """Add a collection to the backlog, or count it as lost after shutdown; makes no network call."""
        self.resource = next((each.resource for each in metrics_data.resource_metrics), self.resource)
        if not self._settings.enabled:
            return
        with self._mapping_lock:
            self._try_to_open_spool()
            datums = self._mapper.datums(metrics_data)
        self._backlog.add(batches(self._envelope(metrics_data), datums, is_plain=self._client is not None))
        if self._is_closed:
            self._backlog.close()

    def deliver(self, deadline: float, *, is_last: bool = False) -> bool:
        """Send the backlog; return ``False`` if datums are still pending at ``deadline`` (``time.monotonic`` seconds).

        ``is_last``: the delivery after ``delivery.expedite(is_ending=True)``, which stops all other deliveries.
        """
        # No lock is held during a call: a signal handler may interrupt it and flush in the same thread, and a greenlet
        # must not block on a lock that was created before gevent patched threading.
        with self._turn:
            if not self._turn.wait_for(lambda: not self._is_delivering, seconds_until(deadline)):
                return False
            self._is_delivering = True
        try:
            if not self._is_closed:
                self._backlog.take_over()
            return self._delivery.deliver(deadline, is_last=is_last)
        finally:
            if self._is_closed:
                self._backlog.close()  # shut down during the call: its batch may be back in the backlog
            with self._turn:
                self._is_delivering = False
                self._turn.notify()

    @property
    def client(self) -> Client | None:
        """The client passed by the program; ``None`` if the exporter creates its own."""
        return self._client

    def use_client(self, client: Client) -> None:
        """Send with this client from now on, and retry pending datums at once."""
        self._client = client
        self._delivery.renew_client()

    def _notify_watchers(self, batch: Batch) -> None:
        try:
            for watcher in self._watchers:
                watcher(batch)
        except Exception:  # noqa: BLE001 - boundary: watchers; the batch must be counted as sent whatever they raise
            _each_minute.log(
                logging.ERROR,
                "watcher",
                "A callback passed to watch() failed; the metrics were sent. Fix the callback.",
                exc_info=True,
            )

    def _make_put(self) -> Put:
        if self._settings.dry_run:
            return lambda _batch: None
        return encoded_put(self._client_factory()) if self._client is None else plain_put(self._client)

    def _publishes(self, reporter: str | None) -> bool:
        return self._publishes_plain_metrics if reporter is None else reporter in self._reporters

    def _envelope(self, metrics_data: MetricsData) -> Envelope:
        resources = [each.resource.attributes for each in metrics_data.resource_metrics]
        resource = resources[0] if resources else {}
        namespace = self._settings.namespace or namespace_of(str(resource.get("service.name", "")))
        return Envelope(namespace, service_entity(resource) if self._settings.entity else None)


class _KeptAttributes:
    """Container of the attribute names that a rule keeps."""

    def __init__(self, rule: MetricRule) -> None:
        self._keeps = lru_cache(maxsize=4096)(rule.keeps)  # called for every attribute of every measurement

    def __contains__(self, name: object) -> bool:
        return name == NEGATIVE_KEY or self._keeps(str(name))


def seconds_until(deadline: float) -> float:
    """Return the seconds until a ``time.monotonic`` deadline: at least 0, at most what a lock can wait."""
    return min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)


def live_exporters() -> list[CloudWatchMetricExporter]:
    """Return the exporters of this process that are still referenced."""
    return list(_live_exporters)
