"""The common case of an export: from the SDK's data point straight to the text of its datum.

Most of an export's CPU would go into objects for points, buckets and values that live for a microsecond. Where a point
is of the common kind, its text is made without them, and without a loop over empty buckets in Python. Of a few samples
with a bucket each, the edges are worked out, and the values rounded. Of many, the edges of buckets, the values that
usually stand for their samples, and the text of these are kept in rows by the index of the bucket, out of which those
that are needed are picked in C.

Everything else is left to the plain twin: ``points``, ``distribution`` and ``wire.content_json``. On numbers the two
agree to the last digit. Of histograms the values here are mostly rounded ones, to a hundredth of their bucket, and one
of them takes up what that does to the sum: the same promises, in a third of the text.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import compress, pairwise
from operator import lt, mul
from typing import Any, Final, NamedTuple, TypeAlias

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.distribution import MAX_BUCKETS, ROOM_FOR_PERCENTILES, SAMPLES_PER_PART, Distribution
from otel_cloudwatch_flask.histogram import EDGE_TOLERANCE, edge
from otel_cloudwatch_flask.limits import MAX_MAGNITUDE, MIN_MAGNITUDE
from otel_cloudwatch_flask.wire import content_json, number_json

PointText: TypeAlias = Callable[[Any], str | None]
"""Makes the members of a datum that hold the numbers of a point; ``None`` if the point is not of the common kind."""

_STEPS: Final = 64
"""The usual value of a bucket is at one of so many places in it, the same for all buckets of a histogram."""
_FEW_VALUES: Final = 6
"""It is not worth while to look up the texts of so few."""
_DIGITS: Final = 3
"""Those that place a value in its bucket; those that tell buckets apart come on top."""

_CROWD: Final = 2 * SAMPLES_PER_PART
"""So many samples of a bucket are divided, if there is room."""
_KNOWN_DIVISIONS: Final = 1000

_BLOCK: Final = 256
"""Rows are kept in blocks, each of which begins at a multiple of it and goes on for as many buckets beyond the next."""
_ENTRIES_OF_BLOCK: Final = 40
"""What an empty block counts for."""
MAX_ENTRIES: Final = 100_000
"""What is remembered at most, at about a hundred bytes each."""

_FINEST_SCALE: Final = 20
"""Buckets of finer ones are about as wide as what the SDK's rounding may put an extreme beside its own."""

_MAX_LONE_SAMPLES: Final = 12
"""Up to so many samples it is likely that each has a bucket of its own."""
_COUNTS_OF_LONE_SAMPLES: Final = tuple(str([1] * samples) for samples in range(_MAX_LONE_SAMPLES + 1))

_NUMBERS: Final = (float, int)
_EXACT: Final = 10**15
"""Whole numbers below it are written with all their digits."""
_BELOW: Final = 1 - EDGE_TOLERANCE
_ABOVE: Final = 1 + EDGE_TOLERANCE
_NEAR_EDGE: Final = 0.01
"""The fraction of a bucket, at either end, that rounding to so many digits might lead out of."""
_ROUNDING: Final = 1e-13
"""More than what 14 digits, which are written in half the time of all, may change a number by."""


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
    if len(point.positive.bucket_counts) > _BLOCK or not _has_common_numbers(point):
        return None
    return _text_of_lone_samples(point) or _text_of_buckets(point)


def _text_of_buckets(point: sdk.ExponentialHistogramDataPoint) -> str | None:
    counts, zeros = point.positive.bucket_counts, point.zero_count
    samples = [*filter(None, counts)]
    if zeros + sum(samples) != point.count:
        return None
    minimum, maximum = float(point.min), float(point.max)
    if not samples:
        return None if maximum else _text([0.0], [zeros])
    buckets = _Buckets(_scales[point.scale], point.positive.offset, counts, samples)
    lowest = None if zeros else minimum
    if not buckets.hold(lowest, maximum):
        return None
    if minimum == maximum:
        return _text([minimum], [point.count])
    values = buckets.inner_values(math.fsum((point.sum, -minimum, -maximum)), lowest, maximum)
    if values is None:
        return None
    return _text([minimum, *values, maximum], [zeros or 1, *buckets.samples, 1], buckets.texts)


def _text_of_lone_samples(point: sdk.ExponentialHistogramDataPoint) -> str | None:
    """Of a few samples that have a bucket each: all but the extremes are at the same fraction of theirs.

    They are rounded, and the last takes up what that does to the sum.
    """
    gaps = _gaps_before_lone_samples(point)
    if gaps is None:
        return None
    scale, index = _scales[point.scale], point.positive.offset - 1
    doublings, growth = scale.doublings, scale.growth
    lowers = []
    for gap in gaps:
        index += len(gap) + 1
        lowers.append(2.0 ** (index * doublings))
    minimum, maximum = float(point.min), float(point.max)
    if not (scale.may_hold(lowers.pop(0), minimum) and scale.may_hold(lowers.pop(), maximum)):
        return None
    value, lowest = point.sum - minimum - maximum, sum(lowers)
    fraction = (value - lowest) / (lowest * growth)
    if not _NEAR_EDGE <= fraction <= 1.0 - _NEAR_EDGE:
        return None
    multiple, template, texts = 1.0 + fraction * growth, scale.template, ""
    lower_of_last = lowers.pop()
    for lower in lowers:
        text = template % (lower * multiple)
        texts += text + ", "
        value -= float(text)
    if not lower_of_last * (1.0 + _ROUNDING) <= value <= lower_of_last * scale.ratio * (1.0 - _ROUNDING):
        return None
    if value >= maximum:
        return None
    texts += f"{value:.14g}" if texts else repr(value)  # alone, it is as exact as the sum
    return f'"Values": [{minimum}, {texts}, {maximum}], "Counts": {_COUNTS_OF_LONE_SAMPLES[point.count]}'


def _gaps_before_lone_samples(point: sdk.ExponentialHistogramDataPoint) -> list[bytearray] | None:
    """The empty buckets before each sample, if there are three to twelve, and each has its own."""
    samples = point.count
    if not 2 < samples <= _MAX_LONE_SAMPLES or point.zero_count:
        return None
    try:
        flat = bytearray(point.positive.bucket_counts)
    except ValueError:  # no number of samples, or more than there are
        return None
    is_each_lone = flat.count(1) == samples == len(flat) - flat.count(0)
    return flat.split(b"\1")[:-1] if is_each_lone else None


def _has_common_numbers(point: sdk.ExponentialHistogramDataPoint) -> bool:
    minimum, maximum = point.min, point.max
    return (
        type(minimum) in _NUMBERS
        and type(maximum) in _NUMBERS
        and type(point.sum) in _NUMBERS
        and (minimum == 0 if point.zero_count else minimum >= MIN_MAGNITUDE)
        and minimum <= maximum <= MAX_MAGNITUDE
        and abs(point.sum) <= MAX_MAGNITUDE
        and 0 <= point.scale <= _FINEST_SCALE
        and not getattr(point, "zero_threshold", 0)
        and not any(point.negative.bucket_counts)
    )


def _text(values: list[float], counts: list[int], inner_texts: list[str] | None = None) -> str:
    if not all(map(lt, values, values[1:])):
        return content_json(Distribution.of(zip(values, counts, strict=True)))
    if inner_texts is None:
        return f'"Values": {values}, "Counts": {counts}'
    return f'"Values": [{values[0]}, {", ".join(inner_texts)}, {values[-1]}], "Counts": {counts}'


class _Row:
    """What belongs to each bucket of a scale, by the index of the bucket; worked out when it is first asked for.

    All rows together are bounded, and forgotten together.
    """

    entries = 0

    def __init__(self, work_out: Callable[[int], Any]) -> None:
        self._work_out = work_out
        self._blocks: dict[int, list[Any]] = {}

    def of(self, offset: int, counts: Sequence[int]) -> list[Any]:
        """What belongs to the buckets that hold anything, where ``offset`` is the index of the first count."""
        number, start = divmod(offset, _BLOCK)
        block = self._blocks.get(number) or self._new_block(number)
        found = [*compress(block[start : start + len(counts)], counts)]
        if not all(found):
            places = compress(range(start, start + len(counts)), counts)
            return [block[place] or self._filled(block, number, place) for place in places]
        return found

    def at(self, index: int) -> Any:
        """What belongs to one bucket."""
        number, place = divmod(index, _BLOCK)
        block = self._blocks.get(number) or self._new_block(number)
        return block[place] or self._filled(block, number, place)

    def _new_block(self, number: int) -> list[Any]:
        _make_room(_ENTRIES_OF_BLOCK)
        block = self._blocks[number] = [None] * (2 * _BLOCK)
        return block

    def _filled(self, block: list[Any], number: int, place: int) -> Any:
        _make_room(1)
        block[place] = self._work_out(number * _BLOCK + place)
        return block[place]


def _make_room(entries: int) -> None:
    if _Row.entries >= MAX_ENTRIES:
        _scales.clear()
        _Row.entries = 0
    _Row.entries += entries


class _Scale:
    """What is the same for all histograms of a scale, in rows by the index of a bucket."""

    def __init__(self, scale: int) -> None:
        self._scale = scale
        self.growth: float = 2.0**2.0**-scale - 1.0
        """The width of a bucket, relative to its lower edge."""
        self.ratio: float = 1.0 + self.growth
        self.doublings = 2.0**-scale
        """Those from a bucket's lower edge to the next's."""
        self.lower_edges = _Row(partial(edge, scale))
        self._digits = _DIGITS - math.floor(math.log10(self.growth))
        self.template = f"%.{self._digits}g"
        self._usual: dict[int, tuple[_Row, _Row]] = {}

    def may_hold(self, lower: float, value: float) -> bool:
        """Whether a value may be in the bucket with this lower edge."""
        return lower * _BELOW <= value <= lower * self.ratio * _ABOVE

    def usual(self, fraction: float) -> tuple[_Row, _Row]:
        """The usual values nearest to this fraction of each bucket, and their texts."""
        step = round(fraction * _STEPS)
        rows = self._usual.get(step)
        if rows is None:
            value = partial(self._usual_value, step)
            rows = self._usual[step] = _Row(value), _Row(lambda index: repr(value(index)))
        return rows

    def _usual_value(self, step: int, index: int) -> float:
        lower, upper = edge(self._scale, index), edge(self._scale, index + 1)
        exact = lower + step / _STEPS * (upper - lower)
        return min(max(float(f"{exact:.{self._digits}g}"), lower), upper)


class _Scales(dict[int, _Scale]):
    def __missing__(self, scale: int) -> _Scale:
        made = self[scale] = _Scale(scale)
        return made


_scales: Final = _Scales()


_Parts: TypeAlias = list[tuple[float, float]]
"""At what fraction of a bucket each of its parts begins, and how much of the bucket it is."""


class _Division(NamedTuple):
    """The samples of a crowded bucket in parts."""

    samples: list[int]
    parts: _Parts
    rise: float
    """How much the sum is more than that of the bucket's lower edges, in its widths, if all are where parts begin."""
    spread: float
    """How much more it is, in widths of the bucket, if all are where parts end."""


@lru_cache(_KNOWN_DIVISIONS)
def _divided(samples: int, parts: int) -> _Division:
    """Divide them evenly, as the twin does."""
    ends = list(pairwise(samples * part // parts for part in range(parts + 1)))
    each = [end - begin for begin, end in ends]
    rise = math.fsum((end - begin) * begin for begin, end in ends) / samples
    spread = math.fsum((end - begin) ** 2 for begin, end in ends) / samples
    return _Division(each, [(begin / samples, (end - begin) / samples) for begin, end in ends], rise, spread)


class _Buckets:
    """The filled buckets of positive samples, as lists beside each other: samples, lower edge.

    With :meth:`inner_values` they lose the extremes: ``samples`` are then those that each value stands for, and
    ``texts`` are the values', if these were looked up.
    """

    __slots__ = ("_counts", "_crowds", "_inside", "_lowers", "_offset", "_outer", "_scale", "samples", "texts")

    def __init__(self, scale: _Scale, offset: int, counts: Sequence[int], samples: list[int]) -> None:
        self._scale = scale
        self._offset = offset
        self._counts = counts
        self._lowers: list[float] = scale.lower_edges.of(offset, counts)
        self._inside = slice(None)
        self._outer: list[tuple[int, float, float]] = []
        """Those places, 0 and -1, where an extreme was taken out and others are left; lower and upper edge of that."""
        self._crowds: list[tuple[int, int, _Parts]] = []
        """Where the values of a divided bucket begin, and its index."""
        self.samples = samples
        self.texts: list[str] | None = None

    def hold(self, minimum: float | None, maximum: float) -> bool:
        """Whether these may be the smallest and the largest sample in them, where there is none but 0 below."""
        may_hold = self._scale.may_hold
        return (minimum is None or may_hold(self._lowers[0], minimum)) and may_hold(self._lowers[-1], maximum)

    def inner_values(self, total: float, minimum: float | None, maximum: float) -> list[float] | None:
        """One value for the samples of each but the extremes, so that they add up to ``total``.

        ``None``: this is a case for the twin.
        """
        if self._lowers[0] < MIN_MAGNITUDE:
            return None
        self._take_out(minimum, maximum)
        if len(self.samples) <= 1:
            return self._only_value(total, minimum, maximum)
        if min(self.samples) < 0 or len(self.samples) > MAX_BUCKETS:
            return None
        is_crowded = max(self.samples) >= _CROWD
        return None if is_crowded and not self._is_divisible() else self._values(total, is_crowded=is_crowded)

    def _take_out(self, minimum: float | None, maximum: float) -> None:
        """Take the extremes out of their buckets; of what is left there, only the part between them is."""
        samples, lowers, ratio = self.samples, self._lowers, self._scale.ratio
        samples[-1] -= 1
        if minimum is not None:
            samples[0] -= 1
            if samples[0]:
                self._outer.append((0, max(lowers[0], minimum), max(lowers[0] * ratio, minimum)))
        if samples[-1]:
            self._outer.append((-1, min(lowers[-1], maximum), min(lowers[-1] * ratio, maximum)))
        self._inside = slice(0 if samples[0] else 1, len(samples) - (0 if samples[-1] else 1))
        self.samples, self._lowers = samples[self._inside], lowers[self._inside]

    def _only_value(self, total: float, minimum: float | None, maximum: float) -> list[float] | None:
        if not self.samples:
            return []
        (samples,), (lower,) = self.samples, self._lowers
        value = total / samples
        lowest, highest = max(lower, minimum or 0.0), min(lower * self._scale.ratio, maximum)
        return [value] if 0 < samples < _CROWD and lowest <= value <= highest else None

    def _is_divisible(self) -> bool:
        has_room = len(self.samples) <= MAX_BUCKETS - ROOM_FOR_PERCENTILES
        return has_room and all(self.samples[place] < _CROWD for place, _, _ in self._outer)

    def _values(self, total: float, *, is_crowded: bool) -> list[float] | None:
        """One value in each bucket, or part of one, at the same fraction of its width."""
        growth = self._scale.growth
        lowest = math.fsum(map(mul, self.samples, self._lowers))
        width = lowest * growth
        if is_crowded:
            rise, spread = self._divide_crowded()
            lowest += rise * growth
            width += spread * growth
        for place, lower, upper in self._outer:
            samples, edge_of_whole = self.samples[place], self._lowers[place]
            lowest += samples * (lower - edge_of_whole)
            width += samples * (upper - lower - edge_of_whole * growth)
        if not 0.0 <= total - lowest <= width or width <= 0.0:
            return None
        fraction = (total - lowest) / width
        if (self._crowds or len(self.samples) > _FEW_VALUES) and (
            usual := self._usual_values(fraction, total)
        ) is not None:
            return usual
        return None if self._crowds else self._exact_values(fraction)

    def _divide_crowded(self) -> tuple[float, float]:
        """Divide them evenly, as the twin does, as far as there is room; what that does to the sum and its width."""
        samples, lowers = self.samples, self._lowers
        room, total = MAX_BUCKETS - len(samples), sum(samples)
        indexes = [*compress(range(self._offset, self._offset + len(self._counts)), self._counts)][self._inside]
        rise = spread = 0.0
        shift = 0
        for place, crowd in [(place, crowd) for place, crowd in enumerate(samples) if crowd >= _CROWD]:
            parts = min(crowd // SAMPLES_PER_PART, 1 + room * crowd // total)
            if parts > 1:
                division, begin = _divided(crowd, parts), place + shift
                lower = lowers[begin]
                rise += lower * division.rise
                spread += lower * (division.spread - crowd)
                samples[begin : begin + 1] = division.samples
                lowers[begin : begin + 1] = [lower] * parts
                self._crowds.append((begin, indexes[place], division.parts))
                shift += parts - 1
        return rise, spread

    def _usual_values(self, fraction: float, total: float) -> list[float] | None:
        """The nearest of those whose texts are known but one, which takes up what that does to the sum, if it can."""
        value_row, text_row = self._scale.usual(fraction)
        values: list[float] = value_row.of(self._offset, self._counts)[self._inside]
        texts: list[str] = text_row.of(self._offset, self._counts)[self._inside]
        for begin, index, parts in self._crowds:
            rows = [self._scale.usual(part_begin + fraction * share) for part_begin, share in parts]
            values[begin : begin + 1] = [row.at(index) for row, _ in rows]
            texts[begin : begin + 1] = [row.at(index) for _, row in rows]
        for place, lower, upper in self._outer:
            values[place] = lower + fraction * (upper - lower)
            texts[place] = repr(values[place])
        # The heaviest has most room for it.
        masses = [*map(mul, self.samples, values)]
        heaviest = masses.index(max(masses))
        values[heaviest] += (total - math.fsum(masses)) / self.samples[heaviest]
        texts[heaviest] = repr(values[heaviest])
        if not self._is_at_its_place(values, heaviest):
            return None
        self.texts = texts
        return values

    def _is_at_its_place(self, values: list[float], place: int) -> bool:
        """Whether a value is in its bucket, and between the others: another part of its bucket may be near."""
        value, lower = values[place], self._lowers[place]
        return (
            lower <= value <= lower * self._scale.ratio
            and values[max(place - 1, 0)] <= value <= values[min(place + 1, len(values) - 1)]
            and all(lowest <= values[outer] <= highest for outer, lowest, highest in self._outer)
        )

    def _exact_values(self, fraction: float) -> list[float]:
        multiple = 1.0 + fraction * self._scale.growth
        values = [lower * multiple for lower in self._lowers]
        for place, lower, upper in self._outer:
            values[place] = lower + fraction * (upper - lower)
        return values
