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
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import compress, pairwise
from operator import attrgetter, itemgetter, le, lt, mul
from typing import Any, Final, NamedTuple, TypeAlias

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.bucket_texts import (
    BLOCK,
    BLOCK_BITS,
    FINEST_SCALE,
    Block,
    Scale,
    blocks,
    scale_of,
    short_text_between,
)
from otel_cloudwatch_flask.distribution import MAX_BUCKETS, ROOM_FOR_PERCENTILES, SAMPLES_PER_PART, Distribution
from otel_cloudwatch_flask.histogram import EDGE_TOLERANCE
from otel_cloudwatch_flask.limits import MAX_MAGNITUDE, MIN_MAGNITUDE
from otel_cloudwatch_flask.wire import content_json, number_json

PointText: TypeAlias = Callable[[Any], str | None]
"""Makes the members of a datum that hold the numbers of a point; ``None`` if the point is not of the common kind."""

_Edges: TypeAlias = tuple[float, float]
"""The lower and the upper one of a bucket."""

_NUMBERS: Final = (float, int)
_EXACT: Final = 10**15
"""Whole numbers below it are written with all their digits."""
_VALUE: Final = attrgetter("value")
_VALUE_MEMBER: Final = '"Value":'

_PLACES: Final = tuple(range(BLOCK))
_FINEST_REMEMBERED_SCALE: Final = 12
"""There are so many buckets of finer ones that few come again."""

_CROWD: Final = 2 * SAMPLES_PER_PART
"""So many samples of a bucket are divided, if there is room."""
_KNOWN_DIVISIONS: Final = 1000
_CROWDED: Final = b"x"
_DIGITS_OF_COUNTS: Final = b"0123456789AB".ljust(256, _CROWDED)
"""A letter for each count up to eleven: these can be written all at once between what separates them."""
_COMMAS: Final = b"," * (2 * MAX_BUCKETS)
_MAX_LONE_SAMPLES: Final = 12
"""Up to so many samples it is likely that each has a bucket of its own."""
_LONE_COUNTS: Final = tuple(",".join("1" * samples) for samples in range(_MAX_LONE_SAMPLES + 1))

_MOST_MOVED: Final = 8

_BELOW: Final = 1 - EDGE_TOLERANCE
_ABOVE: Final = 1 + EDGE_TOLERANCE
_WELL_BELOW: Final = 1 - 2 * EDGE_TOLERANCE
_WELL_ABOVE: Final = 1 + 2 * EDGE_TOLERANCE
"""So far from an edge that neither rounding nor an extreme beside its bucket leads past it."""


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


def texts_of(text_of: PointText, points: Sequence[Any]) -> tuple[str, Sequence[object]] | None:
    """How the texts of all of these points begin, and how each goes on; ``None`` if not all are of the common kind."""
    if text_of is number_text:
        values = [*map(_VALUE, points)]
        if {*map(type, values)} == {int} and min(values) > -_EXACT and max(values) < _EXACT:
            return _VALUE_MEMBER, values
    texts = [*map(text_of, points)]
    return ("", texts) if all(texts) else None


def number_text(point: sdk.NumberDataPoint) -> str | None:
    """A delta, the current value of something that goes up and down, or a gauge's."""
    value = point.value
    if type(value) is int and -_EXACT < value < _EXACT:
        return f"{_VALUE_MEMBER}{value}"
    if type(value) in _NUMBERS and (MIN_MAGNITUDE <= abs(value) <= MAX_MAGNITUDE or value == 0):
        return f"{_VALUE_MEMBER}{number_json(float(value))}"
    return None


def histogram_text(point: sdk.ExponentialHistogramDataPoint) -> str | None:
    """The values and counts of samples that are not negative, whose minimum and maximum were recorded."""
    counts = point.positive.bucket_counts
    if len(counts) > BLOCK or not _has_common_numbers(point):
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
        and 0 <= point.scale <= FINEST_SCALE
        and not (point.zero_count and getattr(point, "zero_threshold", 0))
        and not any(point.negative.bucket_counts)
    )


def _text_of_extremes(minimum: float, maximum: float, samples: int) -> str | None:
    """Of one sample, of two, or of many that are equal."""
    if minimum == maximum:
        return f'"Values":[{minimum}],"Counts":[{samples}]' if samples > 0 else None
    return f'"Values":[{minimum},{maximum}],"Counts":[1,1]' if samples == 2 else None


def _text_of_lone_samples(
    point: sdk.ExponentialHistogramDataPoint, places: list[int], minimum: float, maximum: float
) -> str | None:
    """Of a few samples that have a bucket each, at these places among the counts."""
    counts, offset = point.positive.bucket_counts, point.positive.offset
    block, start = blocks[point.scale, offset >> BLOCK_BITS], offset % BLOCK
    edges, middles = block.edges, block.middles
    first, last, inner = places[0], places[-1], places[1:-1]
    if counts[first] != 1 or counts[last] != 1 or not _hold(edges, start + first, minimum, start + last, maximum):
        return None
    left = point.sum - minimum - maximum
    if len(inner) == 1:
        here = start + inner[0]
        is_common = counts[inner[0]] == 1 and edges[here] <= left <= edges[here + 1] and minimum < left < maximum
        return f'"Values":[{minimum!r},{left!r},{maximum!r}],"Counts":[1,1,1]' if is_common else None
    texts = []
    for place in inner:
        if counts[place] != 1:
            return None
        here = start + place
        texts.append(block.texts[here] or block.learn(here))
        left -= middles[here]
    # Most often the last of them can make the sum right, else those before it help.
    while not edges[here] * _WELL_ABOVE < (value := middles[here] + left) < edges[here + 1] * _WELL_BELOW:
        inner.pop()
        if not inner:
            return None
        texts[len(inner)] = text = block.scale.text_beside_edge(edges[here], is_upper=left > 0)
        left = value - float(text)
        here = start + inner[-1]
    texts[len(inner) - 1] = "%.14g" % value  # noqa: UP031 - faster than an f-string
    return f'"Values":[{minimum!r},{",".join(texts)},{maximum!r}],"Counts":[{_LONE_COUNTS[len(places)]}]'


def _text_of_middles(
    point: sdk.ExponentialHistogramDataPoint, places: list[int], minimum: float, maximum: float
) -> str | None:
    """Of samples that share buckets, which have these places among the counts."""
    offset, zeros, pick = point.positive.offset, point.zero_count, itemgetter(*places)
    block, start = blocks[point.scale, offset >> BLOCK_BITS], offset % BLOCK
    samples, first, last = [*pick(point.positive.bucket_counts)], start + places[0], start + places[-1]
    if zeros + sum(samples) != point.count:
        return None
    if not _hold(block.edges, first, None if zeros else minimum, last, maximum):
        return None
    # From here on without the extremes, though with their buckets.
    samples[-1] -= 1
    if not zeros:
        samples[0] -= 1
    texts, masses = block.known(start, places, pick, samples)
    if samples[0] or samples[-1]:
        between = (minimum, block.edges[first + 1]), (block.edges[last], maximum)
        if not _is_rest_beyond(between, samples, texts, masses):
            return None
    left = _left_of_sum(point.sum - minimum - maximum, masses)
    masses[0] = masses[-1] = 0.0  # those do not move
    counted, added = _counts_text(samples), 0.0
    if not counted:
        counted, added = _divided_counts_text(block, samples, texts, masses)
    if not (counted and _is_sum_right(block, left - added, samples, texts, masses)):
        return None
    texts[: 0 if samples[0] else 1] = [repr(minimum)]
    texts[len(texts) - (0 if samples[-1] else 1) :] = [repr(maximum)]
    return f'"Values":[{",".join(texts)}],"Counts":[{zeros or 1},{counted},1]'


def _hold(edges: list[float], first: int, minimum: float | None, last: int, maximum: float) -> bool:
    """Whether the buckets at these places may have the smallest and the largest sample, and can be sent.

    The smallest is ``None`` if it is zero: that is in no bucket.
    """
    lower = edges[first]
    if lower < MIN_MAGNITUDE or not (minimum is None or lower * _BELOW <= minimum <= edges[first + 1] * _ABOVE):
        return False
    return edges[last] * _BELOW <= maximum <= edges[last + 1] * _ABOVE


def _is_rest_beyond(between: tuple[_Edges, _Edges], samples: list[int], texts: list[str], masses: list[float]) -> bool:
    """Whether what is left in the buckets of the extremes is between these edges of them, or could be put there."""
    for place, (lower, upper) in zip((0, -1), between, strict=True):
        number = samples[place]
        if number and not lower * number < masses[place] < upper * number:
            texts[place] = short_text_between(lower, upper)
            value = float(texts[place])
            masses[place] = value * number
            if not lower < value < upper:
                return False
    return True


def _counts_text(samples: list[int]) -> str:
    """What buckets hold that are not empty, as JSON; nothing if one is crowded."""
    try:
        digits = bytes(samples).translate(_DIGITS_OF_COUNTS).strip(b"0")
    except ValueError:
        return ""
    if _CROWDED in digits:
        return ""
    text = bytearray(_COMMAS[1 : 2 * len(digits)])
    text[::2] = digits
    return text.decode("ascii").replace("A", "10").replace("B", "11")


def _left_of_sum(total: float, masses: list[float]) -> float:
    """What is missing in these; if the total is a whole number, to the last digit, as whoever counts things expects."""
    return -math.fsum([*masses, -total]) if total.is_integer() else total - sum(masses)


def _is_sum_right(block: Block, left: float, samples: list[int], texts: list[str], masses: list[float]) -> bool:
    """Move as few as needed to take up what is ``left`` of the sum, the heaviest first; whether that could be done."""
    for _ in range(_MOST_MOVED):
        mass = max(masses)
        if not mass:
            break
        heaviest = masses.index(mass)
        number = samples[heaviest]
        value, (lower, upper) = (mass + left) / number, _around(block.edges, mass / number)
        if lower * _WELL_ABOVE < value < upper * _WELL_BELOW:
            texts[heaviest] = f"{value:.14g}" if number == 1 else repr(value)
            return True
        texts[heaviest] = block.scale.text_beside_edge(lower, is_upper=left > 0)
        left += mass - float(texts[heaviest]) * number
        masses[heaviest] = 0.0
    return False


def _around(edges: list[float], value: float) -> _Edges:
    """The edges of the bucket that a value is in, which is at none."""
    place = bisect_right(edges, value)
    return edges[place - 1], edges[place]


def _is_room_for_parts(samples: list[int]) -> bool:
    """Whether crowded buckets can be divided beside so many others; where they cannot, the twin chooses."""
    return len(samples) - samples.count(0) <= MAX_BUCKETS - ROOM_FOR_PERCENTILES


def _divided_counts_text(block: Block, samples: list[int], texts: list[str], masses: list[float]) -> tuple[str, float]:
    """Divide crowded buckets; what all hold then, as JSON, or nothing if that cannot be; what that adds to the sum."""
    added = _divide_crowds(block, samples, texts, masses)
    if added is None:
        return "", 0.0
    return _counts_text(samples) or ",".join(map(str, filter(None, samples))), added


def _divide_crowds(block: Block, samples: list[int], texts: list[str], masses: list[float]) -> float | None:
    """Put the samples of crowded buckets in the middle of parts of them, to stay there; what that adds to the sum.

    ``None`` if one of them has lost an extreme, or if there is no room beside others or in the bucket.
    """
    if max(samples[0], samples[-1]) >= _CROWD or min(samples) < 0 or not _is_room_for_parts(samples):
        return None
    added = 0.0
    for place, parts, ends in _divisions(samples):
        (lower, upper), here = _around(block.edges, masses[place] / samples[place]), slice(place, place + 1)
        width = (upper - lower) / 2
        new_texts = [block.scale.fine_template % (lower + width * (begin + end)) for begin, end in pairwise(ends)]
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
    scale = scale_of(point.scale)
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
    return f'"Values":[{",".join([repr(minimum), *texts, repr(maximum)])}],"Counts":[{",".join(map(str, samples))}]'


def _inner_buckets(
    point: sdk.ExponentialHistogramDataPoint, scale: Scale, minimum: float, maximum: float
) -> _Buckets | None:
    """The filled buckets without the extremes, and of theirs only what is beyond them.

    ``None`` if the numbers contradict each other, or only the twin knows what to do with so many buckets.
    """
    counts, offset, zeros = point.positive.bucket_counts, point.positive.offset, point.zero_count
    places, samples = [*compress(_PLACES, counts)], [*filter(None, counts)]
    if not 1 <= len(samples) <= MAX_BUCKETS or zeros + sum(samples) != point.count:
        return None
    lowers = [scale.edge(offset + place) for place in places]
    uppers = [scale.edge(offset + place + 1) for place in places]
    if not _hold([lowers[0], uppers[0], lowers[-1], uppers[-1]], 0, None if zeros else minimum, 2, maximum):
        return None
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
