"""Determine the name, unit, rule and dimensions with which each metric of a collection is published."""

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_cloudwatch_flask.limits import MAX_DIMENSIONS
from otel_cloudwatch_flask.model.datum import Series
from otel_cloudwatch_flask.model.dimensions import dimensions, metric_name, properties, text_of, within_limit
from otel_cloudwatch_flask.model.http_metrics import SYNONYMS
from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, FacadeMetric, facade_metric, reporter_of
from otel_cloudwatch_flask.model.units import NO_UNIT, ScaledUnit, from_ucum
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

_logger = logging.getLogger(__name__)

MetricKind = Literal["counter", "up-down counter", "gauge", "histogram"]
_KINDS: Final[Mapping[type, MetricKind]] = {sdk.Sum: "counter", sdk.Gauge: "gauge"}
_MAX_KINDS: Final = 10_000
"""Maximum number of metrics whose kind is stored. It bounds the memory if a program keeps creating metric names."""

Attributes = Mapping[str, Any]
_Texts = tuple[tuple[str, str], ...]
"""The names of attributes and the texts of their values, sorted by name."""


@dataclass(frozen=True, slots=True)
class MetricStream:
    """A metric of a collection, with the properties that all of its data points share."""

    identity: Hashable
    """The resource, scope, name and unit, which distinguish cumulative series with equal attributes."""
    name: str
    unit: ScaledUnit
    rule: MetricRule
    facade: FacadeMetric | None
    resource_attributes: _Texts
    data: sdk.DataT

    @property
    def key(self) -> Hashable:
        """A key that, together with a data point's attributes, determines the series of that data point."""
        return (self.name, self.unit.name, self.resource_attributes)

    @property
    def as_statistics(self) -> bool:
        """Whether to send ``StatisticValues`` instead of ``Values`` and ``Counts``."""
        return self.rule.distribution == "statistics"


class MetricStreams:
    """Selects the metrics of a collection that an exporter publishes.

    :param publishes: function that takes the ID of a reporter, or ``None`` for metrics that were not recorded
        through a reporter, and returns whether the exporter publishes those metrics.
    """

    def __init__(
        self, rules: Rules, *, resource_dimensions: Collection[str], publishes: Callable[[str | None], bool]
    ) -> None:
        self._rules = rules
        self._resource_dimensions = frozenset(resource_dimensions)
        self._publishes = publishes
        self._once = RateLimitedLog(_logger)
        self.kinds: dict[str, MetricKind] = {}
        """The kind of each published metric, by name. It determines which statistics are useful for the metric."""

    def of(self, data: sdk.MetricsData) -> Iterator[MetricStream]:
        """Yield those metrics of a collection that this exporter publishes and that no rule drops."""
        for resource_metrics in data.resource_metrics:
            # As texts, because keys contain them, and the values of attributes may be mappings, which are not hashable.
            attributes = resource_metrics.resource.attributes
            resource = tuple((key, text_of(attributes[key])) for key in sorted(attributes))
            named = tuple((key, text) for key, text in resource if key in self._resource_dimensions)
            for scope_metrics in resource_metrics.scope_metrics:
                if self._publishes(reporter_of(scope_metrics.scope)):
                    yield from self._in_scope(resource, scope_metrics.scope, scope_metrics.metrics, named)

    def series(self, stream: MetricStream, attributes: Attributes) -> tuple[Series, ...]:
        """Return the series of a data point with ``attributes``, ordered by increasing number of dimensions."""
        rule = stream.rule
        kept = dict(stream.resource_attributes)
        kept.update((key, value) for key, value in attributes.items() if rule.keeps(key))
        if stream.facade is not None:
            # As a dimension, the mark would split the metric into two series by sign.
            kept.pop(NEGATIVE_KEY, None)
        sets = (
            dimensions({key: kept[key] for key in self._within_limit(stream, wanted)})
            for wanted in rule.attribute_sets(kept)
        )
        made = (Series(stream.name, each, stream.unit.name, rule.storage_resolution) for each in sets)
        # Rollups come first: when max_metrics is nearly reached, a total is more useful than one of its parts.
        found = tuple(sorted(dict.fromkeys(made), key=lambda each: len(each.dimensions)))
        if rule.properties:
            in_document = {key: value for key, value in attributes.items() if key not in kept and rule.is_property(key)}
            for each in found:
                each.properties = properties(in_document)
        return found

    def _in_scope(
        self,
        resource: _Texts,
        scope: InstrumentationScope,
        metrics: Iterable[sdk.Metric],
        resource_attributes: _Texts,
    ) -> Iterator[MetricStream]:
        facade = facade_metric(scope)
        for metric in metrics:
            name = metric_name(metric.name if facade is None else facade.name)
            rule = self._rules.of(name)
            if not rule.drop:
                self._remember_kind(name, metric.data)
                identity = (resource, scope, name, metric.unit)
                yield MetricStream(identity, name, self._unit(metric), rule, facade, resource_attributes, metric.data)

    def _remember_kind(self, name: str, data: sdk.DataT) -> None:
        if len(self.kinds) >= _MAX_KINDS and name not in self.kinds:
            return
        kind = _KINDS.get(type(data), "histogram")
        self.kinds[name] = "up-down counter" if isinstance(data, sdk.Sum) and not data.is_monotonic else kind

    def _unit(self, metric: sdk.Metric) -> ScaledUnit:
        unit = from_ucum(metric.unit or "")
        if unit is None:
            self._once.warning(
                ("unit", metric.unit),
                "CloudWatch has no equivalent of the unit %r of %s: the metric is published without a unit. Use a UCUM "
                "unit such as 'ms', 'By' or '{request}', or one of CloudWatch's own.",
                metric.unit,
                metric.name,
            )
        return unit or NO_UNIT

    def _within_limit(self, stream: MetricStream, attributes: frozenset[str]) -> frozenset[str]:
        if len(attributes) <= MAX_DIMENSIONS:
            return attributes
        self._once.warning(
            ("dimensions", stream.name),
            "%s has %d attributes, but CloudWatch allows at most 30 dimensions. Attributes named in a rule or "
            "in resource_dimensions are kept first, then others in alphabetical order. Name the attributes to keep in "
            "MetricRule(dimensions=...).",
            stream.name,
            len(attributes),
        )
        named = {*(stream.rule.dimensions or ()), *self._resource_dimensions}
        return within_limit(attributes, {*named, *(SYNONYMS[name] for name in named if name in SYNONYMS)})
