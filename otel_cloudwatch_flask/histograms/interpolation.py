"""Where inside a wide bucket its samples probably lie, guessed from its neighbours and made to agree with the sum.

Between the edges of a bucket the density of samples is taken to rise or fall evenly, from the density at one edge to
that at the other; at an edge that two buckets share it is between theirs (the weighted harmonic mean that monotone
cubic interpolation uses, https://doi.org/10.1137/0717021, so that no peak is invented). Buckets of positive values are
looked at on a logarithmic axis, on which latencies and sizes are smooth. Then all of them are tilted together, towards
higher or lower values, until the mean is the recorded one.

With that, each bucket is divided into narrower ones that hold a few samples each, and the common fraction that makes
the sum exact has little left to correct.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from otel_cloudwatch_flask.histograms.buckets import Bucket, Buckets

_FEW: Final = 4
"""So many samples of a bucket stay together: a value for each would cost bytes and tell nothing that is known."""

_STEEPEST: Final = 0.999
_TILT_STEPS: Final = 40
"""Halvings of the interval in which the tilt is looked for: enough for a double's digits that matter."""

_NARROW: Final = 0.01
"""Below this width, relative to the lower edge, the two axes are the same, and the logarithm only loses digits."""

_FLAT: Final = 1e-6
"""Below this slope the density is even, and the inverse of its integral would be 0 / 0."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """A bucket, and the coordinate along which its samples are spread: 0 at the lower edge, 1 at the upper."""

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
        """Samples per unit of the axis, where there are ``density`` of them per unit of value."""
        return density * value if self.is_logarithmic else density

    def value(self, position: float) -> float:
        if self.is_logarithmic:
            return math.exp(math.log(self.lower) + position * self.length)
        return self.lower + position * (self.upper - self.lower)

    def mean(self, slope: float) -> float:
        """The mean of samples whose density along the axis is ``1 + slope * (2 * position - 1)``."""
        if not self.is_logarithmic:
            return (self.lower + self.upper) / 2 + slope * (self.upper - self.lower) / 6
        length = self.length
        level = (self.upper - self.lower) / length
        return level + slope * (2 * (self.upper * (length - 1) + self.lower) / length**2 - level)


def refined(buckets: Buckets, total: float, most: int) -> Buckets | None:
    """The same samples in narrower buckets, at most ``most``, among which ``total`` is about in the middle.

    ``None`` if ``total`` is nearer to that of all lower, or of all upper edges than any densities that rise or fall
    evenly across the buckets would have it.
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
    """How much more density there is at the upper edge of each bucket than at the lower: from -1 to 1."""
    shared = [_density_at_shared_edge(lower, upper) for lower, upper in pairwise(axes)]
    return [*map(_slope, axes, [None, *shared], [*shared, None])]


def _density_at_shared_edge(lower: _Axis, upper: _Axis) -> float:
    """Samples per unit of value where two buckets meet; 0 where there is an empty one between them."""
    edge = lower.upper
    is_logarithmic = lower.is_logarithmic and upper.is_logarithmic
    first, second = (axis.length if is_logarithmic else axis.upper - axis.lower for axis in (lower, upper))
    if edge != upper.lower or not first or not second:
        return 0.0
    weights = first + 2 * second, second + 2 * first
    density = sum(weights) / (weights[0] * first / lower.samples + weights[1] * second / upper.samples)
    return density / edge if is_logarithmic else density


def _slope(axis: _Axis, below: float | None, above: float | None) -> float:
    """The slope between the densities at the edges; at an outermost edge, which has none, it goes on as it came."""
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
    """The slopes, all changed alike until samples so distributed add up to ``total``; ``None`` if they never do."""

    def tilt(by: float) -> list[float]:
        # Keeps every slope between -1 and 1, whatever it was.
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
    """How many parts each bucket is divided into: more where there are more samples, but not in proportion.

    Percentiles near 100 are read where samples are few.
    """
    room = most - len(samples)
    weights = [*map(math.sqrt, samples)]
    total = sum(weights)
    return [
        1 if count <= _FEW else min(count // 2, 1 + int(room * weight / total))
        for count, weight in zip(samples, weights, strict=True)
    ]


def _divided(axis: _Axis, slope: float, parts: int) -> tuple[list[int], list[float]]:
    """Divide a bucket into parts of about as many samples each: their samples, and the edges between which they are."""
    counted = [axis.samples * part // parts for part in range(parts + 1)]
    inner = [axis.value(_quantile(count / axis.samples, slope)) for count in counted[1:-1]]
    edges = [axis.lower, *(min(max(edge, axis.lower), axis.upper) for edge in inner), axis.upper]
    return [end - begin for begin, end in pairwise(counted)], edges


def _quantile(share: float, slope: float) -> float:
    """The position below which this share of the samples lies: the inverse of the integral of the density."""
    if abs(slope) < _FLAT:
        return share
    return (slope - 1 + math.sqrt((1 - slope) ** 2 + 4 * slope * share)) / (2 * slope)
