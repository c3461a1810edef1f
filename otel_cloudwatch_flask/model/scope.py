"""How a name that somebody gave to ``add_metric`` travels through OpenTelemetry.

The SDK lower-cases instrument names and refuses blanks and leading digits, so ``Request Count`` cannot be the name of
an instrument. It travels beside it: each facade metric has a meter of its own, whose instrumentation scope carries the
name and the reporter it belongs to as scope attributes. Any exporter sees them; ours turns them back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from opentelemetry.sdk.util.instrumentation import InstrumentationScope

SCOPE_NAME: Final = "otel_cloudwatch_flask"
"""The beginning of each scope's name. The metric's name is the rest: the SDK looks scopes up by a hash that leaves
their attributes out, so that hundreds of one name would make every collection quadratic.
"""
METRIC_NAME_KEY: Final = "aws.cloudwatch.metric_name"
REPORTER_KEY: Final = "aws.cloudwatch.reporter"
NEGATIVE_KEY: Final = "aws.cloudwatch.negative"
"""Marks a data point whose samples were negative: OpenTelemetry's histograms take magnitudes only."""


class ScopeName(str):
    """The name of a reporter's scope. Equal to the plain name, but its hash depends on the reporter.

    The SDK looks scopes up by a hash without their attributes: the scopes of N reporters, of one name each, would be
    compared N times N times.
    """

    __slots__ = ("_hash",)

    _hash: int

    def __new__(cls, name: str, reporter: str = "") -> "ScopeName":  # noqa: PYI034 - Python 3.10's typing has no Self
        """Create the name of one reporter's scope."""
        scope_name = super().__new__(cls, name)
        scope_name._hash = hash((name, reporter))
        return scope_name

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class FacadeMetric:
    """The CloudWatch name of a facade metric and the identity of the reporter it belongs to."""

    name: str
    reporter: str

    @property
    def scope_name(self) -> str:
        """The name of the instrumentation scope that carries this metric."""
        return ScopeName(f"{SCOPE_NAME}.{self.name}", self.reporter)

    def scope_attributes(self) -> dict[str, str]:
        """The attributes of the instrumentation scope that carries this metric."""
        return {METRIC_NAME_KEY: self.name, REPORTER_KEY: self.reporter}


def facade_metric(scope: InstrumentationScope) -> FacadeMetric | None:
    """The facade metric that an instrumentation scope carries, or ``None`` for anybody else's scope."""
    if not scope.name.startswith(SCOPE_NAME):
        return None
    attributes: Mapping[str, object] = scope.attributes or {}
    name, reporter = attributes.get(METRIC_NAME_KEY), attributes.get(REPORTER_KEY)
    return FacadeMetric(name, reporter) if isinstance(name, str) and isinstance(reporter, str) else None


def reporter_of(scope: InstrumentationScope) -> str | None:
    """The reporter that the metrics of an instrumentation scope belong to, or ``None`` if they are nobody's own.

    Not only a facade's: a reporter that instruments an app marks the meters of that, too.
    """
    attributes = scope.attributes
    if attributes is None:
        return None
    reporter = attributes.get(REPORTER_KEY)
    return reporter if isinstance(reporter, str) else None
