"""What CloudWatch says of a metric beside what somebody else counted, and wherein they differ. Pure."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from otel_cloudwatch_flask.distribution import MAX_BUCKETS
from otel_cloudwatch_flask.tally import percentiles

Figure: TypeAlias = Literal["samples", "sum", "min", "max", "p50", "p90", "p99"]
Figures: TypeAlias = Mapping[Figure, float]
"""What is known of a metric; CloudWatch has no percentiles where a value is negative."""

PERCENTILES: Final[tuple[Figure, ...]] = ("p50", "p90", "p99")
FIGURES: Final[tuple[Figure, ...]] = ("samples", "sum", "min", "max", *PERCENTILES)

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


class Expectation(Protocol):
    """What somebody else than CloudWatch knows of a series."""

    @property
    def counted_by(self) -> str:
        """Who it is."""

    def figures(self) -> Figures:
        """Their figures, as far as they know any."""

    def limits(self) -> Figures:
        """Where they only know how small ``min`` and how large ``max`` may be."""

    def differences(self, found: Figures) -> Iterator[str]:
        """What CloudWatch should not have said, in sentences."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Every sample is known, and so is everything else: of ``add_metric`` and histograms."""

    values: tuple[float, ...]
    counted_by: str = "shop"

    def figures(self) -> Figures:
        """All of them."""
        every: dict[Figure, float] = {
            "samples": len(self.values),
            "sum": math.fsum(self.values),
            "min": min(self.values),
            "max": max(self.values),
        }
        if every["min"] >= 0:
            percents = [float(name.removeprefix("p")) for name in PERCENTILES]
            found = percentiles(sorted(self.values), [1] * len(self.values), percents)
            every.update(zip(PERCENTILES, found, strict=True))
        return every

    def limits(self) -> Figures:
        """None."""
        return {}

    def differences(self, found: Figures) -> Iterator[str]:
        """Counts, smallest and largest must be the same, the sum but for rounding, percentiles to a bucket."""
        known = self.figures()
        for name in ("samples", "min", "max"):
            if found.get(name) != known[name]:
                yield _difference(name, found.get(name), known[name])
        if not _is_same_sum(found.get("sum"), known["sum"], math.fsum(map(abs, self.values))):
            yield _difference("sum", found.get("sum"), known["sum"])
        for name in PERCENTILES:
            if not _is_within_bucket(found.get(name), known.get(name), bucket_ratio(self.values)):
                yield _difference(name, found.get(name), known.get(name))


@dataclass(frozen=True, slots=True)
class Total:
    """The sum is known, not in how many flushes it arrived: of counters."""

    total: float
    counted_by: str = "shop"

    def figures(self) -> Figures:
        """The sum alone."""
        return {"sum": self.total}

    def limits(self) -> Figures:
        """None."""
        return {}

    def differences(self, found: Figures) -> Iterator[str]:
        """The sum must be the same, but for rounding."""
        if not _is_same_sum(found.get("sum"), self.total, abs(self.total)):
            yield _difference("sum", found.get("sum"), self.total)


@dataclass(frozen=True, slots=True)
class Occurrences:
    """It is known how often something was timed, and that it took no longer than ``longest``."""

    samples: int
    longest: float
    counted_by: str = "visitors"

    def figures(self) -> Figures:
        """The number of samples."""
        return {"samples": self.samples}

    def limits(self) -> Figures:
        """What no time can be."""
        return {"min": 0, "max": self.longest}

    def differences(self, found: Figures) -> Iterator[str]:
        """The number must be the same, the times possible."""
        if found.get("samples") != self.samples:
            yield _difference("samples", found.get("samples"), self.samples)
        yield from _excesses(found, self.limits())


@dataclass(frozen=True, slots=True)
class Between:
    """The value goes up and down within limits, and each flush publishes what it is: of up-down counters."""

    smallest: float
    largest: float
    counted_by: str = "shop"

    def figures(self) -> Figures:
        """None."""
        return {}

    def limits(self) -> Figures:
        """Both limits."""
        return {"min": self.smallest, "max": self.largest}

    def differences(self, found: Figures) -> Iterator[str]:
        """The limits must hold."""
        yield from _excesses(found, self.limits())


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


def bucket_ratio(values: tuple[float, ...]) -> float:
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


def _is_same_sum(found: float | None, known: float, magnitude: float) -> bool:
    return found is not None and abs(found - known) <= _ROUNDING * magnitude


def _is_within_bucket(found: float | None, known: float | None, ratio: float) -> bool:
    if found is None or known is None:
        return found is known
    ratio *= 1 + _ROUNDING
    return known / ratio <= found <= known * ratio


def _excesses(found: Figures, limits: Figures) -> Iterator[str]:
    if found["min"] < limits["min"]:
        yield f"CloudWatch says min {found['min']!r}, which cannot be less than {limits['min']!r}."
    if found["max"] > limits["max"]:
        yield f"CloudWatch says max {found['max']!r}, which cannot be more than {limits['max']!r}."


def _difference(name: str, found: float | None, known: float | None) -> str:
    said = "nothing" if found is None else repr(found)
    return f"CloudWatch says {name} {said}, which should be {known!r}."
