"""Estimate where the samples of wide buckets lie, from the neighboring buckets and the recorded sum.

The density of samples is assumed to change linearly from one edge of a bucket to the other. At an edge shared by two
buckets, the density is the weighted harmonic mean of their average densities, as in monotone cubic interpolation
(https://doi.org/10.1137/0905021), which introduces no peaks. Buckets with a positive lower edge, unless they are
very narrow, use a logarithmic axis, on which the distributions of latencies and sizes are smooth. All densities are
then tilted toward higher or lower values until the mean of the samples equals the recorded mean.

Each bucket is divided into narrower buckets that follow the estimated density. The sum then requires only a small
correction to be exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from otel_cloudwatch_flask.histograms.buckets import Bucket, Buckets

_FEW: Final = 4
"""A bucket with at most this many samples is not divided: more values would cost bytes and add no information."""

_STEEPEST: Final = 0.999
"""The largest magnitude of a slope before it is tilted. A slope of exactly 1 or -1 could not be tilted."""
_TILT_STEPS: Final = 40
"""Number of bisection steps in the search for the tilt, which reduce its error to 2 / 2^40."""

_NARROW: Final = 0.01
"""Buckets narrower than this fraction of their lower edge use a linear axis: a logarithm would only lose precision."""

_FLAT: Final = 1e-6
"""A density with a smaller slope is treated as constant, because the inverse of its integral approaches 0 / 0."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """The axis along which a bucket's samples are spread. Positions range from 0 (lower edge) to 1 (upper edge)."""

    samples: int
    lower: float
    upper: float
    is_logarithmic: bool

    @classmethod
    def of(cls, samples: int, lower: float, upper: float) -> "_Axis":
        return cls(samples, lower, upper, is_logarithmic=lower > 0 and upper > lower * (1 + _NARROW))

    @property
    def length(self) -> float:
        # Not log(upper / lower), because the quotient may overflow.
        return math.log(self.upper) - math.log(self.lower) if self.is_logarithmic else self.upper - self.lower

    def along(self, density: float, value: float) -> float:
        """Convert a density at ``value`` from samples per unit of value to samples per unit of axis length."""
        return density * value if self.is_logarithmic else density

    def value(self, position: float) -> float:
        if self.is_logarithmic:
            return math.exp(math.log(self.lower) + position * self.length)
        return self.lower + position * (self.upper - self.lower)

    def mean(self, slope: float) -> float:
        """Return the mean of samples whose density along the axis is ``1 + slope * (2 * position - 1)``."""
        if not self.is_logarithmic:
            return (self.lower + self.upper) / 2 + slope * (self.upper - self.lower) / 6
        length = self.length
        level = (self.upper - self.lower) / length
        return level + slope * (2 * (self.upper * (length - 1) + self.lower) / length**2 - level)


def refined(buckets: Buckets, total: float, most: int) -> Buckets | None:
    """Divide ``buckets`` into at most ``most`` narrower buckets whose samples add up to about ``total``.

    In this sum, each sample is taken to lie at the midpoint of its narrower bucket. Returns ``None`` if no linear
    density can produce ``total``, because it is too close to the smallest or largest sum that ``buckets`` allow, or
    outside that range.
    """
    axes = [_Axis.of(samples, lower, upper) for samples, (lower, upper, _) in zip(*buckets, strict=True)]
    slopes = _tilted(axes, _slopes(axes), total)
    if slopes is None:
        return None
    samples: list[int] = []
    bounds: list[Bucket] = []
    for axis, slope, parts in zip(axes, slopes, _parts(buckets[0], most), strict=True):
        counts, edges = _divided(axis, slope, parts)
        samples += counts
        # The reference is a placeholder: explicit buckets do not use it.
        bounds += [(lower, upper, lower) for lower, upper in pairwise(edges)]
    return samples, bounds


def _slopes(axes: Sequence[_Axis]) -> list[float]:
    """Return the slope of each bucket's density: from -1 (falls to 0) to 1 (rises from 0)."""
    shared = [_density_at_shared_edge(lower, upper) for lower, upper in pairwise(axes)]
    return [*map(_slope, axes, [None, *shared], [*shared, None])]


def _density_at_shared_edge(lower: _Axis, upper: _Axis) -> float:
    """Return the density at the shared edge in samples per unit of value, or 0 if the buckets do not share an edge."""
    edge = lower.upper
    is_logarithmic = lower.is_logarithmic and upper.is_logarithmic
    first, second = (axis.length if is_logarithmic else axis.upper - axis.lower for axis in (lower, upper))
    if edge != upper.lower or not first or not second:
        return 0.0
    weights = first + 2 * second, second + 2 * first
    density = sum(weights) / (weights[0] * first / lower.samples + weights[1] * second / upper.samples)
    return density / edge if is_logarithmic else density


def _slope(axis: _Axis, below: float | None, above: float | None) -> float:
    """Return the slope of a bucket's density, given the densities at its lower and upper edges.

    A density of ``None`` is extrapolated from the bucket's average and the other edge.
    """
    if not axis.length:
        return 0.0
    average = axis.samples / axis.length
    low = None if below is None else axis.along(below, axis.lower)
    high = None if above is None else axis.along(above, axis.upper)
    return _relative_rise(_or_extrapolated(low, average, high), _or_extrapolated(high, average, low))


def _or_extrapolated(density: float | None, average: float, opposite: float | None) -> float:
    if density is not None:
        return density
    return average if opposite is None else max(2 * average - opposite, 0.0)


def _relative_rise(low: float, high: float) -> float:
    rise = (high - low) / (high + low) if high + low else 0.0
    return min(max(rise, -_STEEPEST), _STEEPEST)


def _tilted(axes: Sequence[_Axis], slopes: Sequence[float], total: float) -> list[float] | None:
    """Tilt all slopes equally so that the samples add up to ``total``, or return ``None`` if no tilt achieves that."""

    def tilt(by: float) -> list[float]:
        # The addition theorem of tanh: every result stays between -1 and 1.
        return [(slope + by) / (1 + slope * by) for slope in slopes]

    def surplus(by: float) -> float:
        return math.fsum(axis.samples * axis.mean(slope) for axis, slope in zip(axes, tilt(by), strict=True)) - total

    low, high = -_STEEPEST, _STEEPEST
    if surplus(low) > 0 or surplus(high) < 0:
        return None
    for _ in range(_TILT_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if surplus(middle) > 0 else (middle, high)
    return tilt(low)


def _parts(samples: Sequence[int], most: int) -> list[int]:
    """Return how many parts to divide each bucket into, based on the square root of its sample count.

    If the number of parts were proportional to the sample count, sparse buckets, which often contain high percentiles,
    would be divided into too few parts.
    """
    room = max(most - len(samples), 0)
    weights = [*map(math.sqrt, samples)]
    total = sum(weights)
    return [
        1 if count <= _FEW else min(count // 2, 1 + int(room * weight / total))
        for count, weight in zip(samples, weights, strict=True)
    ]


def _divided(axis: _Axis, slope: float, parts: int) -> tuple[list[int], list[float]]:
    """Divide a bucket into parts with about equal sample counts, and return the counts and the edges of the parts."""
    counted = [axis.samples * part // parts for part in range(parts + 1)]
    inner = [axis.value(_quantile(count / axis.samples, slope)) for count in counted[1:-1]]
    # Clamped because exp(log(edge)) may lie slightly outside the bucket.
    edges = [axis.lower, *(min(max(edge, axis.lower), axis.upper) for edge in inner), axis.upper]
    return [end - begin for begin, end in pairwise(counted)], edges


def _quantile(share: float, slope: float) -> float:
    """Return the position below which ``share`` of the samples lies, by inverting the integral of the density."""
    if abs(slope) < _FLAT:
        return share
    return (slope - 1 + math.sqrt((1 - slope) ** 2 + 4 * slope * share)) / (2 * slope)
