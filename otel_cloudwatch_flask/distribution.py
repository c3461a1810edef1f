"""Histograms as CloudWatch takes them: at most 150 values, each with the number of samples it stands for.

Count, sum, minimum and maximum of the values are those of the histogram, and every value lies in the bucket of its
samples, so that a percentile is never more than one bucket's width off.

How: the minimum and the maximum become values of their own and bound the outer buckets. Every other sample is placed
in its bucket, and one common fraction, the same for all buckets, is chosen so that the sum comes out right. If every
sample is put at the lower edge of its bucket, the sum is too small; at the upper edge, too large; so a fraction that
fits always exists. It is measured from the nearer edge, since bounds as wide as 2^1024 would eat its digits.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from otel_cloudwatch_flask.density import refined
from otel_cloudwatch_flask.histogram import Bucket, ExplicitHistogram, Extremes, Histogram
from otel_cloudwatch_flask.limits import MAX_VALUES_PER_DATUM
from otel_cloudwatch_flask.magnitudes import sendable

MAX_BUCKETS: Final = MAX_VALUES_PER_DATUM - 2
"""Filled buckets that one datum can hold beside the minimum and the maximum."""

_SHARES_READ_MOST: Final = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)

ROOM_FOR_PERCENTILES: Final = 2 * len(_SHARES_READ_MOST)
"""What is kept free where buckets are joined anyway, to divide those that hold such a percentile."""

SAMPLES_PER_PART: Final = 6
"""So many samples of an exponential bucket share a value at least: it is narrow."""

_FARTHEST_EDGE: Final = 2.0**370
"""Stands for an edge beyond it: no value there can be sent, and sums of such edges stay finite."""


class Value(NamedTuple):
    """A value and how many samples it stands for."""

    value: float
    samples: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a datum says of several samples: ascending values and, beside each, how many samples it stands for."""

    values: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, samples: Iterable[tuple[float, int]]) -> "Distribution":
        """Put samples in order and equal ones together."""
        total: dict[float, int] = {}
        for value, count in samples:
            total[value] = total.get(value, 0) + count
        ordered = sorted(total.items())
        return cls(tuple(value for value, _ in ordered), tuple(count for _, count in ordered))

    def __iter__(self) -> Iterator[Value]:
        return map(Value, self.values, self.counts)

    @property
    def count(self) -> int:
        """The number of samples."""
        return sum(self.counts)

    @property
    def sum(self) -> float:
        """The sum of all samples."""
        return math.fsum(value * count for value, count in self)


def distribution(histogram: Histogram) -> Distribution | None:
    """The values and counts to send for a histogram with samples, or ``None`` if CloudWatch takes no such numbers."""
    if not all(
        _is_sendable(extreme, histogram.factor) for extreme in (histogram.extremes.minimum, histogram.extremes.maximum)
    ):
        return None
    values = [Value(value * histogram.factor, count) for value, count in _represent(histogram)]
    sent = [Value(number, count) for value, count in values if (number := sendable(value)) is not None]
    return Distribution.of(sent) if len(sent) == len(values) else None


def _is_sendable(extreme: float | None, factor: float) -> bool:
    return extreme is None or sendable(extreme * factor) is not None


def combined(distributions: Iterable[Distribution]) -> Distribution:
    """The samples of all of them, with at most 150 values.

    Where there are more, neighbours share their weighted mean, the nearest ones first; count and sum stay, and so do
    the minimum and the maximum.
    """
    together = Distribution.of(sample for each in distributions for sample in each)
    if len(together.values) <= MAX_VALUES_PER_DATUM:
        return together
    first, *inner, last = together
    return Distribution.of([first, *_condensed(inner, MAX_VALUES_PER_DATUM - 2), last])


def _condensed(values: list[Value], most: int) -> list[Value]:
    """Replace neighbours by their weighted mean, in pairs, the nearest first, until at most ``most`` are left."""
    while len(values) > most:
        surplus = len(values) - most
        pairs = range(0, len(values) - 1, 2)
        nearest = set(sorted(pairs, key=lambda i: values[i + 1].value - values[i].value)[:surplus])
        values = [value for i in range(0, len(values), 2) for value in _joined(values[i : i + 2], i in nearest)]
    return values


def _joined(pair: list[Value], join: bool) -> list[Value]:  # noqa: FBT001 - one private caller, where it reads well
    if not join:
        return pair
    (low, low_count), (high, high_count) = pair
    count = low_count + high_count
    return [Value(low + (high - low) * (high_count / count), count)]


def _represent(histogram: Histogram) -> list[Value]:
    """Values, in the histogram's own unit, with its count, sum, minimum and maximum."""
    minimum, maximum = histogram.extremes.minimum, histogram.extremes.maximum
    if histogram.count == 1:
        return [Value(_only_sample(histogram), 1)]
    buckets = _bounded(histogram.buckets(), histogram.extremes)
    taken = [extreme for extreme in (minimum, maximum) if extreme is not None]
    if minimum is not None:
        buckets = _without_one(buckets, 0)
    if maximum is not None:
        buckets = _without_one(buckets, -1)
    inner_sum = math.fsum((histogram.sum, *(-extreme for extreme in taken)))
    inner = _inner_values(buckets, inner_sum, is_explicit=isinstance(histogram, ExplicitHistogram))
    return [*(Value(extreme, 1) for extreme in taken), *inner]


def _only_sample(histogram: Histogram) -> float:
    for extreme in (histogram.extremes.minimum, histogram.extremes.maximum):
        if extreme is not None:
            return extreme
    return histogram.sum


def _bounded(buckets: list[Bucket], extremes: Extremes) -> list[Bucket]:
    """Narrow the buckets to what is known of the smallest and the largest sample."""

    def narrowed(edge: float) -> float:
        return min(max(edge, extremes.floor), extremes.ceiling)

    return [Bucket(narrowed(lower), narrowed(upper), count) for lower, upper, count in buckets]


def _without_one(buckets: list[Bucket], index: int) -> list[Bucket]:
    lower, upper, count = buckets[index]
    remaining = list(buckets)
    if count > 1:
        remaining[index] = Bucket(lower, upper, count - 1)
    else:
        del remaining[index]
    return remaining


def _inner_values(buckets: list[Bucket], total: float, *, is_explicit: bool) -> list[Value]:
    """Place the samples that are no extremes, so that they add up to ``total``."""
    if not buckets:
        return []
    has_room = len(buckets) <= MAX_BUCKETS
    buckets = _closed(buckets if has_room else _coarsened(buckets, MAX_BUCKETS - ROOM_FOR_PERCENTILES), total)
    if len(buckets) == 1 and buckets[0].samples == 1:
        lower, upper, _ = buckets[0]
        return [Value(min(max(total, lower), upper), 1)]
    finer = refined(buckets, total, MAX_BUCKETS) if is_explicit else _with_crowded_divided(buckets, total)
    buckets = finer or buckets
    fraction = _common_fraction(buckets, total)
    return [_placed(bucket, fraction) for bucket in buckets]


def _coarsened(buckets: list[Bucket], most: int) -> list[Bucket]:
    """Join neighbouring buckets until at most ``most`` are left.

    Those that touch come first, then those that hold none of the percentiles that are read most, then the emptiest.
    """
    while len(buckets) > most:
        joined = _to_join(buckets, min(len(buckets) - most, len(buckets) // 4))
        buckets = [
            _joined_buckets(bucket, buckets[i + 1]) if i in joined else bucket
            for i, bucket in enumerate(buckets)
            if i - 1 not in joined
        ]
    return buckets


def _to_join(buckets: list[Bucket], most: int) -> set[int]:
    """Buckets that are joined with the next one; none of them is such a next one itself."""
    places = _places_of_percentiles([bucket.samples for bucket in buckets])

    def harm(i: int) -> tuple[bool, bool, int]:
        first, second = buckets[i], buckets[i + 1]
        return first.upper != second.lower, not places.isdisjoint((i, i + 1)), first.samples + second.samples

    chosen: set[int] = set()
    for i in sorted(range(len(buckets) - 1), key=harm):
        if len(chosen) == most:
            break
        if not {i - 1, i + 1} & chosen:
            chosen.add(i)
    return chosen


def _places_of_percentiles(samples: list[int]) -> set[int]:
    """Which buckets hold the percentiles that are read most."""
    counted = list(accumulate(samples))
    return {bisect_left(counted, share * counted[-1]) for share in _SHARES_READ_MOST}


def _joined_buckets(first: Bucket, second: Bucket) -> Bucket:
    return Bucket(first.lower, second.upper, first.samples + second.samples)


def _with_crowded_divided(buckets: list[Bucket], total: float) -> list[Bucket]:
    """The same samples with crowded buckets divided evenly, as far as there is room for their values.

    A percentile lies in a crowded bucket more often than in another, and sometimes several do.
    """
    room = MAX_BUCKETS - len(buckets)
    samples = sum(bucket.samples for bucket in buckets)
    shares = [1 + room * bucket.samples // samples for bucket in buckets]
    if room <= ROOM_FOR_PERCENTILES:
        places = _places_of_percentiles([bucket.samples for bucket in buckets])
        shares = [1 + room // len(places) if i in places else 1 for i in range(len(buckets))]
    divided = [
        part
        for bucket, share in zip(buckets, shares, strict=True)
        for part in _divided_evenly(bucket, min(bucket.samples // SAMPLES_PER_PART, share))
    ]
    return divided if _can_add_up_to(divided, total) else buckets


def _divided_evenly(bucket: Bucket, parts: int) -> list[Bucket]:
    lower, upper, samples = bucket
    if parts <= 1:
        return [bucket]
    counted = [samples * part // parts for part in range(parts + 1)]
    edges = [lower + (upper - lower) * count / samples for count in counted[:-1]] + [upper]
    return [Bucket(edges[i], edges[i + 1], counted[i + 1] - counted[i]) for i in range(parts)]


def _can_add_up_to(buckets: list[Bucket], total: float) -> bool:
    lowest = math.fsum(samples * lower for lower, _, samples in buckets)
    highest = math.fsum(samples * upper for _, upper, samples in buckets)
    return lowest <= total <= highest


def _closed(buckets: list[Bucket], total: float) -> list[Bucket]:
    """Give open outer buckets a place that is as far out as ``total`` needs, and no farther.

    While the other samples are in the middle of their buckets, those of an open one have the mean that ``total`` then
    asks for. An open lower end does not go below 0 if its other edge is not negative and ``total`` can be had without.
    """
    closed = [_at_nearest_edges(bucket) for bucket in buckets]
    last = closed[-1]
    if buckets[-1].upper == math.inf:
        mean = _mean_left_by(closed[:-1], total, last.samples)
        if mean > last.lower:
            closed[-1] = _all_at(mean, last.samples)
    if buckets[0].lower == -math.inf and total < math.fsum(count * lower for lower, _, count in closed):
        closed[0] = _all_at(_mean_left_by(closed[1:], total, closed[0].samples), closed[0].samples)
    return closed


def _at_nearest_edges(bucket: Bucket) -> Bucket:
    """The part of a bucket that is needed in any case: of an open one, not more than the way to 0."""
    lower, upper, count = bucket
    if lower == -math.inf:
        lower = min(0.0, upper)
    if upper == math.inf:
        upper = lower
    return Bucket(max(lower, -_FARTHEST_EDGE), min(upper, _FARTHEST_EDGE), count)


def _mean_left_by(others: list[Bucket], total: float, count: int) -> float:
    middles = math.fsum(others_count * (lower / 2 + upper / 2) for lower, upper, others_count in others)
    return (total - middles) / count


def _all_at(value: float, count: int) -> Bucket:
    return Bucket(value, value, count)


@dataclass(frozen=True, slots=True)
class _Fraction:
    """How far into every bucket the mean of its samples lies, measured from the nearer edge: at most one half."""

    of_width: float
    from_upper: bool


def _common_fraction(buckets: list[Bucket], total: float) -> _Fraction:
    width = math.fsum(count * (upper - lower) for lower, upper, count in buckets)
    if width == 0:
        return _Fraction(0.0, from_upper=False)
    above = math.fsum((total, *(-count * lower for lower, _, count in buckets))) / width
    below = math.fsum((-total, *(count * upper for _, upper, count in buckets))) / width
    # The SDK's own sum carries rounding: it may ask for a little less than nothing.
    return _Fraction(max(min(above, below), 0.0), from_upper=below < above)


def _placed(bucket: Bucket, fraction: _Fraction) -> Value:
    """One value for the samples of a bucket."""
    lower, upper, samples = bucket
    distance = fraction.of_width * (upper - lower)
    value = upper - distance if fraction.from_upper else lower + distance
    return Value(min(max(value, lower), upper), samples)
