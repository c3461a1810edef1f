"""Instrumentation scopes that preserve the names passed to ``add_metric``, which OpenTelemetry would reject or change.

The SDK converts instrument names to lower case, and rejects spaces and leading digits, so ``Request Count`` cannot be
the name of an instrument. A metric recorded with ``add_metric`` (a "facade metric") therefore has a separate meter. The
meter's scope attributes contain the metric's name and its reporter, and this package's exporter restores the name from
them.
"""

from dataclasses import dataclass
from typing import Final

from opentelemetry.sdk.util.instrumentation import InstrumentationScope

SCOPE_NAME: Final = "otel_cloudwatch_flask"
"""The prefix of scope names. The metric's name follows it, because the SDK looks up scopes by a hash that ignores
attributes: with a single name for all scopes, the time of a collection would be quadratic in the number of scopes.
"""
METRIC_NAME_KEY: Final = "aws.cloudwatch.metric_name"
REPORTER_KEY: Final = "aws.cloudwatch.reporter"
NEGATIVE_KEY: Final = "aws.cloudwatch.negative"
"""Marks negative samples recorded as absolute values, because OpenTelemetry's histograms drop negative values."""


class ScopeName(str):
    """The name of a reporter's scope. It equals the plain string, but has the reporter's ID, on which its hash depends.

    The SDK looks up scopes by a hash that ignores their attributes. With plain names, the scopes of N reporters that
    use the same metric name would collide, and looking them all up would take about N * N comparisons.
    """

    __slots__ = ("_hash", "reporter")

    _hash: int
    reporter: str

    def __new__(cls, name: str, reporter: str = "") -> "ScopeName":  # noqa: PYI034 - Python 3.10's typing has no Self
        """Create the name of one reporter's scope."""
        scope_name = super().__new__(cls, name)
        scope_name.reporter, scope_name._hash = reporter, hash((name, reporter))
        return scope_name

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class FacadeMetric:
    """The name passed to ``add_metric``, and the ID of the reporter."""

    name: str
    reporter: str

    @property
    def scope_name(self) -> str:
        """The name of the instrumentation scope that carries this metric."""
        return ScopeName(f"{SCOPE_NAME}.{self.name}", self.reporter)

    def scope_attributes(self) -> dict[str, str]:
        """Return the attributes of the instrumentation scope that carries this metric."""
        return {METRIC_NAME_KEY: self.name, REPORTER_KEY: self.reporter}


def facade_metric(scope: InstrumentationScope) -> FacadeMetric | None:
    """Return the facade metric that an instrumentation scope carries, or ``None`` for any other scope."""
    if not scope.name.startswith(SCOPE_NAME):
        return None
    name, reporter = (scope.attributes or {}).get(METRIC_NAME_KEY), reporter_of(scope)
    return FacadeMetric(name, reporter) if isinstance(name, str) and reporter is not None else None


def reporter_of(scope: InstrumentationScope) -> str | None:
    """Return the ID of the reporter that a scope belongs to, or ``None`` if it belongs to no reporter.

    A reporter with ``instrument=True`` also marks the scopes of the Flask instrumentation.
    """
    name = scope.name
    if type(name) is ScopeName:  # faster than the attributes
        return name.reporter
    reporter = (scope.attributes or {}).get(REPORTER_KEY)
    return reporter if isinstance(reporter, str) else None
