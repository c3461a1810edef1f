"""Histograms as CloudWatch takes them: at most 150 values, each with the number of samples it stands for.

Count, sum, minimum and maximum of the values are those of the histogram, and every value lies in the bucket of its
samples, so that a percentile is never off by more than the width of one bucket.

The minimum and the maximum become values of their own and bound the outer buckets. The other samples of a bucket are
represented by its reference, a short number near its middle. Then as few representatives as possible are moved inside
their buckets until the sum is right. Where that is not enough, all are placed at one common fraction of their buckets:
at the lower edges the sum is too small, at the upper edges too large, so a fraction that fits always exists.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from operator import lt, mul
from typing import Final, NamedTuple

from otel_cloudwatch_flask.histograms.buckets import (
    Bucket,
    Buckets,
    ExplicitHistogram,
    Extremes,
    Histogram,
    bucket_between,
    short_between,
)
from otel_cloudwatch_flask.histograms.interpolation import refined
from otel_cloudwatch_flask.limits import MAX_MAGNITUDE, MAX_VALUES_PER_DATUM, MIN_MAGNITUDE, sendable

MAX_BUCKETS: Final = MAX_VALUES_PER_DATUM - 2
"""Filled buckets that one datum can hold beside the minimum and the maximum."""

_SHARES_READ_MOST: Final = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)

ROOM_FOR_PERCENTILES: Final = 2 * len(_SHARES_READ_MOST)
"""Values that are kept free where buckets are joined anyway, to divide the buckets that hold such a percentile."""

SAMPLES_PER_PART: Final = 6
"""At least this many samples of an exponential bucket share a value: it is narrow."""
_CROWD: Final = 2 * SAMPLES_PER_PART
"""A bucket with this many samples is over-full: it is divided, if there is room."""

_MAX_MOVED: Final = 8
"""Representatives that are moved to make the sum right, before all of them are placed anew."""
_BESIDE_EDGE: Final = 0.02
"""How close to an edge a representative is moved, in widths of its bucket."""

_FARTHEST_EDGE: Final = 2.0**370
"""Stands for an edge beyond it: no value there can be sent, and sums of such edges stay finite."""


class Distribution(NamedTuple):
    """What a datum says of several samples: ascending values and, beside each, how many samples it stands for."""

    values: Sequence[float]
    counts: Sequence[int]

    @classmethod
    def of(cls, samples: Iterable[tuple[float, int]]) -> "Distribution":
        """Put samples in order and equal ones together."""
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


def distribution(histogram: Histogram) -> Distribution | None:
    """The values and counts to send for a histogram with samples, or ``None`` if CloudWatch takes no such numbers."""
    is_explicit, factor = isinstance(histogram, ExplicitHistogram), histogram.factor
    buckets = histogram.buckets()
    return scaled(histogram.count, histogram.sum, histogram.extremes, buckets, factor, is_explicit=is_explicit)


def scaled(
    count: int, total: float, extremes: Extremes, buckets: Buckets, factor: float, *, is_explicit: bool
) -> Distribution | None:
    """Values and counts in the datum's unit, or ``None`` if CloudWatch takes no such numbers.

    The ``buckets`` are changed.
    """
    try:
        values, counts = represented(count, total, extremes, buckets, is_explicit=is_explicit)
    except OverflowError:  # samples near the largest float
        return None
    if factor != 1.0:
        values = [value * factor for value in values]
        if factor < 0:
            values, counts = values[::-1], counts[::-1]
    if values[0] >= MIN_MAGNITUDE and values[-1] <= MAX_MAGNITUDE:
        return Distribution(values, counts)
    numbers = [number for value in values if (number := sendable(value)) is not None]
    return Distribution.of(zip(numbers, counts, strict=True)) if len(numbers) == len(values) else None


def combined(distributions: Iterable[Distribution]) -> Distribution:
    """The samples of all of them, with at most 150 values.

    Where there are more, neighbours share their weighted mean, the nearest ones first; count and sum stay, and so do
    the minimum, the maximum and every 0.
    """
    together = Distribution.of(sample for each in distributions for sample in zip(*each, strict=True))
    if len(together.values) <= MAX_VALUES_PER_DATUM:
        return together
    first, *inner, last = zip(*together, strict=True)
    return Distribution.of([first, *_condensed(inner, MAX_VALUES_PER_DATUM - 2), last])


_Sample = tuple[float, int]
"""A value and how many samples it stands for."""


def _condensed(samples: list[_Sample], most: int) -> list[_Sample]:
    """Replace neighbours by their weighted mean, in pairs, the nearest first, until at most ``most`` are left."""
    while len(samples) > most:
        surplus = len(samples) - most
        pairs = [i for i in range(0, len(samples) - 1, 2) if samples[i][0] and samples[i + 1][0]]
        nearest = set(sorted(pairs, key=lambda i: samples[i + 1][0] - samples[i][0])[:surplus])
        samples = [
            sample
            for i in range(0, len(samples), 2)
            for sample in ([_mean(*samples[i : i + 2])] if i in nearest else samples[i : i + 2])
        ]
    return samples


def _mean(lower: _Sample, upper: _Sample) -> _Sample:
    (low, low_count), (high, high_count) = lower, upper
    count = low_count + high_count
    return low + (high - low) * (high_count / count), count


def represented(
    count: int, total: float, extremes: Extremes, buckets: Buckets, *, is_explicit: bool
) -> tuple[list[float], list[int]]:
    """Values and counts, in the histogram's own unit, with its count, sum, minimum and maximum.

    The ``buckets`` are changed.
    """
    minimum, maximum, floor, ceiling = extremes
    if count == 1 or (minimum is not None and minimum == maximum):
        return [_only_value(total, extremes, buckets) + 0.0], [count]
    (_narrow if minimum is None else _take_one)(buckets, 0, floor, ceiling)
    (_narrow if maximum is None else _take_one)(buckets, -1, floor, ceiling)
    total = math.fsum((total, -(minimum or 0.0), -(maximum or 0.0)))
    values, counts = _placed(buckets, total, is_explicit=is_explicit)
    if minimum is not None:
        values.insert(0, minimum + 0.0)
        counts.insert(0, 1)
    if maximum is not None:
        values.append(maximum + 0.0)
        counts.append(1)
    if not all(map(lt, values, values[1:])):
        together = Distribution.of(zip(values, counts, strict=True))
        return [*together.values], [*together.counts]
    return values, counts


def _only_value(total: float, extremes: Extremes, buckets: Buckets) -> float:
    """The value of one sample, or of many that are equal."""
    minimum, maximum, floor, ceiling = extremes
    if minimum is not None:
        return minimum
    if maximum is not None:
        return maximum
    # A delta of two cumulative sums carries the rounding of both.
    lower, upper, _ = buckets.bounds[0]
    return min(max(total, lower, floor), upper, ceiling)


def _take_one(buckets: Buckets, index: int, floor: float, ceiling: float) -> None:
    """Take an extreme out of an outer bucket, and narrow what is left of that."""
    samples, bounds = buckets
    samples[index] -= 1
    if samples[index]:
        _narrow(buckets, index, floor, ceiling)
    else:
        del samples[index], bounds[index]


def _narrow(buckets: Buckets, index: int, floor: float, ceiling: float) -> None:
    """Bound an outer bucket by what is known of the smallest and the largest sample."""
    lower, upper, reference = buckets.bounds[index]
    lower, upper = min(max(lower, floor), ceiling), min(max(upper, floor), ceiling)
    if not lower < reference < upper:
        reference = short_between(lower, upper)
    buckets.bounds[index] = lower, upper, reference


def _placed(buckets: Buckets, total: float, *, is_explicit: bool) -> tuple[list[float], list[int]]:
    """Place the samples that are not extremes, so that they add up to ``total``."""
    if not buckets.samples:
        return [], []
    if len(buckets.samples) > MAX_BUCKETS:
        buckets = _coarsened(buckets, MAX_BUCKETS - ROOM_FOR_PERCENTILES)
    samples, bounds = buckets
    if bounds[0][0] < -_FARTHEST_EDGE or bounds[-1][1] > _FARTHEST_EDGE:
        samples, bounds = buckets = Buckets(samples, _closed(buckets, total))
    if len(samples) == 1 and samples[0] == 1:
        lower, upper, _ = bounds[0]
        value = min(max(total, lower), upper)
        # The last digits of what is left of a sum are rounding, but not those of a whole number.
        return [value if value == int(value) else _rounded(value, 15, lower, upper)], samples
    finer = _divided(buckets, total, is_explicit=is_explicit)
    values = None if is_explicit or not _are_spread(buckets) else _moved(finer, total)
    if values is None:
        finer = finer if _can_add_up_to(finer, total) else buckets
        values = _at_common_fraction(finer, total)
    return values, finer.samples


def _divided(buckets: Buckets, total: float, *, is_explicit: bool) -> Buckets:
    """The same samples in narrower buckets, where several samples share a wide one."""
    if is_explicit:
        return refined(buckets, total, MAX_BUCKETS) or buckets
    return _with_crowded_divided(buckets) if max(buckets.samples) >= _CROWD else buckets


def _are_spread(buckets: Buckets) -> bool:
    """Whether few samples are in over-full buckets, and none is negative.

    Where buckets are wide, or samples crowd, a percentile is likely to be among those that would be moved; and samples
    of both signs have to be moved far.
    """
    samples, bounds = buckets
    crowded = sum(count for count in samples if count >= _CROWD)
    return bounds[0][0] >= 0 and crowded * 2 <= sum(samples)


def _moved(buckets: Buckets, total: float) -> list[float] | None:
    """The references, as few of them moved inside their buckets as make the sum ``total``; ``None`` if many would be.

    The heaviest are moved first: they have to go the shortest way.
    """
    samples, bounds = buckets
    values = [reference for _, _, reference in bounds]
    weights = [*map(mul, values, samples)]
    left = -math.fsum([*weights, -total])  # rounded once: sums of whole numbers come out right to the last digit
    if bounds[0][0] < 0:
        weights = [*map(abs, weights)]
    for _ in range(_MAX_MOVED):
        weight = max(weights)
        if not weight:
            break
        heaviest = weights.index(weight)
        count, (lower, upper, value) = samples[heaviest], bounds[heaviest]
        wanted = value + left / count
        if lower < wanted < upper:
            values[heaviest] = _rounded(wanted, 14, lower, upper) if count == 1 else wanted
            return values
        beside = lower + (upper - lower) * (1 - _BESIDE_EDGE if left > 0 else _BESIDE_EDGE)
        beside = _rounded(beside, 6, lower, upper)
        left += value * count - beside * count
        values[heaviest], weights[heaviest] = beside, 0.0
    return None if left else values


def _rounded(value: float, digits: int, lower: float, upper: float) -> float:
    """The value with so many digits, if that does not lead out of its bucket: further ones cost bytes."""
    rounded = float(f"{value:.{digits}g}")
    return rounded if lower < rounded < upper else value


def _coarsened(buckets: Buckets, most: int) -> Buckets:
    """Join neighbouring buckets until at most ``most`` are left.

    Those that touch come first, then those that hold none of the percentiles that are read most, then the emptiest.
    """
    rows = [(count, lower, upper) for count, (lower, upper, _) in zip(*buckets, strict=True)]
    while len(rows) > most:
        joined = _to_join(rows, min(len(rows) - most, len(rows) // 4))
        rows = [
            (count + rows[i + 1][0], lower, rows[i + 1][2]) if i in joined else (count, lower, upper)
            for i, (count, lower, upper) in enumerate(rows)
            if i - 1 not in joined
        ]
    return Buckets([count for count, _, _ in rows], [bucket_between(lower, upper) for _, lower, upper in rows])


def _to_join(rows: Sequence[tuple[int, float, float]], most: int) -> set[int]:
    """Buckets that are joined with the next one; none of them is such a next one itself."""
    places = _places_of_percentiles([count for count, _, _ in rows])

    def harm(i: int) -> tuple[bool, bool, bool, int]:
        (count, lower, upper), (next_count, next_lower, next_upper) = rows[i], rows[i + 1]
        holds_zeros = lower == upper or next_lower == next_upper
        return holds_zeros, upper != next_lower, not places.isdisjoint((i, i + 1)), count + next_count

    chosen: set[int] = set()
    for i in sorted(range(len(rows) - 1), key=harm):
        if len(chosen) == most:
            break
        if not {i - 1, i + 1} & chosen:
            chosen.add(i)
    return chosen


def _places_of_percentiles(samples: Sequence[int]) -> set[int]:
    """Which buckets hold the percentiles that are read most."""
    counted = list(accumulate(samples))
    return {bisect_left(counted, share * counted[-1]) for share in _SHARES_READ_MOST}


def _with_crowded_divided(buckets: Buckets) -> Buckets:
    """The same samples with over-full buckets divided evenly, as far as there is room for their values.

    A percentile lies in an over-full bucket more often than in another, and sometimes several do.
    """
    divided = Buckets(buckets.samples[:], buckets.bounds[:])
    for i, parts in reversed([*enumerate(_shares(buckets.samples))]):
        lower, upper, _ = buckets.bounds[i]
        if parts > 1 and lower < upper:
            counts, fractions = _parts(buckets.samples[i], parts)
            edges = [*(lower + (upper - lower) * fraction for fraction in fractions[:-1]), upper]
            divided.samples[i : i + 1] = counts
            divided.bounds[i : i + 1] = [bucket_between(begin, end) for begin, end in pairwise(edges)]
    return divided


def _shares(samples: Sequence[int]) -> list[int]:
    """How many values each bucket may have."""
    room, total = MAX_BUCKETS - len(samples), sum(samples)
    if room <= ROOM_FOR_PERCENTILES:
        places = _places_of_percentiles(samples)
        share = 1 + room // len(places)
        return [min(count // SAMPLES_PER_PART, share) if i in places else 1 for i, count in enumerate(samples)]
    return [min(count // SAMPLES_PER_PART, 1 + room * count // total) for count in samples]


@lru_cache(1000)
def _parts(samples: int, parts: int) -> tuple[list[int], list[float]]:
    """The samples of each part of a bucket, and where the parts begin and end, as fractions of the bucket."""
    ends = [samples * part // parts for part in range(parts + 1)]
    return [end - begin for begin, end in pairwise(ends)], [end / samples for end in ends]


def _can_add_up_to(buckets: Buckets, total: float) -> bool:
    samples, bounds = buckets
    lowest = math.fsum(count * lower for count, (lower, _, _) in zip(samples, bounds, strict=True))
    highest = math.fsum(count * upper for count, (_, upper, _) in zip(samples, bounds, strict=True))
    return lowest <= total <= highest


def _closed(buckets: Buckets, total: float) -> list[Bucket]:
    """Give open outer buckets an end that is as far out as ``total`` needs, and no farther.

    While the other samples are in the middle of their buckets, those of an open one have the mean that ``total`` then
    asks for. An open lower end does not go below 0 if its other edge is not negative and ``total`` allows it.
    """
    samples, bounds = buckets
    closed = [bucket_between(*_nearest_edges(lower, upper)) for lower, upper, _ in bounds]
    if bounds[-1][1] == math.inf:
        mean = _mean_left_by(samples[:-1], closed[:-1], total, samples[-1])
        if mean > closed[-1][0]:
            closed[-1] = mean, mean, mean
    lowest = math.fsum(count * lower for count, (lower, _, _) in zip(samples, closed, strict=True))
    if bounds[0][0] == -math.inf and total < lowest:
        mean = _mean_left_by(samples[1:], closed[1:], total, samples[0])
        closed[0] = mean, mean, mean
    return closed


def _nearest_edges(lower: float, upper: float) -> tuple[float, float]:
    """The part of a bucket that is needed in any case: of an open one, not more than the way to 0."""
    if lower == -math.inf:
        lower = min(0.0, upper)
    if upper == math.inf:
        upper = lower
    return max(lower, -_FARTHEST_EDGE), min(upper, _FARTHEST_EDGE)


def _mean_left_by(samples: Sequence[int], bounds: Sequence[Bucket], total: float, count: int) -> float:
    """The mean of ``count`` samples, if the others are in the middle of their buckets."""
    middles = math.fsum(each * (lower / 2 + upper / 2) for each, (lower, upper, _) in zip(samples, bounds, strict=True))
    return (total - middles) / count


def _at_common_fraction(buckets: Buckets, total: float) -> list[float]:
    """One value for each bucket, all at about the same fraction of their buckets.

    The fraction is measured from the nearer edge: wide buckets would eat its digits. The SDK's own sum carries
    rounding, so it may ask for a little less than the edges.
    """
    samples, bounds = buckets
    rows = [*zip(samples, bounds, strict=True)]
    width = math.fsum(count * (upper - lower) for count, (lower, upper, _) in rows)
    if width == 0:
        return [lower for lower, _, _ in bounds]
    above = max(math.fsum((total, *(-count * lower for count, (lower, _, _) in rows))) / width, 0.0)
    below = max(math.fsum((-total, *(count * upper for count, (_, upper, _) in rows))) / width, 0.0)
    values = [
        min(max(upper - below * (upper - lower) if below < above else lower + above * (upper - lower), lower), upper)
        for lower, upper, _ in bounds
    ]
    # Long numbers cost bytes: all are rounded, and one takes up what that does to the sum.
    rounded = [
        (lower, upper, _rounded(value, 8, lower, upper))
        for value, (lower, upper, _) in zip(values, bounds, strict=True)
    ]
    return _moved(Buckets(samples, rounded), total) or values
