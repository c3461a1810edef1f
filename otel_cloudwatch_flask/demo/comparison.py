"""What CloudWatch says of a metric beside what somebody else counted, and wherein they differ. Pure."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from otel_cloudwatch_flask.histograms.values_counts import MAX_BUCKETS
from otel_cloudwatch_flask.observation.tally import percentiles

Figure: TypeAlias = Literal["samples", "sum", "min", "max", "p50", "p90", "p99"]
Figures: TypeAlias = Mapping[Figure, float | None]
"""What is known of a metric; CloudWatch has no percentiles where a value is negative."""

PERCENTILES: Final[tuple[Figure, ...]] = ("p50", "p90", "p99")
FIGURES: Final[tuple[Figure, ...]] = ("samples", "sum", "min", "max", *PERCENTILES)

_LIMITS: Final[Mapping[Figure, tuple[Callable[..., float], str]]] = {"min": (min, "less"), "max": (max, "more")}
_ROUNDING: Final = 1e-9
"""How much of the sum of magnitudes a sum may be off."""

# https://opentelemetry.io/docs/specs/otel/metrics/sdk/#base2-exponential-bucket-histogram-aggregation
_FINEST_SCALE, _COARSEST_SCALE = 20, -10


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """One metric in CloudWatch, in one unit; ``dimensions`` are sorted pairs of name and value."""

    name: str
    dimensions: tuple[tuple[str, str], ...] = ()
    unit: str = "None"

    @classmethod
    def of(cls, name: str, unit: str = "None", /, **dimensions: object) -> "Series":
        """A series, its dimensions written as keyword arguments."""
        return cls(name, tuple(sorted((key, str(value)) for key, value in dimensions.items())), unit)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What somebody else than CloudWatch knows of a series.

    Of ``figures`` the sum may be off by rounding, where values of that ``magnitude`` were added up, and percentiles by
    the ratio of a bucket's edges; the others must be the same. ``limits`` are how small ``min`` and how large ``max``
    may be, where they are not known.
    """

    counted_by: str
    figures: Figures = field(default_factory=dict)
    limits: Figures = field(default_factory=dict)
    magnitude: float = 0.0
    ratio: float = 1.0

    def differences(self, found: Figures) -> Iterator[str]:
        """What CloudWatch should not have said, in sentences."""
        for name, known in self.figures.items():
            if not self._agrees(name, found.get(name), known):
                yield f"CloudWatch says {name} {found.get(name)!r}, which should be {known!r}."
        for name, limit in self.limits.items():
            nearest, beyond = _LIMITS[name]
            if nearest(found[name], limit) != limit:
                yield f"CloudWatch says {name} {found[name]!r}, which cannot be {beyond} than {limit!r}."

    def _agrees(self, name: Figure, found: float | None, known: float | None) -> bool:
        if found is None or known is None:
            return found is known
        if name == "sum":
            return abs(found - known) <= _ROUNDING * self.magnitude
        ratio = self.ratio * (1 + _ROUNDING) if name in PERCENTILES else 1.0
        return known / ratio <= found <= known * ratio


def samples(values: Sequence[float], counted_by: str = "shop") -> Expectation:
    """Every sample is known, and so is everything else: of ``add_metric`` and histograms."""
    ordered = sorted(values)
    found = percentiles(ordered, [1] * len(ordered), [float(name.removeprefix("p")) for name in PERCENTILES])
    figures: dict[Figure, float | None] = {
        "samples": len(ordered),
        "sum": math.fsum(ordered),
        "min": ordered[0],
        "max": ordered[-1],
        **dict(zip(PERCENTILES, found if ordered[0] >= 0 else [None] * len(found), strict=True)),
    }
    return Expectation(counted_by, figures, magnitude=math.fsum(map(abs, ordered)), ratio=bucket_ratio(ordered))


def total(amount: float) -> Expectation:
    """The sum is known, not in how many flushes it arrived: of counters."""
    return Expectation("shop", {"sum": amount}, magnitude=abs(amount))


def occurrences(number: int, longest: float) -> Expectation:
    """It is known how often something was timed, and that it took no longer than ``longest``."""
    return Expectation("visitors", {"samples": number}, {"min": 0, "max": longest})


def between(smallest: float, largest: float) -> Expectation:
    """The value goes up and down within limits, and each flush publishes what it is: of up-down counters."""
    return Expectation("visitors", limits={"min": smallest, "max": largest})


@dataclass(frozen=True, slots=True)
class Comparison:
    """A series on both sides; one of them may know nothing of it, and that is a difference too."""

    series: Series
    found: Figures | None
    expectation: Expectation | None

    @property
    def differences(self) -> tuple[str, ...]:
        """Wherein the sides differ, in sentences."""
        if self.found is None:
            return ("It is not in CloudWatch.",)
        if self.expectation is None:
            return ("It is in CloudWatch, and nobody counted it.",)
        return tuple(self.expectation.differences(self.found))


def compare(found: Mapping[Series, Figures], expected: Mapping[Series, Expectation]) -> list[Comparison]:
    """All series of both sides, sorted."""
    return [Comparison(series, found.get(series), expected.get(series)) for series in sorted({*found, *expected})]


def bucket_ratio(values: Iterable[float]) -> float:
    """How many times its lower edge is the upper edge of an exponential histogram's bucket, if these are its values.

    The SDK takes the finest scale at which they fit in as many buckets as the exporter asks for.

    >>> round(bucket_ratio((1, 1000)), 3)
    1.091
    """
    magnitudes = [abs(value) for value in values if value]
    if not magnitudes:
        return 1.0
    low, high = math.log2(min(magnitudes)), math.log2(max(magnitudes))
    for scale in range(_FINEST_SCALE, _COARSEST_SCALE, -1):
        if math.ceil(math.ldexp(high, scale)) - math.ceil(math.ldexp(low, scale)) < MAX_BUCKETS - 1:
            break
    return math.pow(2, math.ldexp(1, -scale))
