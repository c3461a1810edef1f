"""Instrumentation scopes that carry the names given to ``add_metric`` through OpenTelemetry.

The SDK lower-cases instrument names and refuses blanks and leading digits, so ``Request Count`` cannot be the name of
an instrument. Therefore each facade metric has its own meter, whose instrumentation scope has the name and the reporter
as scope attributes. Every exporter sees them; ours restores the name from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from opentelemetry.sdk.util.instrumentation import InstrumentationScope

SCOPE_NAME: Final = "otel_cloudwatch_flask"
"""Prefix of each scope's name, followed by the metric's name. The SDK looks scopes up by a hash without their
attributes, so hundreds of scopes with the same name would make every collection quadratic.
"""
METRIC_NAME_KEY: Final = "aws.cloudwatch.metric_name"
REPORTER_KEY: Final = "aws.cloudwatch.reporter"
NEGATIVE_KEY: Final = "aws.cloudwatch.negative"
"""Marks a data point with negative samples, recorded as absolute values: OpenTelemetry's histograms drop negatives."""


@dataclass(frozen=True, slots=True)
class FacadeMetric:
    """The CloudWatch name of a facade metric and the identity of the reporter it belongs to."""

    name: str
    reporter: str

    @property
    def scope_name(self) -> str:
        """The name of the instrumentation scope that carries this metric."""
        return f"{SCOPE_NAME}.{self.name}"

    def scope_attributes(self) -> dict[str, str]:
        """The attributes of the instrumentation scope that carries this metric."""
        return {METRIC_NAME_KEY: self.name, REPORTER_KEY: self.reporter}


def facade_metric(scope: InstrumentationScope) -> FacadeMetric | None:
    """Return the facade metric that an instrumentation scope carries, or ``None`` for any other scope."""
    if not scope.name.startswith(SCOPE_NAME):
        return None
    attributes: Mapping[str, object] = scope.attributes or {}
    name, reporter = attributes.get(METRIC_NAME_KEY), attributes.get(REPORTER_KEY)
    return FacadeMetric(name, reporter) if isinstance(name, str) and isinstance(reporter, str) else None


def reporter_of(scope: InstrumentationScope) -> str | None:
    """Return the reporter that the metrics of an instrumentation scope belong to, or ``None``.

    Besides facade metrics, a reporter with ``instrument=True`` also marks the meters of the instrumentation.
    """
    reporter = (scope.attributes or {}).get(REPORTER_KEY)
    return reporter if isinstance(reporter, str) else None
