"""The common case of an export: from the SDK's data point straight to the text of its datum.

Most of an export's CPU would go into objects for points, buckets and values that live for a microsecond. Where a point
is of the common kind, its text is made without them, and without a loop over buckets in Python: the edges of buckets,
the values that usually stand for their samples, and the text of these are looked up by index, in C.

Everything else is left to the plain twin: ``points``, ``distribution`` and ``wire.content_json``. On numbers, and on
histograms with few buckets, the two agree to the last digit but rounding. Where there are many, the values here are
rounded ones, and one of them takes up what that does to the sum: the same promises, in a third of the text.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import compress, pairwise
from operator import mul
from typing import Any, Final, TypeAlias

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.distribution import MAX_BUCKETS, ROOM_FOR_PERCENTILES, SAMPLES_PER_PART, Distribution
from otel_cloudwatch_flask.histogram import EDGE_TOLERANCE, edge
from otel_cloudwatch_flask.limits import MAX_MAGNITUDE, MIN_MAGNITUDE
from otel_cloudwatch_flask.wire import content_json, number_json

_Edges: TypeAlias = tuple[float, float]
"""The lower and the upper edge of a bucket."""
PointText: TypeAlias = Callable[[Any], str | None]
"""Makes the members of a datum that hold the numbers of a point; ``None`` if the point is not of the common kind."""

_STEPS: Final = 64
"""The usual value of a bucket is at one of so many places in it, the same for all buckets of a histogram."""
_FEW_VALUES: Final = 8
"""It is not worth while to look up the texts of so few."""
_DIGITS: Final = 3
"""Those that place a value in its bucket; those that tell buckets apart come on top."""
_MAX_USUAL_LENGTH: Final = 12
MAX_ENTRIES: Final = 100_000
"""What is remembered at most, at about a hundred bytes each."""

_CROWD: Final = 2 * SAMPLES_PER_PART
"""So many samples of a bucket are divided, if there is room."""

_NUMBERS: Final = (float, int)
_EXACT: Final = 10**15
"""Whole numbers below it are written with all their digits."""
_BELOW: Final = 1 - EDGE_TOLERANCE
_ABOVE: Final = 1 + EDGE_TOLERANCE


def point_text(data: sdk.DataT, factor: float) -> PointText | None:
    """What makes the texts of a metric's points, or ``None`` if these need memory or are to be scaled."""
    if factor != 1.0:
        return None
    if isinstance(data, sdk.Gauge):
        return number_text
    is_delta = data.aggregation_temporality == sdk.AggregationTemporality.DELTA
    if isinstance(data, sdk.Sum):
        return number_text if data.is_monotonic == is_delta else None
    return histogram_text if isinstance(data, sdk.ExponentialHistogram) and is_delta else None


def number_text(point: sdk.NumberDataPoint) -> str | None:
    """A delta, the current value of something that goes up and down, or a gauge's."""
    value = point.value
    if type(value) is int and -_EXACT < value < _EXACT:
        return f'"Value": {value}'
    if type(value) in _NUMBERS and (MIN_MAGNITUDE <= abs(value) <= MAX_MAGNITUDE or value == 0):
        return f'"Value": {number_json(float(value))}'
    return None


def histogram_text(point: sdk.ExponentialHistogramDataPoint) -> str | None:
    """The values and counts of samples that are not negative, whose minimum and maximum were recorded."""
    if not _has_common_numbers(point):
        return None
    counts, offset, zeros = point.positive.bucket_counts, point.positive.offset, point.zero_count
    minimum, maximum = float(point.min), float(point.max)
    samples = [*filter(None, counts)]
    if zeros + sum(samples) != point.count or point.scale < 0:
        return None
    if not samples:
        return None if maximum else _text([0.0], [zeros])
    indexes = [*compress(range(offset, offset + len(counts)), counts)]
    buckets = _Buckets(_scales[point.scale], indexes, samples)
    if not buckets.hold(None if zeros else minimum, maximum):
        return None
    if minimum == maximum:
        return _text([minimum], [point.count])
    inner = buckets.inner_values(math.fsum((point.sum, -minimum, -maximum)), None if zeros else minimum, maximum)
    return None if inner is None else _text([minimum, *inner, maximum], [zeros or 1, *buckets.samples, 1])


def _has_common_numbers(point: sdk.ExponentialHistogramDataPoint) -> bool:
    minimum, maximum = point.min, point.max
    return (
        type(minimum) in _NUMBERS
        and type(maximum) in _NUMBERS
        and type(point.sum) in _NUMBERS
        and (minimum == 0 if point.zero_count else minimum >= MIN_MAGNITUDE)
        and minimum <= maximum <= MAX_MAGNITUDE
        and abs(point.sum) <= MAX_MAGNITUDE
        and not getattr(point, "zero_threshold", 0)
        and not any(point.negative.bucket_counts)
    )


def _text(values: list[float], counts: list[int]) -> str:
    if len(set(values)) < len(values):
        return content_json(Distribution.of(zip(values, counts, strict=True)))
    if len(values) <= _FEW_VALUES:
        return f'"Values": {values}, "Counts": {counts}'
    value_texts, count_texts = map(_texts.__getitem__, values), map(_counts.__getitem__, counts)
    return f'"Values": [{", ".join(value_texts)}], "Counts": [{", ".join(count_texts)}]'


class _Table(dict[Any, Any]):
    """What is worked out when it is first asked for. All tables together are bounded, and forgotten together."""

    entries = 0

    def __init__(self, work_out: Callable[[Any], Any]) -> None:
        super().__init__()
        self._work_out = work_out

    def __missing__(self, key: Any) -> Any:
        if _Table.entries >= MAX_ENTRIES:
            for table in (_scales, _texts, _counts):
                table.clear()
            _Table.entries = 0
        _Table.entries += 1
        found = self[key] = self._work_out(key)
        return found


class _Texts(_Table):
    """The texts of numbers. Those of usual values are short, and will be needed again."""

    def __missing__(self, key: Any) -> Any:
        text = repr(key)
        return text if len(text) > _MAX_USUAL_LENGTH else super().__missing__(key)


class _Scale:
    """What is the same for all histograms of a scale, as tables by the index of a bucket."""

    def __init__(self, scale: int) -> None:
        self.growth = 2.0**2.0**-scale - 1.0
        """The width of a bucket, relative to its lower edge."""
        self.lower_edge: Callable[[int], float] = _Table(partial(edge, scale)).__getitem__
        self.usual_values = _Table(partial(self._usual_values, scale))
        """By step, each a table again."""

    def _usual_values(self, scale: int, step: int) -> Callable[[int], float]:
        digits = _DIGITS - math.floor(math.log10(self.growth))

        def value(index: int) -> float:
            lower, upper = edge(scale, index), edge(scale, index + 1)
            exact = lower + step / _STEPS * (upper - lower)
            return min(max(float(f"{exact:.{digits}g}"), lower), upper)

        return _Table(value).__getitem__


class _Buckets:
    """The filled buckets of positive samples, as lists beside each other: index, samples, lower edge.

    ``parts`` says of each, where crowded ones are divided, at what fraction of its bucket it begins, and how much of
    the bucket it is. ``head`` and ``tail`` are what is left of the outermost, where the extremes were, if anything is.
    """

    __slots__ = ("_first", "_head", "_indexes", "_last", "_lowers", "_parts", "_scale", "_tail", "samples")

    def __init__(self, scale: _Scale, indexes: list[int], samples: list[int]) -> None:
        self.samples = samples
        self._scale = scale
        self._indexes = indexes
        self._lowers = [*map(scale.lower_edge, indexes)]
        self._parts: list[tuple[float, float]] | None = None
        self._head: _Edges | None = None
        self._tail: _Edges | None = None
        self._first: _Edges = (self._lowers[0], scale.lower_edge(indexes[0] + 1))
        self._last: _Edges = (self._lowers[-1], scale.lower_edge(indexes[-1] + 1))

    def hold(self, minimum: float | None, maximum: float) -> bool:
        """Whether these may be the smallest and the largest sample in them, where there is none but 0 below."""
        lower, upper = self._first
        if minimum is not None and not lower * _BELOW <= minimum <= upper * _ABOVE:
            return False
        lower, upper = self._last
        return lower * _BELOW <= maximum <= upper * _ABOVE

    def inner_values(self, total: float, minimum: float | None, maximum: float) -> list[float] | None:
        """One value for the samples of each but the extremes, so that they add up to ``total``.

        ``samples`` are then those that each value stands for. ``None``: this is a case for the twin.
        """
        is_crowded = max(self.samples) >= _CROWD
        room = MAX_BUCKETS - ROOM_FOR_PERCENTILES if is_crowded else MAX_BUCKETS
        if len(self.samples) > room or min(self.samples) < 0 or self._lowers[0] < MIN_MAGNITUDE:
            return None
        self._take_out(minimum, maximum)
        if len(self.samples) <= 1:
            return self._only_value(total, minimum, maximum)
        if is_crowded:
            if self._is_outermost_crowded():
                return None
            self._divide_crowded()
        return self._values(total)

    def _take_out(self, minimum: float | None, maximum: float) -> None:
        """Take the extremes out of their buckets; of what is left there, only the part between them is."""
        if self._has_more_than_one(-1):
            self._tail = (self._last[0], min(self._last[1], maximum))
        if minimum is not None and self.samples and self._has_more_than_one(0):
            self._head = (max(self._first[0], minimum), self._first[1])

    def _is_outermost_crowded(self) -> bool:
        first, last = self.samples[0], self.samples[-1]
        return (self._head is not None and first >= _CROWD) or (self._tail is not None and last >= _CROWD)

    def _has_more_than_one(self, place: int) -> bool:
        """Take one sample out of an outer bucket; whether there are others in it."""
        self.samples[place] -= 1
        if self.samples[place]:
            return True
        del self.samples[place], self._indexes[place], self._lowers[place]
        return False

    def _only_value(self, total: float, minimum: float | None, maximum: float) -> list[float] | None:
        if not self.samples:
            return []
        (index,), (samples,), (lower,) = self._indexes, self.samples, self._lowers
        value = total / samples
        lowest, highest = max(lower, minimum or 0.0), min(self._scale.lower_edge(index + 1), maximum)
        return [value] if samples < _CROWD and lowest <= value <= highest else None

    def _divide_crowded(self) -> None:
        """Divide them evenly, as the twin does, as far as there is room."""
        room, total = MAX_BUCKETS - len(self.samples), sum(self.samples)
        rows = [
            (index, end - begin, lower, (begin / samples, (end - begin) / samples))
            for index, samples, lower in zip(self._indexes, self.samples, self._lowers, strict=True)
            for begin, end in _even_parts(samples, min(samples // SAMPLES_PER_PART, 1 + room * samples // total))
        ]
        self._indexes, self.samples, self._lowers, self._parts = map(list, zip(*rows, strict=True))

    def _values(self, total: float) -> list[float] | None:
        """One value in each, at the same fraction of its width."""
        samples = self.samples
        masses = [*map(mul, samples, self._lowers)]
        lowest, width = self._lowest_and_width(masses)
        if not 0.0 <= total - lowest <= width or width <= 0.0:
            return None
        fraction = (total - lowest) / width
        if len(samples) > _FEW_VALUES:
            values = self._with_narrower(self._usual_values(fraction), fraction)
            # The heaviest bucket has most room to take up what rounding does to the sum.
            heaviest = masses.index(max(masses))
            values[heaviest] += (total - math.fsum(map(mul, samples, values))) / samples[heaviest]
            if self._may_hold(heaviest, values[heaviest]) and _is_in_order(values, heaviest):
                return values
        return self._with_narrower(self._exact_values(fraction), fraction)

    def _lowest_and_width(self, masses: list[float]) -> tuple[float, float]:
        """The sum if all samples were at the lower edges, and how much more it were at the upper ones."""
        growth, samples, lowers = self._scale.growth, self.samples, self._lowers
        lowest = math.fsum(masses)
        width = lowest * growth
        if self._parts is not None:
            lowest += growth * math.fsum(mass * begin for mass, (begin, _) in zip(masses, self._parts, strict=True))
            width = growth * math.fsum(mass * share for mass, (_, share) in zip(masses, self._parts, strict=True))
        if self._head is not None:
            lower, upper = self._head
            lowest += samples[0] * (lower - lowers[0])
            width += samples[0] * (upper - lower - lowers[0] * growth)
        if self._tail is not None:
            lower, upper = self._tail
            width += samples[-1] * (upper - lower - lowers[-1] * growth)
        return lowest, width

    def _with_narrower(self, values: list[float], fraction: float) -> list[float]:
        """These values, with those of the narrower outer buckets in their places."""
        for place, edges in ((0, self._head), (-1, self._tail)):
            if edges is not None:
                lower, upper = edges
                values[place] = lower + fraction * (upper - lower)
        return values

    def _usual_values(self, fraction: float) -> list[float]:
        usual = self._scale.usual_values
        if self._parts is None:
            return [*map(usual[round(fraction * _STEPS)], self._indexes)]
        return [
            usual[round((begin + fraction * share) * _STEPS)](index)
            for index, (begin, share) in zip(self._indexes, self._parts, strict=True)
        ]

    def _exact_values(self, fraction: float) -> list[float]:
        growth = self._scale.growth
        if self._parts is None:
            multiple = 1.0 + fraction * growth
            return [lower * multiple for lower in self._lowers]
        return [
            lower * (1.0 + growth * (begin + fraction * share))
            for lower, (begin, share) in zip(self._lowers, self._parts, strict=True)
        ]

    def _may_hold(self, place: int, value: float) -> bool:
        lowest, highest = self._lowers[place], self._scale.lower_edge(self._indexes[place] + 1)
        if self._head is not None and place == 0:
            lowest = self._head[0]
        if self._tail is not None and place == len(self.samples) - 1:
            highest = self._tail[1]
        return lowest <= value <= highest


def _is_in_order(values: list[float], place: int) -> bool:
    """Whether the value at a place of ascending ones is where it belongs: another part of its bucket may be near."""
    return values[max(place - 1, 0)] <= values[place] <= values[min(place + 1, len(values) - 1)]


def _even_parts(samples: int, parts: int) -> Iterator[tuple[int, int]]:
    """Where each of so many parts of the samples begins and ends."""
    if parts <= 1:
        return iter(((0, samples),))
    ends = [samples * part // parts for part in range(parts + 1)]
    return pairwise(ends)


_scales: Final = _Table(_Scale)
_texts: Final = _Texts(repr)
_counts: Final = _Table(str)
