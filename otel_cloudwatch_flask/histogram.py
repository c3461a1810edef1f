"""Histograms as OpenTelemetry's data points describe them, and what adding and subtracting them means.

A histogram knows how many samples fell into which bucket, their sum and, mostly, the smallest and the largest.
Both kinds add up (several points become one CloudWatch metric), subtract (cumulative points become deltas), and list
their filled buckets, from which ``distribution`` makes the values that CloudWatch takes.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import compress
from typing import Final, NamedTuple

from otel_cloudwatch_flask.magnitudes import is_float

EDGE_TOLERANCE: Final = 1e-9
"""How far outside its bucket, relative to the edge, the SDK's rounding may put a minimum or maximum."""


class Bucket(NamedTuple):
    """So many ``samples`` between ``lower`` and ``upper``, edges included; an open end is infinite."""

    lower: float
    upper: float
    samples: int


@dataclass(frozen=True, slots=True)
class Extremes:
    """The smallest and the largest sample, or, where they are unknown, what they lie between.

    ``minimum`` and ``maximum`` are samples themselves; ``floor`` and ``ceiling`` only bound them.
    """

    minimum: float | None = None
    maximum: float | None = None
    floor: float = -math.inf
    ceiling: float = math.inf

    @classmethod
    def recorded(cls, minimum: float | None, maximum: float | None) -> "Extremes":
        """Those of a data point, where ``None`` and the SDK's inf and -inf say that one was not recorded."""
        minimum = None if minimum == math.inf else minimum
        maximum = None if maximum == -math.inf else maximum
        floor = -math.inf if minimum is None else minimum
        ceiling = math.inf if maximum is None else maximum
        return cls(minimum, maximum, floor, ceiling)

    def union(self, other: "Extremes") -> "Extremes":
        """Those of the samples of both."""
        return Extremes(
            None if self.minimum is None or other.minimum is None else min(self.minimum, other.minimum),
            None if self.maximum is None or other.maximum is None else max(self.maximum, other.maximum),
            min(self.floor, other.floor),
            max(self.ceiling, other.ceiling),
        )

    def since(self, previous: "Extremes") -> "Extremes":
        """Those of the samples added between two cumulative points: exact only where the newer one went further."""
        lowered = self.minimum is not None and self.minimum < previous.floor
        raised = self.maximum is not None and self.maximum > previous.ceiling
        return replace(self, minimum=self.minimum if lowered else None, maximum=self.maximum if raised else None)

    def mirrored(self) -> "Extremes":
        """Those of the same samples with the opposite sign."""
        return Extremes(
            None if self.maximum is None else -self.maximum,
            None if self.minimum is None else -self.minimum,
            -self.ceiling,
            -self.floor,
        )


@dataclass(frozen=True, slots=True)
class ExplicitHistogram:
    """Buckets with bounds of the user's choice: ``counts[i]`` samples above ``bounds[i-1]``, up to ``bounds[i]``."""

    count: int
    sum: float
    extremes: Extremes
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    factor: float = 1.0
    """What every number must be multiplied by to be in the datum's unit."""

    @property
    def layout(self) -> object:
        """Equal for histograms whose buckets can be added one by one."""
        return (self.bounds, self.factor)

    def plus(self, other: "ExplicitHistogram") -> "ExplicitHistogram":
        """Both together; the layouts must be equal."""
        counts = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        extremes = self.extremes.union(other.extremes)
        return replace(self, count=self.count + other.count, sum=self.sum + other.sum, extremes=extremes, counts=counts)

    def minus(self, previous: "ExplicitHistogram") -> "ExplicitHistogram | None":
        """What was added since an earlier cumulative point, or ``None`` if this is not its continuation."""
        if self.bounds != previous.bounds:
            return None
        counts = tuple(now - then for now, then in zip(self.counts, previous.counts, strict=True))
        if min(counts, default=0) < 0 or self.count < previous.count:
            return None
        extremes = self.extremes.since(previous.extremes)
        added = self.count - previous.count
        return replace(self, count=added, sum=self.sum - previous.sum, extremes=extremes, counts=counts)

    def mirrored(self) -> "ExplicitHistogram":
        """The same samples with the opposite sign."""
        bounds = tuple(-bound for bound in reversed(self.bounds))
        return replace(
            self, sum=-self.sum, extremes=self.extremes.mirrored(), bounds=bounds, counts=tuple(reversed(self.counts))
        )

    def buckets(self) -> list[Bucket]:
        """The filled buckets, ascending."""
        edges = (-math.inf, *self.bounds, math.inf)
        return [Bucket(edges[i], edges[i + 1], count) for i, count in enumerate(self.counts) if count]

    def outermost_buckets(self) -> tuple[Bucket, Bucket]:
        """The first and the last filled bucket of a histogram that has any."""
        buckets = self.buckets()
        return buckets[0], buckets[-1]

    def contradiction(self) -> str | None:
        """What makes these numbers impossible, or ``None``."""
        if len(self.counts) != len(self.bounds) + 1:
            return f"{len(self.bounds)} bounds and {len(self.counts)} counts"
        if not all(map(math.isfinite, self.bounds)):
            return "bounds that are no finite numbers"
        if any(not low < high for low, high in zip(self.bounds, self.bounds[1:], strict=False)):
            return "bounds that do not ascend"
        if min(self.counts) < 0:
            return "a negative count"
        return _contradiction(self, sum(self.counts))


@dataclass(frozen=True, slots=True)
class ExponentialHistogram:
    """Buckets whose bounds are powers of ``2 ** 2 ** -scale``; bucket ``i`` reaches from the ``i``-th to the next.

    ``positive`` and ``negative`` map the indices of filled buckets to their counts; ``negative`` by magnitude.
    """

    count: int
    sum: float
    extremes: Extremes
    scale: int
    zero_count: int = 0
    zero_threshold: float = 0.0
    positive: Mapping[int, int] = field(default_factory=dict)
    negative: Mapping[int, int] = field(default_factory=dict)
    factor: float = 1.0
    """What every number must be multiplied by to be in the datum's unit."""

    @property
    def layout(self) -> object:
        """Equal for histograms that can be added once they have a common scale."""
        return (ExponentialHistogram, self.zero_threshold, self.factor)

    def plus(self, other: "ExponentialHistogram") -> "ExponentialHistogram":
        """Both together, at the coarser of the two scales; the layouts must be equal."""
        scale = min(self.scale, other.scale)
        return replace(
            self,
            count=self.count + other.count,
            sum=self.sum + other.sum,
            extremes=self.extremes.union(other.extremes),
            scale=scale,
            zero_count=self.zero_count + other.zero_count,
            positive=_added(
                _downscaled(self.positive, self.scale - scale), _downscaled(other.positive, other.scale - scale)
            ),
            negative=_added(
                _downscaled(self.negative, self.scale - scale), _downscaled(other.negative, other.scale - scale)
            ),
        )

    def minus(self, previous: "ExponentialHistogram") -> "ExponentialHistogram | None":
        """What was added since an earlier cumulative point, or ``None`` if this is not its continuation."""
        scale = min(self.scale, previous.scale)
        added = self.count - previous.count
        zeros = self.zero_count - previous.zero_count
        positive = _subtracted(
            _downscaled(self.positive, self.scale - scale), _downscaled(previous.positive, previous.scale - scale)
        )
        negative = _subtracted(
            _downscaled(self.negative, self.scale - scale), _downscaled(previous.negative, previous.scale - scale)
        )
        if positive is None or negative is None or zeros < 0 or added < 0:
            return None
        return replace(
            self,
            count=added,
            sum=self.sum - previous.sum,
            extremes=self.extremes.since(previous.extremes),
            scale=scale,
            zero_count=zeros,
            positive=positive,
            negative=negative,
        )

    def mirrored(self) -> "ExponentialHistogram":
        """The same samples with the opposite sign."""
        return replace(
            self,
            sum=-self.sum,
            extremes=self.extremes.mirrored(),
            positive=self.negative,
            negative=self.positive,
        )

    def buckets(self) -> list[Bucket]:
        """The filled buckets, ascending."""
        negative = [self._negative_bucket(index) for index in sorted(self.negative, reverse=True)]
        zero = [self._zero_bucket()] if self.zero_count else []
        return negative + zero + [self._positive_bucket(index) for index in sorted(self.positive)]

    @property
    def filled_buckets(self) -> int:
        """The number of filled buckets."""
        return len(self.positive) + len(self.negative) + bool(self.zero_count)

    def outermost_buckets(self) -> tuple[Bucket, Bucket]:
        """The first and the last filled bucket of a histogram that has any."""
        return self._first_bucket(), self._last_bucket()

    def _first_bucket(self) -> Bucket:
        if self.negative:
            return self._negative_bucket(max(self.negative))
        return self._zero_bucket() if self.zero_count else self._positive_bucket(min(self.positive))

    def _last_bucket(self) -> Bucket:
        if self.positive:
            return self._positive_bucket(max(self.positive))
        return self._zero_bucket() if self.zero_count else self._negative_bucket(min(self.negative))

    def _positive_bucket(self, index: int) -> Bucket:
        return Bucket(edge(self.scale, index), edge(self.scale, index + 1), self.positive[index])

    def _negative_bucket(self, index: int) -> Bucket:
        return Bucket(-edge(self.scale, index + 1), -edge(self.scale, index), self.negative[index])

    def _zero_bucket(self) -> Bucket:
        return Bucket(-self.zero_threshold, self.zero_threshold, self.zero_count)

    def contradiction(self) -> str | None:
        """What makes these numbers impossible, or ``None``."""
        counts = (self.zero_count, *self.positive.values(), *self.negative.values())
        return "a negative count" if min(counts) < 0 else _contradiction(self, sum(counts))


Histogram = ExplicitHistogram | ExponentialHistogram


@lru_cache(maxsize=65_536)
def edge(scale: int, index: int) -> float:
    """The lower edge of an exponential bucket; 0 and inf stand for what no normal float holds.

    Numbers below the normal ones, down to 5e-324, are counted in the bucket of the smallest normal one:
    https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponential-scale.

    >>> edge(0, 3), edge(1, 1), edge(-10, 1)
    (8.0, 1.4142135623730951, inf)
    """
    if scale <= 0:
        return _power_of_two(index << -scale)
    exponent, part = divmod(index, 1 << scale)
    # Python's own power is correctly rounded here far more often than exp(log(2) * ...).
    return _power_of_two(exponent, 2.0 ** (part / (1 << scale)))


def _power_of_two(exponent: int, mantissa: float = 1.0) -> float:
    try:
        power = math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.inf
    return power if power >= sys.float_info.min else 0.0


def filled(offset: int, counts: Sequence[int]) -> dict[int, int]:
    """The filled buckets of a dense list of counts that starts at ``offset``, by ascending index."""
    # Most counts are 0, and there are up to 160: compress() skips them in C.
    return {index: counts[index - offset] for index in compress(range(offset, offset + len(counts)), counts)}


def _downscaled(buckets: Mapping[int, int], change: int) -> Mapping[int, int]:
    """The same samples in buckets ``2 ** change`` times as wide (on the logarithmic axis)."""
    if not change:
        return buckets
    wider: dict[int, int] = {}
    for index, count in buckets.items():
        wider[index >> change] = wider.get(index >> change, 0) + count
    return wider


def _added(first: Mapping[int, int], second: Mapping[int, int]) -> Mapping[int, int]:
    total = dict(first)
    for index, count in second.items():
        total[index] = total.get(index, 0) + count
    return total


def _subtracted(now: Mapping[int, int], then: Mapping[int, int]) -> Mapping[int, int] | None:
    difference = dict(now)
    for index, count in then.items():
        left = difference.get(index, 0) - count
        if left < 0:
            return None
        if left:
            difference[index] = left
        else:
            difference.pop(index, None)
    return difference


def _contradiction(histogram: Histogram, counted: int) -> str | None:
    if counted != histogram.count:
        return f"count {histogram.count}, but {counted} samples in the buckets"
    if not abs(histogram.sum) <= sys.float_info.max:  # NaN fails every comparison; an int may be beyond every float
        return "a sum beyond every float"
    return _extremes_contradiction(histogram) if histogram.count else None


def _extremes_contradiction(histogram: Histogram) -> str | None:
    extremes = histogram.extremes
    if not all(abs(bound) == math.inf or is_float(bound) for bound in (extremes.floor, extremes.ceiling)):
        return "a minimum or maximum that is not a number"
    if extremes.floor > extremes.ceiling:
        return f"a minimum of {extremes.floor} above the maximum of {extremes.ceiling}"
    first, last = histogram.outermost_buckets()
    if extremes.minimum is not None and not _holds(first, extremes.minimum):
        return f"a minimum of {extremes.minimum} outside the first filled bucket"
    if extremes.maximum is not None and not _holds(last, extremes.maximum):
        return f"a maximum of {extremes.maximum} outside the last filled bucket"
    return None


def _holds(bucket: Bucket, value: float) -> bool:
    below = bucket.lower - EDGE_TOLERANCE * abs(bucket.lower) if math.isfinite(bucket.lower) else bucket.lower
    above = bucket.upper + EDGE_TOLERANCE * abs(bucket.upper) if math.isfinite(bucket.upper) else bucket.upper
    return below <= value <= above
