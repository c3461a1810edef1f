"""Convert histograms to CloudWatch's ``Values`` and ``Counts``, at most 150 of each.

The count, sum, minimum and maximum are preserved. Each value lies within the bucket whose samples it represents, so the
error of a percentile does not exceed the width of its bucket. If there are too many values, neighbors are joined.

The minimum and the maximum become separate values, and the outermost buckets are clamped to them. Explicit buckets, and
exponential buckets with many samples, are divided. The samples of an exponential bucket are represented by its
reference, which is near the middle of the bucket and has few digits. As few values as possible are then adjusted within
their buckets to make the sum exact. If that is not enough, if the buckets are explicit, if most samples lie in divided
buckets, or if there are negative samples, every value instead moves to the same relative position in its bucket. One
such position makes the sum exact, because the recorded sum lies between the sum with every value at the lower edge of
its bucket and the sum with every value at the upper edge.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from operator import itemgetter, lt, mul
from typing import Final, NamedTuple

from otel_cloudwatch_flask.histograms.buckets import (
    Bucket,
    Buckets,
    ExplicitHistogram,
    Extremes,
    Histogram,
    bucket_between,
)
from otel_cloudwatch_flask.histograms.interpolation import refined
from otel_cloudwatch_flask.limits import MAX_MAGNITUDE, MAX_VALUES_PER_DATUM, MIN_MAGNITUDE, InvalidPointError, sendable

MAX_BUCKETS: Final = MAX_VALUES_PER_DATUM - 2
"""Number of non-empty buckets that fit into one datum in addition to the minimum and the maximum."""

_REFERENCE: Final = itemgetter(2)

_COMMON_PERCENTILES: Final = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)

_RESERVE_FOR_PERCENTILES: Final = 2 * len(_COMMON_PERCENTILES)
"""Number of values that remain for dividing the buckets with common percentiles, even if values have to be joined."""

_SAMPLES_PER_PART: Final = 6
"""Minimum number of samples in each part of a divided exponential bucket. Exponential buckets are narrow even if
undivided, so smaller parts would gain little.
"""
_OVERFULL: Final = 2 * _SAMPLES_PER_PART
"""An exponential bucket with at least this many samples is over-full, and is divided if the datum has room."""

_MAX_ADJUSTED: Final = 8
"""Maximum number of values to adjust to make the sum exact. If that is not enough, all values move to the same relative
position in their buckets.
"""
_EDGE_MARGIN: Final = 0.02
"""Distance between the edge of a bucket and a value that is adjusted as far as possible, as a fraction of the bucket's
width.
"""

_PRECISE_RATIO: Final = 1e4
"""Largest ratio of a bucket's weight (its reference times its samples) to the recorded sum at which the difference
between them is precise. The difference between a larger weight and the sum contains too few digits of the sum.

Weights are larger if buckets span many powers of two, as those of a coarse exponential histogram do, or if negative and
positive samples nearly cancel out.
"""

_FARTHEST_EDGE: Final = 2.0**370
"""Edges are clamped to this magnitude, which exceeds CloudWatch's limit, so that sums of edges remain finite."""


class Distribution(NamedTuple):
    """The ``Values`` of a datum, in ascending order, and their ``Counts``."""

    values: Sequence[float]
    counts: Sequence[int]

    @classmethod
    def of(cls, samples: Iterable[tuple[float, int]]) -> "Distribution":
        """Create a distribution from ``(value, count)`` pairs in any order. Pairs with equal values are merged."""
        total: dict[float, int] = {}
        for value, count in samples:
            total[value] = total.get(value, 0) + count
        ordered = sorted(total.items())
        return cls([value for value, _ in ordered], [count for _, count in ordered])

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(self.counts)

    @property
    def total(self) -> float:
        """The sum of all samples."""
        return math.fsum(map(mul, self.values, self.counts))


def distribution(histogram: Histogram) -> Distribution:
    """Convert a non-empty histogram to values and counts.

    Raises :class:`InvalidPointError` if CloudWatch does not accept them.
    """
    is_explicit, factor = isinstance(histogram, ExplicitHistogram), histogram.factor
    buckets = histogram.buckets()
    return scaled(histogram.count, histogram.sum, histogram.extremes, buckets, factor, is_explicit=is_explicit)


def scaled(
    count: int, total: float, extremes: Extremes, buckets: Buckets, factor: float, *, is_explicit: bool
) -> Distribution:
    """Return the distribution of a non-empty histogram.

    Takes the fields of the histogram, so that the caller need not create a :class:`Histogram`. Modifies ``buckets``.
    Raises :class:`InvalidPointError` if CloudWatch does not accept the values.
    """
    try:
        values, counts = _values_and_counts(count, total, extremes, buckets, is_explicit=is_explicit)
    except OverflowError:  # The samples are near the largest float.
        raise InvalidPointError("a value outside ±2^360") from None
    if factor == 1.0 and values[0] >= MIN_MAGNITUDE and values[-1] <= MAX_MAGNITUDE:
        return Distribution(values, counts)
    # Scaling reverses the order if the factor is negative, and its rounding can make neighbors equal.
    return Distribution.of(zip((sendable(value * factor) for value in values), counts, strict=True))


def combined(distributions: Iterable[Distribution]) -> Distribution:
    """Merge distributions into one distribution with at most 150 values.

    If there are more values, pairs of neighbors are replaced with their weighted means, beginning with the pairs that
    are closest relative to their size. The count, the sum, the minimum, the maximum, the number of zeros and the
    common percentiles are preserved.
    """
    merged = Distribution.of(sample for each in distributions for sample in zip(*each, strict=True))
    while len(merged.values) > MAX_VALUES_PER_DATUM:
        merged = _with_neighbors_joined([*zip(*merged, strict=True)], len(merged.values) - MAX_VALUES_PER_DATUM)
    return merged


_Sample = tuple[float, int]
"""A value, and the number of samples that have this value."""


def _with_neighbors_joined(samples: list[_Sample], most: int) -> Distribution:
    """Replace at most ``most`` pairs of neighbors with their weighted means."""
    kept = {0, len(samples) - 1, *_indices_of_percentiles([count for _, count in samples])}

    def distance(i: int) -> float:
        # The distance is relative because values may span decades: an absolute one would join the small values first.
        low, high = samples[i][0], samples[i + 1][0]
        return (high - low) / max(-low, high)

    # Only pairs of one sign, because the mean of -1 and 1 would be a zero that was not measured.
    starts = [i for i in range(1, len(samples) - 1, 2) if samples[i][0] > 0 or samples[i + 1][0] < 0]
    pairs = [i for i in starts if kept.isdisjoint((i, i + 1))]
    joined = {i + 1: _mean(*samples[i : i + 2]) for i in sorted(pairs, key=distance)[:most]}
    return Distribution.of(joined.get(i, sample) for i, sample in enumerate(samples) if i + 1 not in joined)


def _mean(lower: _Sample, upper: _Sample) -> _Sample:
    (low, low_count), (high, high_count) = lower, upper
    count = low_count + high_count
    return low + (high - low) * (high_count / count), count


def _values_and_counts(
    count: int, total: float, extremes: Extremes, buckets: Buckets, *, is_explicit: bool
) -> tuple[Sequence[float], Sequence[int]]:
    """Convert the fields of a histogram to unscaled values and counts. The caller applies the factor.

    Modifies ``buckets``.
    """
    minimum, maximum, _, _ = extremes
    if count == 1 or (minimum is not None and minimum == maximum):
        # Here and below, adding 0.0 turns negative zero into zero.
        return [_single_value(total, extremes, buckets) + 0.0], [count]
    _remove_extremes(buckets, extremes)
    total = math.fsum((total, -(minimum or 0.0), -(maximum or 0.0)))
    values, counts = _inner_values_and_counts(buckets, total, is_explicit=is_explicit)
    if minimum is not None:
        values.insert(0, minimum + 0.0)
        counts.insert(0, 1)
    if maximum is not None:
        values.append(maximum + 0.0)
        counts.append(1)
    # Clamping can make a value equal to the minimum or the maximum, and parts of narrow buckets can be too narrow to
    # differ.
    if len(values) > MAX_VALUES_PER_DATUM or not all(map(lt, values, values[1:])):
        return combined([Distribution(values, counts)])
    return values, counts


def _single_value(total: float, extremes: Extremes, buckets: Buckets) -> float:
    """Return the value of the only sample, or the common value of equal samples."""
    minimum, maximum, floor, ceiling = extremes
    if minimum is not None:
        return minimum
    if maximum is not None:
        return maximum
    # A difference of cumulative sums contains the rounding errors of both, and may lie outside the bucket.
    lower, upper, _ = buckets[1][0]
    return min(max(total, lower, floor), upper, ceiling)


def _remove_extremes(buckets: Buckets, extremes: Extremes) -> None:
    """Remove the minimum and the maximum from their buckets, and clamp the outermost buckets that are left."""
    samples, bounds = buckets
    minimum, maximum, floor, ceiling = extremes
    if minimum is not None:
        samples[0] -= 1
        if not samples[0]:
            del samples[0], bounds[0]
    if maximum is not None:
        samples[-1] -= 1
        if not samples[-1]:
            del samples[-1], bounds[-1]
    if bounds and bounds[0][0] < floor:
        bounds[0] = _clamped(bounds[0], floor, ceiling)
    if bounds and bounds[-1][1] > ceiling:
        bounds[-1] = _clamped(bounds[-1], floor, ceiling)


def _clamped(bucket: Bucket, floor: float, ceiling: float) -> Bucket:
    """Clamp a bucket to ``floor`` and ``ceiling``, the bounds of the samples."""
    lower, upper, reference = bucket
    lower, upper = min(max(lower, floor), ceiling), min(max(upper, floor), ceiling)
    return (lower, upper, reference) if lower < reference < upper else bucket_between(lower, upper)


def _inner_values_and_counts(buckets: Buckets, total: float, *, is_explicit: bool) -> tuple[list[float], list[int]]:
    """Return values and counts that add up to ``total``, for all samples except the minimum and the maximum."""
    samples, bounds = buckets
    if not samples:
        return [], []
    if bounds[0][0] < -_FARTHEST_EDGE or bounds[-1][1] > _FARTHEST_EDGE:
        samples, bounds = buckets = _closed(buckets, total)
    if len(samples) == 1 and samples[0] == 1:
        lower, upper, _ = bounds[0]
        value = min(max(total, lower), upper)
        # If the value is a difference of sums and not a whole number, its last digits are rounding errors.
        return [value if value == int(value) else _rounded(value, ".15g", lower, upper)], samples
    if not is_explicit and max(samples) < _OVERFULL and bounds[0][0] >= 0:
        values = _adjusted(buckets, total)
        if values is not None:
            return values, samples
    return _divided_values_and_counts(buckets, total, is_explicit=is_explicit)


def _divided_values_and_counts(buckets: Buckets, total: float, *, is_explicit: bool) -> tuple[list[float], list[int]]:
    """Like ``_inner_values_and_counts``, but for buckets to divide, or if all values must move to match ``total``."""
    if is_explicit:
        finer, values = refined(buckets, total, MAX_BUCKETS) or buckets, None
    else:
        finer = _with_overfull_divided(buckets)
        values = _adjusted(finer, total) if _are_spread(buckets) else None
    if values is None:
        finer = finer if _can_add_up_to(finer, total) else buckets
        values = _at_common_fraction(finer, total)
    return values, finer[0]


def _are_spread(buckets: Buckets) -> bool:
    """Return whether at most half of the samples lie in over-full buckets, and no sample is negative.

    If not, all values must share the correction to the sum: an over-full bucket is likely to contain a percentile, and
    if samples have both signs, a few values would have to move far.
    """
    samples, bounds = buckets
    overfull = sum(count for count in samples if count >= _OVERFULL)
    return bounds[0][0] >= 0 and overfull * 2 <= sum(samples)


def _adjusted(buckets: Buckets, total: float) -> list[float] | None:
    """Adjust as few references as possible, within their buckets, so that the sum of all samples is ``total``.

    The values with the largest share of the sum are adjusted first, because they need the smallest relative change.
    Returns ``None`` if adjusting ``_MAX_ADJUSTED`` values is not enough.
    """
    samples, bounds = buckets
    values = [*map(_REFERENCE, bounds)]
    weights = [*map(mul, values, samples)]
    left = total - math.fsum(weights)  # fsum() rounds only once, so sums of whole numbers are exact.
    if bounds[0][0] < 0:
        weights = [*map(abs, weights)]
    largest = weight = max(weights)
    for _ in range(_MAX_ADJUSTED):
        if not weight:
            break
        heaviest = weights.index(weight)
        count, (lower, upper, value) = samples[heaviest], bounds[heaviest]
        wanted = value + left / count
        if lower < wanted < upper:
            if largest > _PRECISE_RATIO * abs(total):
                wanted = min(max(_completing(values, samples, heaviest, total), lower), upper)
            values[heaviest] = _rounded(wanted, ".14g", lower, upper) if count == 1 else wanted
            return values
        near_edge = lower + (upper - lower) * (1 - _EDGE_MARGIN if left > 0 else _EDGE_MARGIN)
        near_edge = _rounded(near_edge, ".6g", lower, upper)
        left += value * count - near_edge * count
        values[heaviest], weights[heaviest] = near_edge, 0.0
        weight = max(weights)
    return None if left else values


def _completing(values: Sequence[float], samples: Sequence[int], index: int, total: float) -> float:
    """Return the value that ``values[index]`` must have for all samples to add up to ``total``."""
    weights = map(mul, values, samples)
    return math.fsum((total, *(-weight for i, weight in enumerate(weights) if i != index))) / samples[index]


def _rounded(value: float, format_spec: str, lower: float, upper: float) -> float:
    """Round ``value`` to save bytes, unless the result is not inside the bucket."""
    rounded = float(format(value, format_spec))
    return rounded if lower < rounded < upper else value


def _indices_of_percentiles(samples: Sequence[int]) -> set[int]:
    """Return the indices of the buckets that contain the common percentiles."""
    counted = list(accumulate(samples))
    return {bisect_left(counted, share * counted[-1]) for share in _COMMON_PERCENTILES}


def _with_overfull_divided(buckets: Buckets) -> Buckets:
    """Divide over-full buckets evenly, as far as the datum has room for more values.

    An over-full bucket is likely to contain one or more percentiles.
    """
    samples, bounds = buckets[0][:], buckets[1][:]
    for i, parts in reversed(_numbers_of_parts(samples).items()):
        lower, upper, _ = bounds[i]
        if parts > 1 and lower < upper:
            counts, fractions = _parts(samples[i], parts)
            edges = [*(lower + (upper - lower) * fraction for fraction in fractions[:-1]), upper]
            samples[i : i + 1] = counts
            bounds[i : i + 1] = [bucket_between(begin, end) for begin, end in pairwise(edges)]
    return samples, bounds


def _numbers_of_parts(samples: Sequence[int]) -> dict[int, int]:
    """Return the number of parts to divide each over-full bucket into, by the index of the bucket.

    If the datum has little room for more values, only buckets that contain common percentiles are included.
    """
    overfull = {i: count for i, count in enumerate(samples) if count >= _OVERFULL}
    room, total = MAX_BUCKETS - len(samples), sum(samples)
    if room < 0:  # values have to be joined in any case
        room = _RESERVE_FOR_PERCENTILES
    if room <= _RESERVE_FOR_PERCENTILES:
        indices = _indices_of_percentiles(samples)
        share = 1 + room // len(indices)
        return {i: min(count // _SAMPLES_PER_PART, share) for i, count in overfull.items() if i in indices}
    return {i: min(count // _SAMPLES_PER_PART, 1 + room * count // total) for i, count in overfull.items()}


@lru_cache(1000)
def _parts(samples: int, parts: int) -> tuple[list[int], list[float]]:
    """Return the sample count of each part of a bucket, and the edges of the parts as fractions of its width."""
    ends = [samples * part // parts for part in range(parts + 1)]
    return [end - begin for begin, end in pairwise(ends)], [end / samples for end in ends]


def _can_add_up_to(buckets: Buckets, total: float) -> bool:
    samples, bounds = buckets
    lowest = math.fsum(count * lower for count, (lower, _, _) in zip(samples, bounds, strict=True))
    highest = math.fsum(count * upper for count, (_, upper, _) in zip(samples, bounds, strict=True))
    return lowest <= total <= highest


def _closed(buckets: Buckets, total: float) -> Buckets:
    """Replace the infinite edges of the outermost buckets with finite edges that are compatible with ``total``.

    The samples of a bucket without an upper bound are assigned the mean that yields ``total`` if all other samples lie
    at the midpoints of their buckets, but at least the lower edge. A bucket without a lower bound begins at 0, or at
    its upper edge if that is negative. Only if ``total`` is too small for this are its samples assigned such a mean.
    """
    samples, bounds = buckets
    closed = [bucket_between(*_nearest_edges(lower, upper)) for lower, upper, _ in bounds]
    if bounds[-1][1] == math.inf:
        mean = _mean_of_rest(samples[:-1], closed[:-1], total, samples[-1])
        if mean > closed[-1][0]:
            closed[-1] = mean, mean, mean
    lowest = math.fsum(count * lower for count, (lower, _, _) in zip(samples, closed, strict=True))
    if bounds[0][0] == -math.inf and total < lowest:
        mean = _mean_of_rest(samples[1:], closed[1:], total, samples[0])
        closed[0] = mean, mean, mean
    return samples, closed


def _nearest_edges(lower: float, upper: float) -> tuple[float, float]:
    """Replace an infinite lower edge with the lesser of 0 and ``upper``, and an infinite upper edge with ``lower``.

    Clamps the lower edge to at least -2^370, and the upper edge to at most 2^370.
    """
    if lower == -math.inf:
        lower = min(0.0, upper)
    if upper == math.inf:
        upper = lower
    return max(lower, -_FARTHEST_EDGE), min(upper, _FARTHEST_EDGE)


def _mean_of_rest(samples: Sequence[int], bounds: Sequence[Bucket], total: float, count: int) -> float:
    """Return the mean that ``count`` additional samples must have for all samples to add up to ``total``.

    Assumes that the other samples, ``samples[i]`` of them in bucket ``bounds[i]``, lie at the midpoints of the buckets.
    """
    middles = math.fsum(each * (lower / 2 + upper / 2) for each, (lower, upper, _) in zip(samples, bounds, strict=True))
    return (total - middles) / count


def _at_common_fraction(buckets: Buckets, total: float) -> list[float]:
    """Place each bucket's value at about the same fraction of its width, so that all samples add up to ``total``."""
    samples, bounds = buckets
    rows = [*zip(samples, bounds, strict=True)]
    width = math.fsum(count * (upper - lower) for count, (lower, upper, _) in rows)
    if width == 0:
        return [lower for lower, _, _ in bounds]
    # Measuring the fraction from the nearer edge keeps more digits in wide buckets. It is clamped because the SDK's
    # sum contains rounding errors, and may lie slightly beyond the sum of all lower or all upper edges.
    above = max(math.fsum((total, *(-count * lower for count, (lower, _, _) in rows))) / width, 0.0)
    below = max(math.fsum((-total, *(count * upper for count, (_, upper, _) in rows))) / width, 0.0)
    values = [
        min(max(upper - below * (upper - lower) if below < above else lower + above * (upper - lower), lower), upper)
        for lower, upper, _ in bounds
    ]
    # Each digit costs a byte, so round all values, and let as few as possible absorb the rounding errors.
    rounded = [
        (lower, upper, _rounded(value, ".8g", lower, upper))
        for value, (lower, upper, _) in zip(values, bounds, strict=True)
    ]
    return _adjusted((samples, rounded), total) or values
