"""The common case of an export: from the SDK's data point straight to the text of its datum.

Most of an export's CPU would go into objects for points, buckets and values that live for a microsecond. Where a point
is of the common kind, its text is made without them, and without a loop over empty buckets in Python: the samples of a
bucket stand at its middle, a number as short as can be, whose text is known from the last time. Only the extremes, and
the few values that make the sum right, are written anew.

Where that does not do, or buckets are crowded, all values are at the fraction of their buckets that makes the sum
right, as the plain twin has them, but for rounding. Everything else is left to the twin itself: ``points``,
``distribution`` and ``wire.content_json``. On numbers the two agree to the last digit; of histograms they keep the same
promises.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import compress, pairwise
from operator import attrgetter, itemgetter, le, lt, mul
from typing import Any, Final, NamedTuple, TypeAlias

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.distribution import MAX_BUCKETS, ROOM_FOR_PERCENTILES, SAMPLES_PER_PART, Distribution
from otel_cloudwatch_flask.histogram import EDGE_TOLERANCE
from otel_cloudwatch_flask.limits import MAX_MAGNITUDE, MIN_MAGNITUDE
from otel_cloudwatch_flask.wire import content_json, number_json

PointText: TypeAlias = Callable[[Any], str | None]
"""Makes the members of a datum that hold the numbers of a point; ``None`` if the point is not of the common kind."""

_NUMBERS: Final = (float, int)
_EXACT: Final = 10**15
"""Whole numbers below it are written with all their digits."""
_VALUE: Final = attrgetter("value")

_BLOCK: Final = 256
"""What is known of buckets is kept in blocks that begin at a multiple of it, and go on for as many buckets beyond."""
_PLACES: Final = tuple(range(_BLOCK))
_ENTRIES_OF_BLOCK: Final = 80
"""What an empty block counts for."""
MAX_ENTRIES: Final = 100_000
"""What is remembered at most, at about a hundred bytes each."""
_FINEST_REMEMBERED_SCALE: Final = 12
"""There are so many buckets of finer ones that few come again."""
_FINEST_SCALE: Final = 20
"""Buckets of finer ones are about as wide as what the SDK's rounding may put an extreme beside its own."""

_CROWD: Final = 2 * SAMPLES_PER_PART
"""So many samples of a bucket are divided, if there is room."""
_KNOWN_DIVISIONS: Final = 1000
_CROWDED: Final = "x"
_DIGITS_OF_COUNTS: Final = b"0123456789AB".ljust(256, _CROWDED.encode())
"""A letter for each count up to eleven: to join letters is the fastest way to write a list of small numbers."""
_MAX_LONE_SAMPLES: Final = 12
"""Up to so many samples it is likely that each has a bucket of its own."""
_COUNTS_OF_LONE_SAMPLES: Final = tuple(str([1] * samples) for samples in range(_MAX_LONE_SAMPLES + 1))

_MIDST: Final = 0.125
"""The farthest that a short number may be from the middle, in widths of its bucket."""
_NEAR_EDGE: Final = 0.02
_MOST_MOVED: Final = 8
_DIGITS: Final = 3
"""Those that place a value in its bucket; those that tell buckets apart come on top."""

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


def texts_of(text_of: PointText, points: Sequence[Any]) -> list[str | None]:
    """What ``text_of`` makes of each of these points."""
    if text_of is number_text:
        values = [*map(_VALUE, points)]
        if {*map(type, values)} == {int} and max(map(abs, values)) < _EXACT:
            return [f'"Value": {value}' for value in values]
    return [*map(text_of, points)]


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
    counts = point.positive.bucket_counts
    if len(counts) > _BLOCK or not _has_common_numbers(point):
        return None
    minimum, maximum, samples = point.min + 0.0, point.max + 0.0, point.count  # what was -0.0 is 0.0
    if samples <= 2:
        is_common = point.zero_count + sum(counts) == samples
        return _text_of_extremes(minimum, maximum, samples) if is_common else None
    text = None
    if point.scale <= _FINEST_REMEMBERED_SCALE:
        places = [*compress(_PLACES, counts)]
        if len(places) == samples <= _MAX_LONE_SAMPLES:
            text = _text_of_lone_samples(point, places, minimum, maximum)
        elif 2 <= len(places) <= MAX_BUCKETS:
            text = _text_of_middles(point, places, minimum, maximum)
    return text or _text_at_common_fraction(point, minimum, maximum)


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
        and not (point.zero_count and getattr(point, "zero_threshold", 0))
        and not any(point.negative.bucket_counts)
    )


def _text_of_extremes(minimum: float, maximum: float, samples: int) -> str | None:
    """Of one sample, of two, or of many that are equal."""
    if minimum == maximum:
        return f'"Values": [{minimum}], "Counts": [{samples}]' if samples > 0 else None
    return f'"Values": [{minimum}, {maximum}], "Counts": [1, 1]' if samples == 2 else None


def _text_of_lone_samples(
    point: sdk.ExponentialHistogramDataPoint, places: list[int], minimum: float, maximum: float
) -> str | None:
    """Of a few samples that have a bucket each, at these places among the counts."""
    counts, offset, scale = point.positive.bucket_counts, point.positive.offset, _scales[point.scale]
    first, *inner, last = places
    if counts[first] != 1 or counts[last] != 1 or not scale.hold(offset + first, minimum, offset + last, maximum):
        return None
    left = point.sum - minimum - maximum
    if len(inner) == 1:
        lower, upper = scale.edges(offset + inner[0])
        is_common = counts[inner[0]] == 1 and lower <= left <= upper
        is_common = is_common and minimum < left < maximum
        return f'"Values": [{minimum}, {left}, {maximum}], "Counts": [1, 1, 1]' if is_common else None
    block, start = scale.block_from(offset)
    known_texts, known_middles = block
    texts = []
    for place in inner:
        if counts[place] != 1:
            return None
        texts.append(known_texts[start + place] or scale.learn(block, offset, place))
        left -= known_middles[start + place]
    # Most often the last of them can make the sum right, else those before it help.
    for position in range(len(inner) - 1, -1, -1):
        place = inner[position]
        middle, lower, upper = known_middles[start + place], *scale.edges(offset + place)
        texts[position] = f"{middle + left:.14g}"
        value = float(texts[position])
        if lower <= value <= upper and minimum < value < maximum:
            counted = _COUNTS_OF_LONE_SAMPLES[len(places)]
            return f'"Values": [{minimum}, {", ".join(texts)}, {maximum}], "Counts": {counted}'
        texts[position] = scale.template % (lower * (scale.near_upper if left > 0 else scale.near_lower))
        left -= float(texts[position]) - middle
    return None


def _text_of_middles(
    point: sdk.ExponentialHistogramDataPoint, places: list[int], minimum: float, maximum: float
) -> str | None:
    """Of samples that share buckets, which have these places among the counts."""
    offset, zeros, scale = point.positive.offset, point.zero_count, _scales[point.scale]
    pick, first, last = itemgetter(*places), offset + places[0], offset + places[-1]
    samples = [*pick(point.positive.bucket_counts)]
    if zeros + sum(samples) != point.count or not scale.hold(first, None if zeros else minimum, last, maximum):
        return None
    # From here on without the extremes, though with their buckets.
    samples[-1] -= 1
    if not zeros:
        samples[0] -= 1
    texts, masses = scale.known(offset, places, pick, samples)
    if samples[0] or samples[-1]:
        edges = (minimum, scale.edge(first + 1)), (scale.edge(last), maximum)
        if not _is_rest_beyond(edges, samples, texts, masses):
            return None
    left = _left_of_sum(point.sum - minimum - maximum, masses)
    masses[0] = masses[-1] = 0.0  # those do not move
    counted = _counts_text(samples)
    if counted is None:
        added = _divide_crowds(scale, samples, texts, masses)
        if added is None:
            return None
        left -= added
        counted = ", ".join(map(str, filter(None, samples)))
    if not _is_sum_right(scale, left, samples, texts, masses, between=(minimum, maximum)):
        return None
    texts[: 0 if samples[0] else 1] = [repr(minimum)]
    texts[len(texts) - (0 if samples[-1] else 1) :] = [repr(maximum)]
    return f'"Values": [{", ".join(texts)}], "Counts": [{zeros or 1}, {counted}, 1]'


def _is_rest_beyond(
    edges: tuple[tuple[float, float], tuple[float, float]],
    samples: list[int],
    texts: list[str],
    masses: list[float],
) -> bool:
    """Whether what is left in the buckets of the extremes is between these edges of them, or could be put there."""
    for place, (lower, upper) in zip((0, -1), edges, strict=True):
        number = samples[place]
        if number and not lower * number < masses[place] < upper * number:
            texts[place] = short_text_between(lower, upper)
            value = float(texts[place])
            masses[place] = value * number
            if not lower < value < upper:
                return False
    return True


def _counts_text(samples: list[int]) -> str | None:
    """What buckets hold that are not empty, as JSON; ``None`` if one is crowded."""
    try:
        digits = str(bytes(samples).translate(_DIGITS_OF_COUNTS), "ascii")
    except ValueError:
        return None
    if _CROWDED in digits:
        return None
    return ", ".join(digits.strip("0")).replace("A", "10").replace("B", "11")


def _left_of_sum(total: float, masses: list[float]) -> float:
    """What is missing in these; if the total is a whole number, to the last digit, as whoever counts things expects."""
    return -math.fsum([*masses, -total]) if total.is_integer() else total - sum(masses)


def _is_sum_right(
    scale: "_Scale",
    left: float,
    samples: list[int],
    texts: list[str],
    masses: list[float],
    *,
    between: tuple[float, float],
) -> bool:
    """Move as few as needed to take up what is ``left`` of the sum, the heaviest first; whether that could be done."""
    minimum, maximum = between
    for _ in range(_MOST_MOVED):
        mass = max(masses)
        if not mass:
            break
        heaviest = masses.index(mass)
        number = samples[heaviest]
        lower, upper = scale.edges_around(mass / number)
        value = (mass + left) / number
        texts[heaviest] = f"{value:.14g}" if number == 1 else repr(value)
        value = float(texts[heaviest])
        if lower <= value <= upper and minimum < value < maximum:
            return True
        texts[heaviest] = scale.template % (lower * (scale.near_upper if left > 0 else scale.near_lower))
        left += mass - float(texts[heaviest]) * number
        masses[heaviest] = 0.0
    return False


def _is_room_for_parts(samples: list[int]) -> bool:
    """Whether crowded buckets can be divided beside so many others; where they cannot, the twin chooses."""
    return len(samples) - samples.count(0) <= MAX_BUCKETS - ROOM_FOR_PERCENTILES


def _divide_crowds(scale: "_Scale", samples: list[int], texts: list[str], masses: list[float]) -> float | None:
    """Put the samples of crowded buckets in the middle of parts of them, to stay there; what that adds to the sum.

    ``None`` if one of them has lost an extreme, or if there is no room beside others or in the bucket.
    """
    if max(samples[0], samples[-1]) >= _CROWD or min(samples) < 0 or not _is_room_for_parts(samples):
        return None
    added = 0.0
    for place, parts, ends in _divisions(samples):
        (lower, upper), here = scale.edges_around(masses[place] / samples[place]), slice(place, place + 1)
        width = (upper - lower) / 2
        new_texts = [scale.fine_template % (lower + width * (begin + end)) for begin, end in pairwise(ends)]
        numbers = [lower, *map(float, new_texts), upper]
        if not all(map(lt, numbers, numbers[1:])):
            return None
        added += math.fsum(map(mul, parts, numbers[1:])) - masses[place]
        samples[here], texts[here], masses[here] = parts, new_texts, [0.0] * len(parts)
    return added


class _Buckets(NamedTuple):
    """Ascending buckets as lists beside each other: samples, lower and upper edge."""

    samples: list[int]
    lowers: list[float]
    uppers: list[float]

    def divided(self) -> "_Buckets":
        """The same with the parts of crowded ones in their place."""
        samples, lowers, uppers = self.samples[:], self.lowers[:], self.uppers[:]
        for place, parts, ends in _divisions(self.samples):
            lower, width, here = lowers[place], uppers[place] - lowers[place], slice(place, place + 1)
            edges = [*(lower + width * end for end in ends[:-1]), uppers[place]]
            samples[here], lowers[here], uppers[here] = parts, edges[:-1], edges[1:]
        return _Buckets(samples, lowers, uppers)

    def fraction(self, total: float) -> float | None:
        """How far into every bucket its samples must be to add up to ``total``; ``None`` if they never do."""
        lowest, highest = (math.fsum(map(mul, self.samples, edges)) for edges in (self.lowers, self.uppers))
        if not lowest <= total <= highest:
            return None
        return (total - lowest) / (highest - lowest) if highest > lowest else 0.0


def _text_at_common_fraction(point: sdk.ExponentialHistogramDataPoint, minimum: float, maximum: float) -> str | None:
    """Of any samples but those that only the twin places."""
    scale = _scales[point.scale]
    whole = _inner_buckets(point, scale, minimum, maximum)
    if whole is None:
        is_all_zeros = point.zero_count == point.count and not any(point.positive.bucket_counts)
        return _text_of_extremes(minimum, maximum, point.count) if is_all_zeros else None
    if minimum == maximum:
        return _text_of_extremes(minimum, maximum, point.count)
    total = math.fsum((point.sum, -minimum, -maximum))
    buckets = whole.divided()
    fraction = buckets.fraction(total)
    if fraction is None:  # all samples of a crowded bucket may be at one place in it
        buckets, fraction = whole, whole.fraction(total)
    if fraction is None:
        return None
    texts, values = _rounded_values(buckets, fraction, scale.fine_template)
    samples, lowers, uppers = buckets
    if samples:
        # The heaviest has most room for what rounding did to the sum. Where it is the only one, the sum is its own.
        masses = [*map(mul, samples, values)]
        heaviest = masses.index(max(masses))
        value = (total - math.fsum(masses[:heaviest] + masses[heaviest + 1 :])) / samples[heaviest]
        if not lowers[heaviest] <= value <= uppers[heaviest]:
            return None
        values[heaviest], texts[heaviest] = value, repr(value)
    values, samples = [minimum, *values, maximum], [point.zero_count or 1, *samples, 1]
    if not all(map(lt, values, values[1:])):
        return content_json(Distribution.of(zip(values, samples, strict=True)))
    return f'"Values": [{", ".join([repr(minimum), *texts, repr(maximum)])}], "Counts": {samples}'


def _inner_buckets(
    point: sdk.ExponentialHistogramDataPoint, scale: "_Scale", minimum: float, maximum: float
) -> _Buckets | None:
    """The filled buckets without the extremes, and of theirs only what is beyond them.

    ``None`` if the numbers contradict each other, or only the twin knows what to do with so many buckets.
    """
    counts, offset, zeros = point.positive.bucket_counts, point.positive.offset, point.zero_count
    places, samples = [*compress(_PLACES, counts)], [*filter(None, counts)]
    if (
        not 1 <= len(samples) <= MAX_BUCKETS
        or zeros + sum(samples) != point.count
        or not scale.hold(offset + places[0], None if zeros else minimum, offset + places[-1], maximum)
    ):
        return None
    lowers = [scale.edge(offset + place) for place in places]
    uppers = [scale.edge(offset + place + 1) for place in places]
    samples[-1] -= 1
    lowers[-1], uppers[-1] = min(lowers[-1], maximum), min(uppers[-1], maximum)
    if not zeros:
        samples[0] -= 1
        lowers[0], uppers[0] = max(lowers[0], minimum), max(uppers[0], minimum)
    if min(samples) < 0 or (max(samples) >= _CROWD and not _is_room_for_parts(samples)):
        return None
    inner = slice(0 if samples[0] else 1, None if samples[-1] else len(samples) - 1)
    return _Buckets(samples[inner], lowers[inner], uppers[inner])


def _rounded_values(buckets: _Buckets, fraction: float, template: str) -> tuple[list[str], list[float]]:
    """The values at this fraction of all buckets and their texts: rounded, unless that leads out of one."""
    _, lowers, uppers = buckets
    values = [min(lower + (upper - lower) * fraction, upper) for lower, upper in zip(lowers, uppers, strict=True)]
    texts = [template % value for value in values]
    rounded = [*map(float, texts)]
    if all(map(le, lowers, rounded)) and all(map(le, rounded, uppers)):
        return texts, rounded
    return [*map(repr, values)], values


_Division: TypeAlias = tuple[int, list[int], list[float]]
"""The place of a crowded bucket, the samples of its parts, and where these begin and end, in widths of the bucket."""


def _divisions(samples: list[int]) -> list[_Division]:
    """How crowded buckets are divided, the last one first: evenly, as the twin does, as far as there is room."""
    room, total = MAX_BUCKETS - len(samples) + samples.count(0), sum(samples)
    crowds = [(place, crowd) for place, crowd in enumerate(samples) if crowd >= _CROWD]
    parts = [min(crowd // SAMPLES_PER_PART, 1 + room * crowd // total) for _, crowd in crowds]
    return [(place, *_parts(crowd, n)) for (place, crowd), n in zip(crowds, parts, strict=True) if n > 1][::-1]


@lru_cache(_KNOWN_DIVISIONS)
def _parts(samples: int, parts: int) -> tuple[list[int], list[float]]:
    ends = [samples * part // parts for part in range(parts + 1)]
    return [end - begin for begin, end in pairwise(ends)], [end / samples for end in ends]


_Block: TypeAlias = tuple[list[str], list[Any]]
"""The short texts of the middles of some buckets, and what these say; "" and ``None`` where it is not known yet."""


class _Scale:
    """What is the same for all histograms of a scale, and what is known of its buckets.

    That is bounded for all scales together, and forgotten together.
    """

    entries = 0

    def __init__(self, scale: int) -> None:
        self._doublings: float = 2.0**-scale
        growth = 2.0**self._doublings - 1.0
        self.near_lower, self.near_upper = 1.0 + _NEAR_EDGE * growth, 1.0 + (1.0 - _NEAR_EDGE) * growth
        """Places in a bucket that rounding does not lead out of, relative to its lower edge."""
        digits = _DIGITS - math.floor(math.log10(growth))
        self.template = f"%.{digits}g"
        self.fine_template = f"%.{digits + 1}g"
        self._blocks: dict[int, _Block] = {}

    def edge(self, index: int) -> float:
        """The lower edge of a bucket."""
        edge: float = 2.0 ** (index * self._doublings)
        return edge

    def edges(self, index: int) -> tuple[float, float]:
        """Both edges of a bucket."""
        return 2.0 ** (index * self._doublings), 2.0 ** ((index + 1) * self._doublings)

    def edges_around(self, value: float) -> tuple[float, float]:
        """Those of the bucket that a value is in, which is not beside an edge."""
        return self.edges(math.floor(math.log2(value) / self._doublings))

    def hold(self, first: int, minimum: float | None, last: int, maximum: float) -> bool:
        """Whether these buckets may have the smallest and the largest sample, and can be sent; zeros are in none."""
        lower, upper = self.edges(first)
        if lower < MIN_MAGNITUDE or not (minimum is None or lower * _BELOW <= minimum <= upper * _ABOVE):
            return False
        lower, upper = self.edges(last)
        return lower * _BELOW <= maximum <= upper * _ABOVE

    def block_from(self, offset: int) -> tuple[_Block, int]:
        """What is known of the bucket with this index and of those behind it, and where in that it begins."""
        number, start = divmod(offset, _BLOCK)
        return self._blocks.get(number) or self._new_block(number), start

    def known(
        self, offset: int, places: list[int], pick: Callable[[Sequence[Any]], Sequence[Any]], samples: list[int]
    ) -> tuple[list[str], list[float]]:
        """The texts of the middles of the buckets at these places, which ``pick`` gets, and the samples times these."""
        number, start = divmod(offset, _BLOCK)
        block = self._blocks.get(number) or self._new_block(number)
        known_texts, known_middles = block
        here = slice(start, start + places[-1] + 1)
        try:
            masses = [*map(mul, samples, pick(known_middles[here]))]
        except TypeError:  # not all are known yet
            for place in places:
                if not known_texts[start + place]:
                    self.learn(block, offset, place)
            masses = [*map(mul, samples, pick(known_middles[here]))]
        return [*pick(known_texts[here])], masses

    def learn(self, block: _Block, offset: int, place: int) -> str:
        """Work out what belongs to one bucket, so many behind the first; its text."""
        _make_room(1)
        known_texts, known_middles = block
        text = short_text_between(*self.edges(offset + place))
        known_texts[offset % _BLOCK + place] = text
        known_middles[offset % _BLOCK + place] = float(text)  # the last: with it another thread takes both for known
        return text

    def _new_block(self, number: int) -> _Block:
        _make_room(_ENTRIES_OF_BLOCK)
        block = self._blocks[number] = [""] * (2 * _BLOCK), [None] * (2 * _BLOCK)
        return block


def short_text_between(lower: float, upper: float) -> str:
    """The shortest number near the middle of these, as JSON.

    >>> short_text_between(2.0, 4.0), short_text_between(1.0905, 1.1388), short_text_between(107e3, 112e3)
    ('3', '1.11', '110000')
    """
    middle = (lower + upper) / 2
    for digits in range(1, 17):
        text = f"{middle:.{digits}g}"
        if abs(float(text) - middle) <= _MIDST * (upper - lower):
            return min(number_json(float(text)), text, key=len)
    return repr(middle)


def _make_room(entries: int) -> None:
    if _Scale.entries >= MAX_ENTRIES:
        _scales.clear()
        _Scale.entries = 0
    _Scale.entries += entries


class _Scales(dict[int, _Scale]):
    def __missing__(self, scale: int) -> _Scale:
        made = self[scale] = _Scale(scale)
        return made


_scales: Final = _Scales()
