"""The metric exporter, which delivers OpenTelemetry metrics to CloudWatch.

Every datum that the exporter accepts is accounted for as sent, pending, merged or lost, except those that shutdown
leaves in the spool for the next process.
"""

import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Container, ItemsView, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Final, TextIO

from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_cloudwatch_flask.config import DEFAULT_MAX_BACKLOG_BYTES, DEFAULT_MAX_METRICS, Output, Settings
from otel_cloudwatch_flask.delivery import boto_client
from otel_cloudwatch_flask.delivery.backlog import Backlog
from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.delivery.boto_client import Client, ClientFactory, Put
from otel_cloudwatch_flask.delivery.emf import EmfEnvelope, EmfPut
from otel_cloudwatch_flask.delivery.sender import Sender
from otel_cloudwatch_flask.delivery.spool import Spool, check_directory
from otel_cloudwatch_flask.delivery.stats import DeliveryStats, LossReason, StatsRecorder
from otel_cloudwatch_flask.histograms.values_counts import MAX_BUCKETS
from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.mapper import Mapper
from otel_cloudwatch_flask.mapping.metric_streams import MetricKind, MetricStreams
from otel_cloudwatch_flask.model.dimensions import metric_name, namespace_of
from otel_cloudwatch_flask.model.entity import service_entity
from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, facade_metric, reporter_of
from otel_cloudwatch_flask.runtime.live_objects import LiveObjects
from otel_cloudwatch_flask.runtime.process import call_after_fork
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog
from otel_cloudwatch_flask.sdk.internals import FreshScaleHistogramAggregation

_logger = logging.getLogger(__name__)
_each_minute = RateLimitedLog(_logger, interval_seconds=60.0)

_ADOPTION_STEP_SECONDS: Final = 1.0

TEMPORALITY: Final[dict[type, AggregationTemporality]] = dict.fromkeys(
    (Counter, ObservableCounter, Histogram), AggregationTemporality.DELTA
)
"""The temporalities to request. CloudWatch adds up values, so counts must be deltas. Others stay cumulative, which is
the SDK's default.
"""
AGGREGATION: Final[dict[type, Aggregation]] = {
    # All non-empty buckets have to fit into one datum, and the zero bucket needs room in addition to max_size.
    Histogram: FreshScaleHistogramAggregation(max_size=MAX_BUCKETS - 1)
}
"""The aggregation to request: exponential buckets, from which percentiles can be published."""


class _Preferences(dict[type, AggregationTemporality]):
    """The preferred temporalities. Records whether a reader has read them; if so, the exporter is in use."""

    were_read = False

    def items(self) -> "ItemsView[type, AggregationTemporality]":  # type: ignore[override]  # typeshed: dict_items
        self.were_read = True
        return super().items()


_live_exporters: "LiveObjects[CloudWatchMetricExporter]" = LiveObjects()


class CloudWatchMetricExporter(MetricExporter):
    """Publishes OpenTelemetry metrics as CloudWatch metrics.

    Works with :class:`CloudWatchMetricReader` and with the SDK's ``PeriodicExportingMetricReader``.

    :param namespace: CloudWatch namespace. Default: ``OTEL_EXPORTER_CLOUDWATCH_NAMESPACE``, else the resource's
        ``service.name``.
    :param client: any object with ``put_metric_data(**kwargs)``. Default: a boto3 client, created for the first call to
        CloudWatch, in the process that makes it.
    :param region_name: AWS Region of the default client.
    :param rules: :class:`MetricRule` objects, or mappings of their fields. The first rule that matches a metric applies
        to it.
    :param resource_dimensions: resource attributes to publish as dimensions. A rollup has such a dimension only if it
        lists the attribute.
    :param max_metrics: maximum number of distinct CloudWatch metrics that the exporter publishes within an hour.
        Default: 1,000.
    :param max_backlog_bytes: maximum size of the datums pending in memory, in bytes of uncompressed JSON. Default:
        64 MiB.
    :param spool_directory: directory in which pending datums are also stored, so that they outlive the process.
    :param entity: whether to tell CloudWatch which service the metrics belong to (``service.name`` and
        ``deployment.environment.name``), so that "Explore related" in the CloudWatch console finds them. Default:
        false.
    :param output: ``"api"`` (default) sends requests. ``"emf"`` writes lines in the embedded metric format, without
        importing boto3. CloudWatch Logs extracts the metrics from those lines.
    :param stream: text stream for EMF lines. Default: standard output.

    Raises :class:`ConfigurationError` for invalid settings. Datums that cannot be sent stay pending, and are retried by
    the next export or flush. Lost datums are counted in :meth:`stats`.

    :meth:`export`, :meth:`force_flush` and :meth:`shutdown` call CloudWatch in the thread that invokes them. Only one
    thread sends at a time, and other threads wait until their timeout. A call in progress ends only when CloudWatch
    responds or the client times out. The default client waits at most 3 seconds for a connection and 8 seconds for each
    part of the response. If the thread of a :class:`CloudWatchMetricReader` makes the calls, no caller waits longer
    than its timeout.
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
        output: Output | None = None,
        stream: TextIO | None = None,
    ) -> None:
        arguments = {**locals(), "rules": rules or None, "resource_dimensions": resource_dimensions or None}
        settings = Settings.resolve(arguments=arguments, app_config={}, environ=os.environ)
        self._set_up(settings, client)

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        client: Client | None = None,
        client_factory: ClientFactory | None = None,
    ) -> "CloudWatchMetricExporter":
        """Create an exporter from settings that are already resolved."""
        exporter = cls.__new__(cls)
        exporter._set_up(settings, client, client_factory)  # noqa: SLF001 - a second constructor
        return exporter

    def _set_up(
        self,
        settings: Settings,
        client: Client | None,
        client_factory: ClientFactory | None = None,
    ) -> None:
        self._preferences = _Preferences(TEMPORALITY)
        super().__init__(preferred_temporality=self._preferences, preferred_aggregation=AGGREGATION)
        self._settings = settings
        self._rules = Rules(settings.rules)
        # Whether to publish the metrics that belong to no reporter.
        self.publishes_plain_metrics = True
        # The IDs of the reporters whose metrics to publish.
        self.reporters: set[str] = set()
        # The client that was passed.
        self.client = boto_client.checked_client(client)
        self._client_factory = client_factory or boto_client.client_factory(settings.region_name)
        self._watchers: list[Callable[[Batch], object]] = []
        self._watchers_of_pending: list[Callable[[Batch], object]] = []
        self.is_shut_down = False
        self._is_closed = False
        self._has_parents_client = False
        if settings.spool_directory:
            check_directory(settings.spool_directory)
        self._start()
        _live_exporters.add(self)
        call_after_fork(self._restart)

    def _start(self) -> None:
        """Create the state that belongs to one process: locks, client, pending datums and caches."""
        # The resource of the last collection. It identifies the provider, whose exporters all receive the same object.
        self.resource: Resource | None = None
        # The Region of the latest client, or None until the first attempt to send.
        self.region_name: str | None = None
        self._kept: list[_KeptAttributes] = []
        self.stats_recorder = StatsRecorder()
        self.backlog = Backlog(
            self._settings.max_backlog_bytes,
            self.stats_recorder,
            self._make_spool(),
            on_added=partial(self._notify, self._watchers_of_pending),
        )
        self.sender = Sender(
            self._make_put,
            self.backlog,
            self.stats_recorder,
            on_accepted=partial(self._notify, self._watchers),
            has_responses=not self.writes_emf,
        )
        self._turn = threading.Condition()
        self._delivering_thread: int | None = None
        self._guard = CardinalityGuard(self._settings.max_metrics, time.monotonic)
        self._mapping_lock = threading.Lock()
        self._streams = MetricStreams(
            self._rules,
            resource_dimensions=self._settings.resource_dimensions,
            publishes=self._publishes,
        )
        self._mapper = Mapper(
            self._streams,
            guard=self._guard,
            start_unix_nano=time.time_ns(),
            lost=lambda datums: self.stats_recorder.lost(LossReason.INVALID, datums),
        )

    def _restart(self) -> None:
        """Start afresh in a forked child, because the pending datums and the locks belong to the parent."""
        parents_backlog = self.backlog
        self._start()
        self._has_parents_client = self.client is not None
        parents_backlog.release()

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_kwargs: object
    ) -> MetricExportResult:
        """Add metrics to the backlog, and send the backlog. Returns ``SUCCESS`` if no datums are left pending.

        After shutdown, returns ``FAILURE``.

        :param metrics_data: the metrics that a metric reader has collected.
        :param timeout_millis: time limit, in milliseconds. Datums that are not sent in time stay pending.
        """
        self.accept(metrics_data)
        if self.is_shut_down:
            _logger.warning(
                "Metrics exported after shutdown are lost unless they are in the spool. Shut down the metric reader "
                "before the exporter."
            )
            return MetricExportResult.FAILURE
        is_delivered = self.deliver(time.monotonic() + timeout_millis / 1000)
        return MetricExportResult.SUCCESS if is_delivered else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Send the backlog. Returns ``True`` if no datums are left pending.

        :param timeout_millis: time limit, in milliseconds.
        """
        return self.deliver(time.monotonic() + timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Send the backlog within the timeout. Datums left only in memory are lost, and counted as ``shutdown``.

        :param timeout_millis: time limit, in milliseconds.
        :param kwargs: ``timeout``, also in milliseconds, may be passed instead.
        """
        if self.is_shut_down:
            return
        self.is_shut_down = True
        # PeriodicExportingMetricReader passes "timeout".
        deadline = time.monotonic() + kwargs.get("timeout", timeout_millis) / 1000
        # End any delivery in another thread, which could otherwise take up the whole timeout.
        self.sender.expedite(is_ending=True)
        self.deliver(deadline, is_last=True)
        self._is_closed = True
        self.backlog.close()

    def stats(self) -> DeliveryStats:
        """Return the counters of this exporter in this process."""
        return self.stats_recorder.stats(
            datums_pending=self.backlog.datums,
            metrics_active=self._guard.active(),
            metrics_overflowed=self._guard.overflowed,
        )

    @property
    def settings(self) -> Settings:
        """The resolved settings."""
        return self._settings

    def kind_of(self, metric_name: str) -> MetricKind | None:
        """Return the kind of the published metric with this CloudWatch name, or ``None`` if there is no such metric."""
        return self._streams.kinds.get(metric_name)

    @property
    def is_in_use(self) -> bool:
        """Whether one of the SDK's readers uses this exporter, or the exporter has received metrics."""
        return self._preferences.were_read or self.resource is not None

    def use_namespace(self, namespace: str) -> None:
        """Use ``namespace`` for the metrics received from now on."""
        self._settings = replace(self._settings, namespace=namespace)

    def watch(self, watcher: Callable[[Batch], object]) -> None:
        """Call ``watcher`` with each batch that is sent successfully from now on, including in forked children.

        :param watcher: function to call. It runs in the delivering thread, so it must be quick. Its exceptions are
            logged.
        """
        self._watchers.append(watcher)

    def watch_pending(self, watcher: Callable[[Batch], object]) -> None:
        """Call ``watcher`` with each batch that becomes pending from now on, before the first attempt to send it."""
        self._watchers_of_pending.append(watcher)

    def kept_attributes(self, scope: InstrumentationScope, name: str) -> Container[str] | None:
        """Return which of an instrument's attributes to publish. ``name`` is the name of its metric.

        Returns ``None`` if the instrument belongs to a reporter that uses a different exporter.
        """
        reporter = reporter_of(scope)
        if reporter is not None and reporter not in self.reporters:
            return None
        facade = facade_metric(scope)
        name = metric_name(name if facade is None else facade.name)
        kept = _KeptAttributes(self._rules.of(name), name, with_properties=self.writes_emf)
        self._kept.append(kept)
        return kept

    def accept(self, metrics_data: MetricsData) -> None:
        """Convert metrics to datums, and add them to the backlog without a network call.

        After shutdown, the datums are counted as lost unless they are in the spool.
        """
        # A local variable, because another thread may accept metrics of another resource meanwhile.
        self.resource = resource = next((each.resource for each in metrics_data.resource_metrics), self.resource)
        if not self._settings.enabled:
            return
        for kept in self._kept:
            kept.warn_of_missing()
        # The mapper keeps state between collections, and several threads may call export().
        with self._mapping_lock:
            datums = self._mapper.datums(metrics_data)
        self.backlog.add(self._envelope(resource).batches(datums))
        if self._is_closed:
            self.backlog.close()

    def deliver(self, deadline: float, *, is_last: bool = False) -> bool:
        """Send the backlog until ``deadline``, and return whether no datums are left pending.

        :param deadline: a ``time.monotonic`` time in seconds.
        :param is_last: whether this is the last delivery. The caller must first stop all other deliveries with
            ``sender.expedite(is_ending=True)``.
        """
        # No lock is held during a call, because a signal handler may interrupt the call and flush in the same thread,
        # and a greenlet must not block on a lock that was created before gevent patched threading.
        if self._delivering_thread == threading.get_ident():  # in a signal handler
            return False
        with self._turn:
            if not self._turn.wait_for(lambda: self._delivering_thread is None, seconds_until(deadline)):
                return False
            self._delivering_thread = threading.get_ident()
        try:
            return self._adopt_and_send(deadline, is_last=is_last)
        finally:
            if self._is_closed:
                # Close again, because a call in progress during the shutdown may have put its batch back.
                self.backlog.close()
            with self._turn:
                self._delivering_thread = None
                self._turn.notify()

    def _adopt_and_send(self, deadline: float, *, is_last: bool) -> bool:
        # A spool can hold more than can be read by the deadline, so adopting and sending batches alternate.
        has_more = True
        while has_more:
            step_ends = min(deadline, time.monotonic() + _ADOPTION_STEP_SECONDS)
            has_more = not self._is_closed and self.backlog.adopt_spooled(step_ends)
            if not self.sender.deliver(deadline, is_last=is_last):
                return False
        return True

    def use_client(self, client: Client) -> None:
        """Replace the client, and allow the next attempt immediately."""
        self.client = client
        self.sender.renew_client()

    @property
    def writes_emf(self) -> bool:
        """Whether the exporter writes EMF lines to a stream, instead of sending requests."""
        return self._settings.output == "emf"

    def _notify(self, watchers: Iterable[Callable[[Batch], object]], batch: Batch) -> None:
        for watcher in watchers:
            try:
                watcher(batch)
            except Exception:  # noqa: BLE001, PERF203 - boundary: watchers; the delivery must not depend on them
                _each_minute.error(
                    "watcher",
                    "A callback passed to watch() failed; delivery is not affected. Fix the callback.",
                    exc_info=True,
                )

    def _make_spool(self) -> Spool | None:
        if self._settings.dry_run:
            return None  # a dry run would count its batches as sent, and delete them
        return Spool(self._settings.spool_directory) if self._settings.spool_directory else None

    def _make_put(self) -> Put:
        if self._settings.dry_run:
            return lambda _batch: None  # counts as accepted, so that everything but the call is exercised
        if self.writes_emf:
            return EmfPut(self._settings.stream)
        client = self._client_factory() if self.client is None else self.client
        if self._has_parents_client:
            boto_client.close_idle_connections(client)
            self._has_parents_client = False
        # A client that the program passed may have no ``meta``.
        self.region_name = getattr(getattr(client, "meta", None), "region_name", None)
        return boto_client.encoded_put(client) if self.client is None else boto_client.plain_put(client)

    def _publishes(self, reporter: str | None) -> bool:
        return self.publishes_plain_metrics if reporter is None else reporter in self.reporters

    def _envelope(self, resource: Resource | None) -> Envelope:
        attributes = resource.attributes if resource else {}
        namespace = self._settings.namespace or namespace_of(str(attributes.get("service.name", "")))
        envelope = EmfEnvelope if self.writes_emf else Envelope
        entity = service_entity(attributes) if self._settings.entity else None
        return envelope(namespace, entity, is_plain=self.client is not None)


_MAX_SEEN: Final = 50
_COLLECTIONS_BEFORE_WARNING: Final = 10
"""The collection in which the warning is logged. Some attributes appear late: an unknown URL, for
example, has no route.
"""


class _KeptAttributes:
    """A container of the attribute names that a rule keeps for a metric.

    Includes the rule's properties if ``with_properties`` is true.
    """

    def __init__(self, rule: MetricRule, metric_name: str, *, with_properties: bool) -> None:
        self._rule, self._metric_name = rule, metric_name
        self._seen = deque[str](maxlen=_MAX_SEEN)
        self._collections = itertools.count(1)

        def keeps(name: str) -> bool:
            self._seen.append(name)
            return rule.keeps(name) or (with_properties and rule.is_property(name))

        self._keeps = lru_cache(maxsize=4096)(keeps)  # called for every attribute of every measurement

    def warn_of_missing(self) -> None:
        """On the tenth collection, warn about attributes in the rule's ``dimensions`` that no measurement has had."""
        if next(self._collections) == _COLLECTIONS_BEFORE_WARNING and (missing := self._rule.missing(self._seen)):
            _each_minute.warning(
                (self._metric_name, *missing),
                "No measurement of %s had the attribute %s, which the metric's rule lists in dimensions. Attributes "
                "found: %s. If the rule misspells an attribute, correct it.",
                self._metric_name,
                " or ".join(missing),
                ", ".join(sorted(self._seen)),
            )

    def __contains__(self, name: object) -> bool:
        return name == NEGATIVE_KEY or self._keeps(str(name))


def seconds_until(deadline: float) -> float:
    """Return the seconds until a ``time.monotonic`` deadline.

    The result is clamped between 0 and the longest possible wait for a lock.
    """
    return min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)


def live_exporters() -> list[CloudWatchMetricExporter]:
    """Return the exporters of this process that are still referenced."""
    return list(_live_exporters)
