"""Explicit-bucket and exponential histograms.

A histogram consists of the number of samples in each bucket, the sum of all samples and, usually, the minimum and the
maximum. Adding histograms merges data points of the same series. Subtracting one from another converts cumulative
data points to deltas. ``values_counts.distribution`` converts a histogram's non-empty buckets to the values that are
sent to CloudWatch.
"""

import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import lt
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otel_cloudwatch_flask.limits import InvalidPointError

if TYPE_CHECKING:
    from typing_extensions import Self

EDGE_TOLERANCE: Final = 1e-9
"""Tolerance for extremes that the SDK's rounding moved out of their buckets, as a fraction of the bucket's edge."""

_MAX_FLOAT: Final = sys.float_info.max

_REFERENCE_TOLERANCE: Final = 0.125
"""Maximum distance of a rounded midpoint from the exact one, as a fraction of the bucket's width."""

_MAX_CACHED_BUCKETS: Final = 4096
"""The maximum number of cached buckets of a scale, each of which takes about 200 bytes."""
_MAX_CACHED_SCALES: Final = 16

Bucket: TypeAlias = tuple[float, float, float]
"""``(lower, upper, reference)``. Both edges belong to the bucket. An edge is infinite if the bucket has no bound on
that side. ``reference`` is a number with few digits near the middle of the bucket. Explicit buckets do not use it.
"""

Buckets: TypeAlias = tuple[list[int], list[Bucket]]
"""``(samples, bounds)``: non-empty buckets in ascending order. Bucket ``bounds[i]`` contains ``samples[i]`` samples.

Parallel lists rather than an object per bucket, so that cached bounds are shared instead of copied.
"""

Extremes: TypeAlias = tuple[float | None, float | None, float, float]
"""``(minimum, maximum, floor, ceiling)``: the extremes of a histogram, or ``None`` if unknown, and bounds.

No sample is less than ``floor`` or greater than ``ceiling``. If the minimum is known, it equals ``floor``. If the
maximum is known, it equals ``ceiling``. Otherwise, the bound may be loose or infinite.
"""


def recorded_extremes(minimum: float | None, maximum: float | None) -> Extremes:
    """Return the extremes of a data point. ``None`` and the SDK's initial ``inf`` and ``-inf`` mean unknown."""
    floor, ceiling = minimum, maximum
    if floor is None or floor == math.inf:
        minimum, floor = None, -math.inf
    if ceiling is None or ceiling == -math.inf:
        maximum, ceiling = None, math.inf
    return minimum, maximum, floor, ceiling


def negated_extremes(extremes: Extremes) -> Extremes:
    """Return the extremes of the negated samples."""
    minimum, maximum, floor, ceiling = extremes
    return None if maximum is None else -maximum, None if minimum is None else -minimum, -ceiling, -floor


def extremes_of_all(one: Extremes, other: Extremes) -> Extremes:
    """Return the extremes of the combined samples."""
    minimum, maximum, floor, ceiling = one
    other_minimum, other_maximum, other_floor, other_ceiling = other
    return (
        None if minimum is None or other_minimum is None else min(minimum, other_minimum),
        None if maximum is None or other_maximum is None else max(maximum, other_maximum),
        min(floor, other_floor),
        max(ceiling, other_ceiling),
    )


def extremes_since(now: Extremes, previous: Extremes) -> Extremes:
    """Return the extremes of the samples that were added between two cumulative data points.

    The minimum is known only if it lies below all earlier samples, and the maximum only if it lies above them.
    Otherwise, only a bound is known.
    """
    minimum, maximum, floor, ceiling = now
    _, _, previous_floor, previous_ceiling = previous
    lowered = minimum is not None and minimum < previous_floor
    raised = maximum is not None and maximum > previous_ceiling
    return minimum if lowered else None, maximum if raised else None, floor, ceiling


@dataclass(slots=True)
class Histogram:
    """The base class of explicit-bucket and exponential histograms.

    :param factor: multiplier that converts the sum, the extremes and the bounds to the unit and sign of the datum.
    """

    count: int
    sum: float
    extremes: Extremes
    factor: float = field(default=1.0, kw_only=True)

    @property
    def layout(self) -> object:
        """A key that is equal for two histograms only if they can be added."""
        raise NotImplementedError

    def buckets(self) -> Buckets:
        """Return the non-empty buckets in new lists, which the caller may modify."""
        raise NotImplementedError

    def plus(self, other: "Self") -> "Self":
        """Return a histogram of the combined samples. Both histograms must have the same ``layout``."""
        raise NotImplementedError

    def minus(self, previous: "Self") -> "Self | None":
        """Return a histogram of the samples added since ``previous``, or ``None`` if the histogram was reset."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise :class:`InvalidPointError` if the numbers are invalid or contradictory."""
        check_numbers(self.count, self.sum, self.extremes, self.buckets())

    def _plus(self, other: "Histogram", **fields: Any) -> "Self":
        return replace(
            self,
            count=self.count + other.count,
            sum=self.sum + other.sum,
            extremes=extremes_of_all(self.extremes, other.extremes),
            **fields,
        )

    def _minus(self, previous: "Histogram", **fields: Any) -> "Self":
        return replace(
            self,
            count=self.count - previous.count,
            sum=self.sum - previous.sum,
            extremes=extremes_since(self.extremes, previous.extremes),
            **fields,
        )


@dataclass(slots=True)
class ExplicitHistogram(Histogram):
    """A histogram with explicit bucket bounds.

    ``counts[i]`` is the number of samples between ``bounds[i-1]`` and ``bounds[i]``. The first bucket has no lower
    bound, and the last bucket has no upper bound.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def layout(self) -> object:
        """The bounds and the factor. Two explicit histograms can be added only if both match."""
        return (self.bounds, self.factor)

    def plus(self, other: "ExplicitHistogram") -> "ExplicitHistogram":
        """Return a histogram of the combined samples. Both histograms must have the same ``layout``."""
        return self._plus(other, counts=tuple(map(sum, zip(self.counts, other.counts, strict=True))))

    def minus(self, previous: "ExplicitHistogram") -> "ExplicitHistogram | None":
        """Return a histogram of the samples added since ``previous``, or ``None`` if the histogram was reset.

        Different bounds or a decreased count indicate a reset.
        """
        if self.bounds != previous.bounds:
            return None
        counts = tuple(now - then for now, then in zip(self.counts, previous.counts, strict=True))
        if min(counts, default=0) < 0 or self.count < previous.count:
            return None
        return self._minus(previous, counts=counts)

    def buckets(self) -> Buckets:
        """Return the non-empty buckets in new lists, which the caller may modify."""
        return explicit_buckets(self.bounds, self.counts)

    def check(self) -> None:
        """Raise :class:`InvalidPointError` if the numbers are invalid or contradictory."""
        check_bounds(self.bounds, self.counts)
        Histogram.check(self)  # zero-argument super() does not work in a dataclass with slots


@dataclass(slots=True)
class ExponentialHistogram(Histogram):
    """A histogram whose bucket ``i`` ranges from ``base ** i`` to ``base ** (i + 1)``.

    ``base`` is ``2 ** 2 ** -scale``.
    """

    scale: int
    zero_count: int = 0
    zero_threshold: float = 0.0
    positive: Mapping[int, int] = field(default_factory=dict)
    """The number of samples in each non-empty positive bucket, by its index."""
    negative: Mapping[int, int] = field(default_factory=dict)
    """The same for the absolute values of negative samples."""

    @property
    def layout(self) -> object:
        """The zero threshold and the factor. The scale may differ between histograms that are added."""
        return (ExponentialHistogram, self.zero_threshold, self.factor)

    def plus(self, other: "ExponentialHistogram") -> "ExponentialHistogram":
        """Return a histogram of the combined samples. Both histograms must have the same ``layout``.

        The result has the lower of the two scales. The scale of a histogram without nonzero samples is ignored.
        """
        scale = self._common_scale(other)
        positive, negative = (
            _added(_coarser(mine, self.scale - scale), _coarser(theirs, other.scale - scale))
            for mine, theirs in self._sides(other)
        )
        zeros = self.zero_count + other.zero_count
        return self._plus(other, scale=scale, zero_count=zeros, positive=positive, negative=negative)

    def minus(self, previous: "ExponentialHistogram") -> "ExponentialHistogram | None":
        """Return a histogram of the samples added since ``previous``, or ``None`` if the histogram was reset.

        A decreased count indicates a reset.
        """
        scale = self._common_scale(previous)
        zeros = self.zero_count - previous.zero_count
        positive, negative = (
            _subtracted(_coarser(now, self.scale - scale), _coarser(then, previous.scale - scale))
            for now, then in self._sides(previous)
        )
        if positive is None or negative is None or zeros < 0 or self.count < previous.count:
            return None
        return self._minus(previous, scale=scale, zero_count=zeros, positive=positive, negative=negative)

    @property
    def filled_buckets(self) -> int:
        """The number of non-empty buckets, including the zero bucket."""
        return len(self.positive) + len(self.negative) + bool(self.zero_count)

    def _common_scale(self, other: "ExponentialHistogram") -> int:
        # The SDK assigns scale 0 to a data point that contains only zeros. That scale must not reduce the precision of
        # the other histogram.
        scales = [each.scale for each in (self, other) if each.positive or each.negative]
        return min(scales, default=min(self.scale, other.scale))

    def _sides(self, other: "ExponentialHistogram") -> tuple[tuple[Mapping[int, int], Mapping[int, int]], ...]:
        return (self.positive, other.positive), (self.negative, other.negative)

    def buckets(self) -> Buckets:
        """Return the non-empty buckets in new lists, which the caller may modify."""
        positive, negative = (self._side(each) for each in (self.positive, self.negative))
        return buckets_around_zero(negative, self.zero_count, self.zero_threshold, positive)

    def _side(self, counts: Mapping[int, int]) -> Buckets:
        indices = sorted(counts)
        return [counts[index] for index in indices], [*map(_cached_buckets(self.scale).__getitem__, indices)]


def explicit_buckets(bounds: Sequence[float], counts: Sequence[int]) -> Buckets:
    """Return the non-empty buckets of an explicit histogram. Their references are 0, and are not used."""
    edges = (-math.inf, *bounds, math.inf)
    filled = [(lower, upper, 0.0) for lower, upper in itertools.compress(itertools.pairwise(edges), counts)]
    return [*filter(None, counts)], filled


def consecutive_buckets(scale: int, offset: int, counts: Sequence[int]) -> Buckets:
    """Return the non-empty exponential buckets, given the sample counts of consecutive indices from ``offset``."""
    bucket_at = _cached_buckets(scale)
    filled = [*itertools.compress(_positions(len(counts)), counts)]
    return [counts[position] for position in filled], [bucket_at[offset + position] for position in filled]


@lru_cache
def _positions(number: int) -> list[int]:
    """Return the positions of ``number`` buckets as a list, which is faster to iterate over than a range."""
    return [*range(number)]


def buckets_around_zero(negative: Buckets, zero_count: int, zero_threshold: float, positive: Buckets) -> Buckets:
    """Return all buckets of an exponential histogram in ascending order.

    ``negative`` contains the buckets of the absolute values of negative samples.
    """
    counts, bounds = negative
    zeros, zero_bounds = ([zero_count], [(-zero_threshold, zero_threshold, 0.0)]) if zero_count else ([], [])
    below = [(-upper, -lower, -reference) for lower, upper, reference in reversed(bounds)]
    return [*reversed(counts), *zeros, *positive[0]], [*below, *zero_bounds, *positive[1]]


class _BucketCache(dict[int, Bucket]):
    """A cache that maps the index of each positive bucket of a scale to the bucket."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self._scale = scale

    def __missing__(self, index: int) -> Bucket:
        if len(self) >= _MAX_CACHED_BUCKETS:
            self.clear()  # evicting single entries would make every lookup slower
        bucket = self[index] = bucket_between(edge(self._scale, index), edge(self._scale, index + 1))
        return bucket


_cached_buckets: Final = lru_cache(_MAX_CACHED_SCALES)(_BucketCache)


def bucket_between(lower: float, upper: float) -> Bucket:
    """Return the bucket from ``lower`` to ``upper``, with a reference near its middle."""
    return lower, upper, short_number_between(lower, upper)


def edge(scale: int, index: int) -> float:
    """Return the lower edge of an exponential bucket, or 0 or ``inf`` if a normal float cannot represent the edge.

    The bucket of the smallest normal float also contains the subnormal floats:
    https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponential-scale.

    >>> edge(0, 3), edge(1, 1), edge(-10, 1)
    (8.0, 1.4142135623730951, inf)
    """
    if scale <= 0:
        return _power_of_two(index << -scale)
    exponent, part = divmod(index, 1 << scale)
    # The power operator returns the correctly rounded result far more often than exp(log(2) * ...).
    return _power_of_two(exponent, 2.0 ** (part / (1 << scale)))


def _power_of_two(exponent: int, mantissa: float = 1.0) -> float:
    try:
        power = math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.inf
    return power if power >= sys.float_info.min else 0.0


def short_number_between(lower: float, upper: float) -> float:
    """Return a number with few digits near the midpoint of ``lower`` and ``upper``.

    Each digit adds a byte to the request, and the exact midpoint would be no better an estimate of a bucket's samples.

    >>> short_number_between(2.0, 4.0), short_number_between(1.0905, 1.1388), short_number_between(107e3, 112e3)
    (3.0, 1.11, 110000.0)
    """
    # Not (lower + upper) / 2, because the sum may overflow.
    middle, tolerance = lower / 2 + upper / 2, (upper - lower) * _REFERENCE_TOLERANCE
    if not 0 < tolerance < math.inf:
        return middle
    # The logarithm may yield one digit too few, so it is only the start of the search.
    for digits in range(max(int(math.log10(abs(middle) / tolerance)), 1) if middle else 1, 17):
        rounded = float(f"{middle:.{digits}g}")
        if abs(rounded - middle) <= tolerance:
            return rounded
    return middle


def _coarser(samples: Mapping[int, int], steps: int) -> dict[int, int]:
    """Convert ``samples``, the sample count of each bucket by its index, to a scale that is lower by ``steps``."""
    coarser: dict[int, int] = {}
    for index, count in samples.items():
        coarser[index >> steps] = coarser.get(index >> steps, 0) + count
    return coarser


def _added(first: dict[int, int], second: Mapping[int, int]) -> dict[int, int]:
    for index, count in second.items():
        first[index] = first.get(index, 0) + count
    return first


def _subtracted(now: dict[int, int], then: Mapping[int, int]) -> dict[int, int] | None:
    for index, count in then.items():
        now[index] = now.get(index, 0) - count
        if now[index] < 0:
            return None
    return {index: count for index, count in now.items() if count}


def check_numbers(count: int, total: float, extremes: Extremes, buckets: Buckets) -> None:
    """Raise :class:`InvalidPointError` if the numbers of a histogram are invalid or contradictory."""
    samples, bounds = buckets
    if samples and min(samples) < 0:
        raise InvalidPointError("a negative count")
    if sum(samples) != count:
        raise InvalidPointError(f"a count of {count}, but {sum(samples)} samples in its buckets")
    if not abs(total) <= _MAX_FLOAT:  # NaN fails every comparison; an int may exceed every float.
        raise InvalidPointError("a sum that is NaN or too large for a float")
    if count:
        _check_extremes(extremes, bounds[0], bounds[-1])


def check_bounds(bounds: Sequence[float], counts: Sequence[int]) -> None:
    """Raise :class:`InvalidPointError` if the bounds of an explicit histogram are invalid."""
    if len(counts) != len(bounds) + 1:
        raise InvalidPointError(f"{len(bounds)} bounds but {len(counts)} bucket counts")
    if not all(map(math.isfinite, bounds)):
        raise InvalidPointError("bounds that are not finite numbers")
    if not all(map(lt, bounds, bounds[1:])):
        raise InvalidPointError("bounds that do not ascend")


def _check_extremes(extremes: Extremes, first: Bucket, last: Bucket) -> None:
    minimum, maximum, floor, ceiling = extremes
    is_ordered = -_MAX_FLOAT <= floor <= ceiling <= _MAX_FLOAT
    if is_ordered and first[0] <= floor <= first[1] and last[0] <= ceiling <= last[1]:
        return
    for extreme in (minimum, maximum):
        if extreme is not None and not -_MAX_FLOAT <= extreme <= _MAX_FLOAT:
            raise InvalidPointError("a minimum or maximum that is NaN or too large for a float")
    if floor > ceiling:
        raise InvalidPointError(f"a minimum of {floor} above the maximum of {ceiling}")
    if minimum is not None and not _contains(first, minimum):
        raise InvalidPointError(f"a minimum of {minimum} outside the first non-empty bucket")
    if maximum is not None and not _contains(last, maximum):
        raise InvalidPointError(f"a maximum of {maximum} outside the last non-empty bucket")


def _contains(bucket: Bucket, value: float) -> bool:
    lower, upper, _ = bucket
    return lower - EDGE_TOLERANCE * abs(lower) <= value <= upper + EDGE_TOLERANCE * abs(upper)
