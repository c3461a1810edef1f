"""OpenTelemetry's metrics as CloudWatch's datums: no clock, no network, no thread."""

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_cloudwatch_flask.cardinality import CardinalityGuard
from otel_cloudwatch_flask.datum import Datum, Series
from otel_cloudwatch_flask.dimensions import dimensions, metric_name, within_limit
from otel_cloudwatch_flask.facade_scope import NEGATIVE_KEY, FacadeMetric, facade_metric, reporter_of
from otel_cloudwatch_flask.limits import MAX_DIMENSIONS
from otel_cloudwatch_flask.merging import Merger
from otel_cloudwatch_flask.points import InvalidPointError, PointReader, negated
from otel_cloudwatch_flask.quiet_log import QuietLog
from otel_cloudwatch_flask.rules import MetricRule, Rules
from otel_cloudwatch_flask.units import NO_UNIT, ScaledUnit, from_ucum

_logger = logging.getLogger(__name__)

_NANOS: Final = 1_000_000_000
_INVALID_LOG_SECONDS: Final = 60.0
_MAX_CACHED_SERIES: Final = 20_000

_Attributes = Mapping[str, Any]
_NO_ATTRIBUTES: Final[_Attributes] = {}


class _SeriesCache:
    """The series that one metric's points are published as.

    The SDK hands over the same attributes object for a series in every collection, so mostly its identity is enough;
    the cache keeps the object, so that no other can take its place in memory.
    """

    def __init__(self) -> None:
        self.by_identity: dict[int, tuple[_Attributes, tuple[Series, ...]]] = {}


@dataclass(frozen=True, slots=True)
class _Source:
    """Where points come from, and what that decides for all of them."""

    identity: Hashable
    """Scope, name and unit: what tells cumulative series apart whose attributes are equal."""
    name: str
    unit: ScaledUnit
    rule: MetricRule
    facade: FacadeMetric | None
    resource_attributes: tuple[tuple[str, Any], ...]
    cache: _SeriesCache


class Mapper:
    """Turn what a collection brought into datums, remembering what the next collection needs.

    ``publishes`` says whether the metrics of a reporter, or those that are nobody's (``None``), are published here.
    ``lost`` is told how many points have numbers that cannot be sent. Not safe to use from several threads at once.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        resource_dimensions: Collection[str],
        guard: CardinalityGuard,
        start_unix_nano: int,
        publishes: Callable[[str | None], bool],
        lost: Callable[[int], None],
    ) -> None:
        self._rules = rules
        self._resource_dimensions = frozenset(resource_dimensions)
        self._guard = guard
        self._publishes = publishes
        self._lost = lost
        self._points = PointReader(start_unix_nano)
        self._caches: dict[object, _SeriesCache] = {}
        self._cached_series = 0
        self._once = QuietLog(_logger)
        self._each_minute = QuietLog(_logger, interval_seconds=_INVALID_LOG_SECONDS)

    def datums(self, data: sdk.MetricsData) -> list[Datum]:
        """The datums of one collection: one for each series, with all that was published of it."""
        merger = Merger()
        for source, metric in self._sources(data):
            for point in metric.data.data_points:
                self._add_point(merger, source, metric.data, point)
        datums = list(merger.datums())
        self._lost(datums.count(None))
        return [datum for datum in datums if datum is not None]

    def _sources(self, data: sdk.MetricsData) -> Iterator[tuple[_Source, sdk.Metric]]:
        for resource_metrics in data.resource_metrics:
            attributes = resource_metrics.resource.attributes
            named = tuple((key, attributes[key]) for key in sorted(self._resource_dimensions & attributes.keys()))
            for scope_metrics in resource_metrics.scope_metrics:
                if self._publishes(reporter_of(scope_metrics.scope)):
                    facade = facade_metric(scope_metrics.scope)
                    yield from self._sources_in_scope(scope_metrics.scope, facade, named, scope_metrics.metrics)

    def _sources_in_scope(
        self,
        scope: InstrumentationScope,
        facade: FacadeMetric | None,
        resource_attributes: tuple[tuple[str, Any], ...],
        metrics: Iterable[sdk.Metric],
    ) -> Iterator[tuple[_Source, sdk.Metric]]:
        for metric in metrics:
            name = metric_name(metric.name if facade is None else facade.name)
            rule = self._rules.of(name)
            if not rule.drop:
                unit = self._unit(metric)
                key = (name, unit.name, resource_attributes)
                cache = self._caches.get(key) or self._caches.setdefault(key, _SeriesCache())
                identity = (scope, name, metric.unit)
                yield _Source(identity, name, unit, rule, facade, resource_attributes, cache), metric

    def _unit(self, metric: sdk.Metric) -> ScaledUnit:
        unit = from_ucum(metric.unit or "")
        if unit is None:
            self._once.warning(
                ("unit", metric.unit),
                "CloudWatch has no unit for %r, the unit of %s: it is published without one. Use a UCUM unit such as "
                "'ms', 'By' or '{request}', or one of CloudWatch's own.",
                metric.unit,
                metric.name,
            )
        return unit or NO_UNIT

    def _add_point(self, merger: Merger, source: _Source, data: sdk.DataT, point: sdk.DataPointT) -> None:
        try:
            self._add_valid_point(merger, source, data, point)
        except InvalidPointError as error:
            self._invalid(source, error)
        except Exception:  # noqa: BLE001 - the boundary to whatever a producer may put into a point: it costs nothing but itself
            self._lost(1)
            self._each_minute.log(
                logging.ERROR, ("error", source.name), "A data point of %s is lost.", source.name, exc_info=True
            )

    def _add_valid_point(self, merger: Merger, source: _Source, data: sdk.DataT, point: sdk.DataPointT) -> None:
        amount = self._points.amount(source.identity, data, point, source.unit.factor)
        if amount is None:
            return
        attributes: _Attributes = _NO_ATTRIBUTES if point.attributes is None else point.attributes
        if source.facade is not None and NEGATIVE_KEY in attributes:
            amount = negated(amount)
        as_statistics = source.rule.distribution == "statistics"
        unix_seconds = point.time_unix_nano // _NANOS
        for series in self._admitted(self._series(source, attributes)):
            merger.add(series, amount, unix_seconds=unix_seconds, as_statistics=as_statistics)

    def _invalid(self, source: _Source, error: InvalidPointError) -> None:
        self._lost(1)
        self._each_minute.warning(
            ("invalid", source.name),
            "A data point of %s has %s: CloudWatch takes no such number, so this point is lost. Others are not.",
            source.name,
            error,
        )

    def _admitted(self, series: tuple[Series, ...]) -> Iterator[Series]:
        """Those that have a place. Of a point that is to be published in full, the overflow series takes its place."""
        *coarser, finest = series
        for each in coarser:
            if self._place_of(each) is each:
                yield each
        yield self._place_of(finest)

    def _place_of(self, series: Series) -> Series:
        admitted = self._guard.admit(series)
        if admitted is not series:
            self._once.warning(
                ("overflow", series.name),
                "%s has more combinations of dimensions than max_metrics leaves room for: further ones are published "
                "as its overflow series (otel.metric.overflow=true). Drop a dimension with a MetricRule, or raise "
                "max_metrics; each metric costs up to $0.30 a month.",
                series.name,
            )
        return admitted

    def _series(self, source: _Source, attributes: _Attributes) -> tuple[Series, ...]:
        """The series that a point with these attributes is published as, the one with most dimensions last."""
        known = source.cache.by_identity.get(id(attributes))
        if known is not None and known[0] is attributes:
            return known[1]
        series = self._made_series(source, attributes)
        if self._cached_series >= _MAX_CACHED_SERIES:
            self._caches.clear()
            self._cached_series = 0
        source.cache.by_identity[id(attributes)] = (attributes, series)
        self._cached_series += 1
        return series

    def _made_series(self, source: _Source, attributes: _Attributes) -> tuple[Series, ...]:
        rule = source.rule
        kept = dict(source.resource_attributes)
        kept.update((key, value) for key, value in attributes.items() if rule.keeps(key))
        if source.facade is not None:
            kept.pop(NEGATIVE_KEY, None)
        sets = (
            dimensions({key: kept[key] for key in self._within_limit(source, wanted)})
            for wanted in rule.attribute_sets(kept)
        )
        made = (Series(source.name, each, source.unit.name, rule.storage_resolution) for each in sets)
        # Totals first: where places run out, they are worth more than what they are the totals of.
        return tuple(sorted(dict.fromkeys(made), key=lambda each: len(each.dimensions)))

    def _within_limit(self, source: _Source, attributes: frozenset[str]) -> frozenset[str]:
        if len(attributes) <= MAX_DIMENSIONS:
            return attributes
        self._once.warning(
            ("dimensions", source.name),
            "%s has %d attributes, CloudWatch takes 30 dimensions: those that a rule names stay first, then those "
            "that come first in the alphabet. Name the ones to keep with MetricRule(dimensions=...).",
            source.name,
            len(attributes),
        )
        return within_limit(attributes, {*(source.rule.dimensions or ()), *self._resource_dimensions})
