"""Compare the figures in CloudWatch with figures that were counted independently."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from otel_cloudwatch_flask.histograms.values_counts import MAX_BUCKETS
from otel_cloudwatch_flask.model.datum import Series
from otel_cloudwatch_flask.observation.tally import percentiles
from otel_cloudwatch_flask.testing.published import dimensions_of

Figure: TypeAlias = Literal["samples", "sum", "min", "max", "p50", "p90", "p99"]
Figures: TypeAlias = Mapping[Figure, float | None]
"""The figures of a series. Percentiles are ``None`` for series with negative values, for which CloudWatch has none."""

PERCENTILES: Final[tuple[Figure, ...]] = ("p50", "p90", "p99")
FIGURES: Final[tuple[Figure, ...]] = ("samples", "sum", "min", "max", *PERCENTILES)

_LIMITS: Final[Mapping[Figure, tuple[Callable[..., float], str]]] = {"min": (min, "least"), "max": (max, "most")}
_ROUNDING: Final = 1e-9
"""The tolerance for rounding: relative to ``magnitude`` for sums, and to ``ratio`` for percentiles."""

# https://opentelemetry.io/docs/specs/otel/metrics/sdk/#base2-exponential-bucket-histogram-aggregation
_FINEST_SCALE, _COARSEST_SCALE = 20, -10


def series_of(name: str, unit: str = "None", /, **dimensions: object) -> Series:
    """Return a series whose dimensions are the keyword arguments."""
    return Series(name, dimensions_of(dimensions), unit)


@dataclass(frozen=True, slots=True)
class Expectation:
    """The figures that a series should have in CloudWatch, counted without using the metrics.

    :param counted_by: who counted the figures: the shop or its visitors.
    :param figures: the exact figures, except for the tolerances below.
    :param limits: a lower limit for ``min`` and an upper limit for ``max``, if their exact values are unknown.
    :param magnitude: sum of the absolute values of the samples. The tolerance for the sum is proportional to it.
    :param ratio: factor by which percentiles may differ: a histogram bucket's upper edge divided by its lower edge.
    """

    counted_by: str
    figures: Figures = field(default_factory=dict)
    limits: Figures = field(default_factory=dict)
    magnitude: float = 0.0
    ratio: float = 1.0

    def differences(self, found: Figures) -> Iterator[str]:
        """Yield a sentence for each figure found that differs from the expected figure or is outside its limit."""
        for name, known in self.figures.items():
            if not self._agrees(name, found.get(name), known):
                yield f"CloudWatch has {name}={found.get(name)!r}, expected {known!r}."
        for name, limit in self.limits.items():
            nearest, bound = _LIMITS[name]
            if nearest(found[name], limit) != limit:
                yield f"CloudWatch has {name}={found[name]!r}, expected at {bound} {limit!r}."

    def _agrees(self, name: Figure, found: float | None, known: float | None) -> bool:
        if found is None or known is None:
            return found is known
        if name == "sum":
            return abs(found - known) <= _ROUNDING * self.magnitude
        ratio = self.ratio * (1 + _ROUNDING) if name in PERCENTILES else 1.0
        return known / ratio <= found <= known * ratio


def samples(values: Sequence[float], counted_by: str = "shop") -> Expectation:
    """Expect the figures of ``values``, which are all the samples of a series and must not be empty."""
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
    """Expect only a sum, because a counter's number of samples depends on how often it is flushed."""
    return Expectation("shop", {"sum": amount}, magnitude=abs(amount))


def occurrences(number: int, longest: float) -> Expectation:
    """Expect ``number`` timings between 0 and ``longest``."""
    return Expectation("visitors", {"samples": number}, {"min": 0, "max": longest})


def between(smallest: float, largest: float) -> Expectation:
    """Expect only that all samples are within limits, because an up-down counter is sampled only when it is flushed."""
    return Expectation("visitors", limits={"min": smallest, "max": largest})


@dataclass(frozen=True, slots=True)
class Comparison:
    """The figures of a series in CloudWatch, and the expected figures.

    ``found`` is ``None`` if the series is missing from CloudWatch; ``expectation`` is ``None`` if the series was not
    expected.
    """

    series: Series
    found: Figures | None
    expectation: Expectation | None

    @property
    def differences(self) -> tuple[str, ...]:
        """A sentence for each difference."""
        if self.found is None:
            return ("Missing from CloudWatch.",)
        if self.expectation is None:
            return ("In CloudWatch, but not expected.",)
        return tuple(self.expectation.differences(self.found))


def compare(found: Mapping[Series, Figures], expected: Mapping[Series, Expectation]) -> list[Comparison]:
    """Compare every series that was found or expected, in sorted order."""
    return [Comparison(series, found.get(series), expected.get(series)) for series in sorted({*found, *expected})]


def bucket_ratio(values: Iterable[float]) -> float:
    """Return the ratio of a bucket's upper edge to its lower edge in an exponential histogram of ``values``.

    The SDK uses the finest scale at which the values fit into the maximum number of buckets.

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
