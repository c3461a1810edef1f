"""The metric streams of a collection, and what all points of one have in common: name, unit, rule, dimensions."""

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_cloudwatch_flask.limits import MAX_DIMENSIONS
from otel_cloudwatch_flask.model.datum import Series
from otel_cloudwatch_flask.model.dimensions import dimensions, metric_name, within_limit
from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, FacadeMetric, facade_metric, reporter_of
from otel_cloudwatch_flask.model.units import NO_UNIT, ScaledUnit, from_ucum
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

_logger = logging.getLogger(__name__)

Attributes = Mapping[str, Any]
_NamedAttributes = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class MetricStream:
    """One metric of a collection."""

    identity: Hashable
    """Scope, name and unit: what tells cumulative series apart whose attributes are equal."""
    name: str
    unit: ScaledUnit
    rule: MetricRule
    facade: FacadeMetric | None
    resource_attributes: _NamedAttributes
    data: sdk.DataT

    @property
    def key(self) -> Hashable:
        """Decides, together with a point's attributes, which series it is published as."""
        return (self.name, self.unit.name, self.resource_attributes)

    @property
    def as_statistics(self) -> bool:
        """Whether statistic sets are sent instead of values."""
        return self.rule.distribution == "statistics"

    def factor(self, attributes: Attributes) -> float:
        """Converts the numbers of a point with these attributes to the unit and the sign in which they are published.

        OpenTelemetry's histograms take no negative samples: the facade records their magnitudes, and marks them.
        """
        is_negative = self.facade is not None and NEGATIVE_KEY in attributes
        return -self.unit.factor if is_negative else self.unit.factor


class MetricStreams:
    """Find the metrics of a collection that this exporter publishes.

    ``publishes`` tells that of a reporter's metrics, and of those that belong to no reporter (``None``).
    """

    def __init__(
        self, rules: Rules, *, resource_dimensions: Collection[str], publishes: Callable[[str | None], bool]
    ) -> None:
        self._rules = rules
        self._resource_dimensions = frozenset(resource_dimensions)
        self._publishes = publishes
        self._once = RateLimitedLog(_logger)

    def of(self, data: sdk.MetricsData) -> Iterator[MetricStream]:
        """The metrics of a collection that no rule drops."""
        for resource_metrics in data.resource_metrics:
            attributes = resource_metrics.resource.attributes
            named = tuple((key, attributes[key]) for key in sorted(self._resource_dimensions & attributes.keys()))
            for scope_metrics in resource_metrics.scope_metrics:
                if self._publishes(reporter_of(scope_metrics.scope)):
                    yield from self._in_scope(scope_metrics.scope, scope_metrics.metrics, named)

    def series(self, stream: MetricStream, attributes: Attributes) -> tuple[Series, ...]:
        """The series that a point with these attributes is published as, the one with most dimensions last."""
        rule = stream.rule
        kept = dict(stream.resource_attributes)
        kept.update((key, rule.published_value(key, value)) for key, value in attributes.items() if rule.keeps(key))
        if stream.facade is not None:
            kept.pop(NEGATIVE_KEY, None)
        sets = (
            dimensions({key: kept[key] for key in self._within_limit(stream, wanted)})
            for wanted in rule.attribute_sets(kept)
        )
        made = (Series(stream.name, each, stream.unit.name, rule.storage_resolution) for each in sets)
        # Totals first: where places run out, they are worth more than what they are the totals of.
        return tuple(sorted(dict.fromkeys(made), key=lambda each: len(each.dimensions)))

    def _in_scope(
        self, scope: InstrumentationScope, metrics: Iterable[sdk.Metric], resource_attributes: _NamedAttributes
    ) -> Iterator[MetricStream]:
        facade = facade_metric(scope)
        for metric in metrics:
            name = metric_name(metric.name if facade is None else facade.name)
            rule = self._rules.of(name)
            if not rule.drop:
                identity = (scope, name, metric.unit)
                yield MetricStream(identity, name, self._unit(metric), rule, facade, resource_attributes, metric.data)

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

    def _within_limit(self, stream: MetricStream, attributes: frozenset[str]) -> frozenset[str]:
        if len(attributes) <= MAX_DIMENSIONS:
            return attributes
        self._once.warning(
            ("dimensions", stream.name),
            "%s has %d attributes, CloudWatch takes 30 dimensions: those that a rule names stay first, then those "
            "that come first in the alphabet. Name the ones to keep with MetricRule(dimensions=...).",
            stream.name,
            len(attributes),
        )
        return within_limit(attributes, {*(stream.rule.dimensions or ()), *self._resource_dimensions})
