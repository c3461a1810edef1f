"""Estimate where the samples of a wide bucket lie, from its neighbours and the recorded sum.

The density of samples is assumed to change linearly across a bucket, from one edge to the other. At an edge shared by
two buckets it is between their densities: the weighted harmonic mean of monotone cubic interpolation
(https://doi.org/10.1137/0717021), which invents no peaks. Buckets of positive values use a logarithmic axis, on which
distributions of latencies and sizes are smooth. Then all densities are tilted together, towards higher or lower values,
until the mean is the recorded one.

The result is each bucket divided into narrower ones with a few samples each, so that the common fraction that makes the
sum exact has little left to correct.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from otel_cloudwatch_flask.histograms.buckets import Bucket, Buckets

_FEW: Final = 4
"""Up to this many samples of a bucket share one value: more values would cost bytes and add no information."""

_STEEPEST: Final = 0.999
"""The largest slope; with a slope of 1 the density at one edge is 0, and tilting cannot change it."""
_TILT_STEPS: Final = 40
"""Bisection steps in the search for the tilt, which has an error of 2 / 2^40 after them."""

_NARROW: Final = 0.01
"""Below this width, relative to the lower edge, both axes agree, and the logarithm would only lose precision."""

_FLAT: Final = 1e-6
"""Below this slope the density counts as constant; the inverse of its integral would be 0 / 0."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """A bucket and the coordinate along which its samples are spread: 0 at the lower edge, 1 at the upper edge."""

    samples: int
    lower: float
    upper: float
    is_logarithmic: bool

    @classmethod
    def of(cls, samples: int, lower: float, upper: float) -> "_Axis":
        return cls(samples, lower, upper, is_logarithmic=lower > 0 and upper > lower * (1 + _NARROW))

    @property
    def length(self) -> float:
        return math.log(self.upper) - math.log(self.lower) if self.is_logarithmic else self.upper - self.lower

    def along(self, density: float, value: float) -> float:
        """Convert samples per unit of value to samples per unit of the axis."""
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
    """Divide buckets into at most ``most`` narrower ones whose middles add up to about ``total``.

    Returns ``None`` if no linear densities reach that total, because it is too close to that of all lower or all upper
    edges.
    """
    axes = [_Axis.of(samples, lower, upper) for samples, (lower, upper, _) in zip(*buckets, strict=True)]
    slopes = _tilted(axes, _slopes(axes), total)
    if slopes is None:
        return None
    samples: list[int] = []
    bounds: list[Bucket] = []
    for axis, slope, parts in zip(axes, slopes, _parts(buckets.samples, most), strict=True):
        counts, edges = _divided(axis, slope, parts)
        samples += counts
        bounds += [(lower, upper, lower) for lower, upper in pairwise(edges)]
    return Buckets(samples, bounds)


def _slopes(axes: Sequence[_Axis]) -> list[float]:
    """Return the slope of the density in each bucket: from -1, all at the lower edge, to 1."""
    shared = [_density_at_shared_edge(lower, upper) for lower, upper in pairwise(axes)]
    return [*map(_slope, axes, [None, *shared], [*shared, None])]


def _density_at_shared_edge(lower: _Axis, upper: _Axis) -> float:
    """Return the samples per unit of value at a shared edge; 0 if there is an empty bucket between the two."""
    edge = lower.upper
    is_logarithmic = lower.is_logarithmic and upper.is_logarithmic
    first, second = (axis.length if is_logarithmic else axis.upper - axis.lower for axis in (lower, upper))
    if edge != upper.lower or not first or not second:
        return 0.0
    weights = first + 2 * second, second + 2 * first
    density = sum(weights) / (weights[0] * first / lower.samples + weights[1] * second / upper.samples)
    return density / edge if is_logarithmic else density


def _slope(axis: _Axis, below: float | None, above: float | None) -> float:
    """Return the slope between the densities at the two edges, of which an outermost one (``None``) is extrapolated."""
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
    """Tilt all slopes by the same amount until the samples add up to ``total``; ``None`` if no tilt does that."""

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
    """Return the number of parts of each bucket: proportional to the square root of its samples.

    In proportion to the samples, the sparse buckets would get too few, and high percentiles are read from those.
    """
    room = most - len(samples)
    weights = [*map(math.sqrt, samples)]
    total = sum(weights)
    return [
        1 if count <= _FEW else min(count // 2, 1 + int(room * weight / total))
        for count, weight in zip(samples, weights, strict=True)
    ]


def _divided(axis: _Axis, slope: float, parts: int) -> tuple[list[int], list[float]]:
    """Divide a bucket into parts of about equal counts; returns the counts and the edges of the parts."""
    counted = [axis.samples * part // parts for part in range(parts + 1)]
    inner = [axis.value(_quantile(count / axis.samples, slope)) for count in counted[1:-1]]
    edges = [axis.lower, *(min(max(edge, axis.lower), axis.upper) for edge in inner), axis.upper]
    return [end - begin for begin, end in pairwise(counted)], edges


def _quantile(share: float, slope: float) -> float:
    """Return the position below which this share of the samples lies: the inverse of the density's integral."""
    if abs(slope) < _FLAT:
        return share
    return (slope - 1 + math.sqrt((1 - slope) ** 2 + 4 * slope * share)) / (2 * slope)
