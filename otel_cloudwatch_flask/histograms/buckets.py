"""Histograms of OpenTelemetry data points, and how they are added and subtracted.

A histogram knows how many samples fell into which bucket, their sum and, usually, the smallest and the largest one.
Both kinds are added (several points become one CloudWatch metric), subtracted (cumulative points become deltas), and
list their filled buckets as :class:`Buckets`, from which ``distribution`` makes the values that CloudWatch takes.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import compress, pairwise
from operator import itemgetter, lt
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

EDGE_TOLERANCE: Final = 1e-9
"""How far outside its bucket, relative to the edge, the SDK's rounding may put a minimum or maximum."""

_MAX_FLOAT: Final = sys.float_info.max

_REFERENCE_ROOM: Final = 0.125
"""How far a reference may be from the middle of its bucket, in widths of the bucket."""

_BLOCK_BITS: Final = 8
_BLOCK: Final = 1 << _BLOCK_BITS
"""Buckets are tabulated in blocks of this many; a table covers two blocks, so that 160 buckets always fit."""
_PLACES: Final = tuple(range(2 * _BLOCK))
_MAX_TABLES: Final = 256
"""A table takes up to 70 kB, if all of its buckets were asked for."""

Bucket: TypeAlias = tuple[float, float, float]
"""The lower and the upper edge, which belong to the bucket, and its reference: a number near its middle with as few
digits as possible. An open end is infinite; an explicit bucket gets its reference when it is divided, and has 0 before.
"""


class Buckets(NamedTuple):
    """Filled buckets in ascending order, as parallel lists: ``samples[i]`` samples in ``bounds[i]``."""

    # The bounds come from a table, so that a histogram costs no object for each of its buckets.
    samples: list[int]
    bounds: list[Bucket]

    def mirrored(self) -> "Buckets":
        """The same samples with the opposite sign."""
        bounds = [(-upper, -lower, -reference) for lower, upper, reference in reversed(self.bounds)]
        return Buckets(self.samples[::-1], bounds)

    def plus(self, other: "Buckets") -> "Buckets":
        """These buckets, followed by others that are above them."""
        return Buckets(self.samples + other.samples, self.bounds + other.bounds)


class Extremes(NamedTuple):
    """The smallest and the largest sample, or, where they are unknown, bounds of them.

    ``minimum`` and ``maximum`` are samples themselves; ``floor`` and ``ceiling`` only bound them.
    """

    minimum: float | None = None
    maximum: float | None = None
    floor: float = -math.inf
    ceiling: float = math.inf

    @classmethod
    def recorded(cls, minimum: float | None, maximum: float | None) -> "Extremes":
        """The extremes of a data point, where ``None`` and the SDK's inf and -inf mean that one was not recorded."""
        minimum = None if minimum == math.inf else minimum
        maximum = None if maximum == -math.inf else maximum
        floor = -math.inf if minimum is None else minimum
        ceiling = math.inf if maximum is None else maximum
        return cls(minimum, maximum, floor, ceiling)

    def mirrored(self) -> "Extremes":
        """The extremes of the same samples with the opposite sign."""
        minimum = None if self.maximum is None else -self.maximum
        maximum = None if self.minimum is None else -self.minimum
        return Extremes(minimum, maximum, -self.ceiling, -self.floor)

    def union(self, other: "Extremes") -> "Extremes":
        """The extremes of the samples of both."""
        return Extremes(
            None if self.minimum is None or other.minimum is None else min(self.minimum, other.minimum),
            None if self.maximum is None or other.maximum is None else max(self.maximum, other.maximum),
            min(self.floor, other.floor),
            max(self.ceiling, other.ceiling),
        )

    def since(self, previous: "Extremes") -> "Extremes":
        """The extremes of the samples added between two cumulative points: exact only where the newer went further."""
        lowered = self.minimum is not None and self.minimum < previous.floor
        raised = self.maximum is not None and self.maximum > previous.ceiling
        return self._replace(minimum=self.minimum if lowered else None, maximum=self.maximum if raised else None)


HistogramT = TypeVar("HistogramT", bound="Histogram")


@dataclass(slots=True)
class Histogram:
    """What the histograms of both kinds have in common.

    ``factor`` converts all numbers to the unit, and the sign, of the datum.
    """

    count: int
    sum: float
    extremes: Extremes
    factor: float = field(default=1.0, kw_only=True)

    @property
    def layout(self) -> object:
        """Equal for histograms that can be added."""
        raise NotImplementedError

    def buckets(self) -> Buckets:
        """The filled buckets, ascending, in lists that the caller may change."""
        raise NotImplementedError

    def plus(self, other: "Self") -> "Self":
        """Both together; the layouts must be equal."""
        raise NotImplementedError

    def minus(self, previous: "Self") -> "Self | None":
        """What was added since an earlier cumulative point, or ``None`` if this is not its continuation."""
        raise NotImplementedError

    def mirrored(self) -> "Self":
        """The same samples with the opposite sign."""
        raise NotImplementedError

    def contradiction(self) -> str | None:
        """What makes these numbers impossible, or ``None``."""
        return contradiction(self.count, self.sum, self.extremes, self.buckets())

    def _plus(self, other: "Histogram", **fields: Any) -> "Self":
        return replace(
            self,
            count=self.count + other.count,
            sum=self.sum + other.sum,
            extremes=self.extremes.union(other.extremes),
            **fields,
        )

    def _mirrored(self, **fields: Any) -> "Self":
        return replace(self, sum=-self.sum, extremes=self.extremes.mirrored(), **fields)

    def _minus(self, previous: "Histogram", **fields: Any) -> "Self":
        return replace(
            self,
            count=self.count - previous.count,
            sum=self.sum - previous.sum,
            extremes=self.extremes.since(previous.extremes),
            **fields,
        )


@dataclass(slots=True)
class ExplicitHistogram(Histogram):
    """Buckets with bounds of the user's choice: ``counts[i]`` samples above ``bounds[i-1]``, up to ``bounds[i]``."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def layout(self) -> object:
        """Equal for histograms whose buckets can be added one by one."""
        return (self.bounds, self.factor)

    def plus(self, other: "ExplicitHistogram") -> "ExplicitHistogram":
        """Both together; the layouts must be equal."""
        return self._plus(other, counts=tuple(map(sum, zip(self.counts, other.counts, strict=True))))

    def minus(self, previous: "ExplicitHistogram") -> "ExplicitHistogram | None":
        """What was added since an earlier cumulative point, or ``None`` if this is not its continuation."""
        if self.bounds != previous.bounds:
            return None
        counts = tuple(now - then for now, then in zip(self.counts, previous.counts, strict=True))
        if min(counts, default=0) < 0 or self.count < previous.count:
            return None
        return self._minus(previous, counts=counts)

    def mirrored(self) -> "ExplicitHistogram":
        """The same samples with the opposite sign."""
        return self._mirrored(bounds=tuple(-bound for bound in reversed(self.bounds)), counts=self.counts[::-1])

    def buckets(self) -> Buckets:
        """The filled buckets, ascending, in lists that the caller may change."""
        return explicit_buckets(self.bounds, self.counts)

    def contradiction(self) -> str | None:
        """What makes these numbers impossible, or ``None``."""
        # Zero-argument super() does not work in a dataclass with slots.
        return bounds_contradiction(self.bounds, self.counts) or Histogram.contradiction(self)


class Side(NamedTuple):
    """Exponential buckets on one side of zero: ``counts[i]`` samples in the bucket with index ``offset + places[i]``.

    Without ``places``, as the SDK has it, there is a count for every bucket, and most of them are 0.
    """

    offset: int
    counts: Sequence[int]
    places: Sequence[int] | None = None

    @classmethod
    def of(cls, samples: Mapping[int, int]) -> "Side":
        """Buckets by index."""
        indices = sorted(index for index, count in samples.items() if count)
        offset = indices[0] if indices else 0
        return cls(offset, [samples[index] for index in indices], [index - offset for index in indices])

    def by_index(self, *, coarser: int = 0) -> dict[int, int]:
        """Samples by index, in buckets of a scale that is ``coarser`` by this many steps."""
        samples: dict[int, int] = {}
        places = range(len(self.counts)) if self.places is None else self.places
        for place, count in zip(places, self.counts, strict=True):
            if count:
                index = (self.offset + place) >> coarser
                samples[index] = samples.get(index, 0) + count
        return samples


EMPTY_SIDE: Final = Side(0, (), ())


@dataclass(slots=True)
class ExponentialHistogram(Histogram):
    """Buckets whose bounds are powers of ``2 ** 2 ** -scale``; bucket ``i`` reaches from the ``i``-th to the next."""

    scale: int
    zero_count: int = 0
    zero_threshold: float = 0.0
    positive: Side = EMPTY_SIDE
    negative: Side = EMPTY_SIDE

    @property
    def layout(self) -> object:
        """Equal for histograms that can be added once they have a common scale."""
        return (ExponentialHistogram, self.zero_threshold, self.factor)

    def plus(self, other: "ExponentialHistogram") -> "ExponentialHistogram":
        """Both together, at the coarser of the two scales; the layouts must be equal."""
        scale = self._common_scale(other)
        positive, negative = (
            Side.of(_added(mine.by_index(coarser=self.scale - scale), theirs.by_index(coarser=other.scale - scale)))
            for mine, theirs in self._sides(other)
        )
        zeros = self.zero_count + other.zero_count
        return self._plus(other, scale=scale, zero_count=zeros, positive=positive, negative=negative)

    def minus(self, previous: "ExponentialHistogram") -> "ExponentialHistogram | None":
        """What was added since an earlier cumulative point, or ``None`` if this is not its continuation."""
        scale = self._common_scale(previous)
        zeros = self.zero_count - previous.zero_count
        sides = [
            _subtracted(now.by_index(coarser=self.scale - scale), then.by_index(coarser=previous.scale - scale))
            for now, then in self._sides(previous)
        ]
        positive, negative = (side if side is None else Side.of(side) for side in sides)
        if positive is None or negative is None or zeros < 0 or self.count < previous.count:
            return None
        return self._minus(previous, scale=scale, zero_count=zeros, positive=positive, negative=negative)

    def mirrored(self) -> "ExponentialHistogram":
        """The same samples with the opposite sign."""
        return self._mirrored(positive=self.negative, negative=self.positive)

    @property
    def filled_buckets(self) -> int:
        """The number of filled buckets."""
        return sum(map(bool, (*self.positive.counts, *self.negative.counts, self.zero_count)))

    def _common_scale(self, other: "ExponentialHistogram") -> int:
        # A point that has seen nothing but zeros has the SDK's scale 0, which says nothing about its buckets.
        scales = [each.scale for each in (self, other) if any(each.positive.counts) or any(each.negative.counts)]
        return min(scales, default=min(self.scale, other.scale))

    def _sides(self, other: "ExponentialHistogram") -> tuple[tuple[Side, Side], ...]:
        return (self.positive, other.positive), (self.negative, other.negative)

    def buckets(self) -> Buckets:
        """The filled buckets, ascending, in lists that the caller may change."""
        return exponential_buckets(self.scale, self.zero_count, self.zero_threshold, self.positive, self.negative)


def explicit_buckets(bounds: Sequence[float], counts: Sequence[int]) -> Buckets:
    """The filled buckets of an explicit histogram, still without references."""
    edges = (-math.inf, *bounds, math.inf)
    filled = [(lower, upper, 0.0) for lower, upper in compress(pairwise(edges), counts)]
    return Buckets([*filter(None, counts)], filled)


def exponential_buckets(
    scale: int, zero_count: int, zero_threshold: float, positive: Side, negative: Side = EMPTY_SIDE
) -> Buckets:
    """The filled buckets of an exponential histogram."""
    buckets = _side_buckets(scale, *positive)
    if zero_count:
        buckets = Buckets([zero_count], [(-zero_threshold, zero_threshold, 0.0)]).plus(buckets)
    if any(negative.counts):
        buckets = _side_buckets(scale, *negative).mirrored().plus(buckets)
    return buckets


@lru_cache(_MAX_TABLES)
def _table(scale: int, block: int) -> list[Bucket | None]:
    """The positive buckets of two blocks; ``None`` where one was not asked for yet."""
    del scale, block
    return [None] * (2 * _BLOCK)


def _side_buckets(scale: int, offset: int, counts: Sequence[int], places: Sequence[int] | None) -> Buckets:
    """The filled buckets on the positive side of zero, or on the negative one, by magnitude."""
    if places is None:
        places = [*compress(_PLACES if len(counts) <= len(_PLACES) else range(len(counts)), counts)]
        counts = _picker(places)(counts) if places else ()
    if not places:
        return Buckets([], [])
    first = offset % _BLOCK
    end = first + places[-1] + 1
    if end > 2 * _BLOCK:
        return Buckets([*counts], [_bucket(scale, offset + place) for place in places])
    table = _table(scale, offset >> _BLOCK_BITS)
    bounds = [*_picker(places)(table[first:end])]
    if not all(bounds):
        bounds = [_bucket(scale, offset + place) for place in places]
        for place, bucket in zip(places, bounds, strict=True):
            table[first + place] = bucket
    return Buckets([*counts], bounds)


def _bucket(scale: int, index: int) -> Bucket:
    return bucket_between(edge(scale, index), edge(scale, index + 1))


def bucket_between(lower: float, upper: float) -> Bucket:
    """The bucket with these edges."""
    return lower, upper, short_between(lower, upper)


def _picker(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """A function that picks the elements at these places."""
    if len(places) > 1:
        return itemgetter(*places)  # twice as fast as a comprehension
    (place,) = places
    return lambda column: (column[place],)


def edge(scale: int, index: int) -> float:
    """The lower edge of an exponential bucket; 0 and inf stand for what no normal float holds.

    Numbers below the normal ones, down to 5e-324, are counted in the bucket of the smallest normal one:
    https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponential-scale.

    >>> edge(0, 3), edge(1, 1), edge(-10, 1)
    (8.0, 1.4142135623730951, inf)
    """
    if scale <= 0:
        return _power_of_two(index << -scale)
    exponent, part = divmod(index, 1 << scale)
    # Python's own power is correctly rounded here far more often than exp(log(2) * ...).
    return _power_of_two(exponent, 2.0 ** (part / (1 << scale)))


def _power_of_two(exponent: int, mantissa: float = 1.0) -> float:
    try:
        power = math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.inf
    return power if power >= sys.float_info.min else 0.0


def short_between(lower: float, upper: float) -> float:
    """The number with the fewest digits near the middle of two others.

    >>> short_between(2.0, 4.0), short_between(1.0905, 1.1388), short_between(107e3, 112e3)
    (3.0, 1.11, 110000.0)
    """
    middle, room = lower / 2 + upper / 2, (upper - lower) * _REFERENCE_ROOM
    if not 0 < room < math.inf:
        return middle
    # A number that is rounded to so many digits may be farther off than the room; it is where the search begins.
    for digits in range(max(int(math.log10(abs(middle) / room)), 1) if middle else 1, 17):
        rounded = float(f"{middle:.{digits}g}")
        if abs(rounded - middle) <= room:
            return rounded
    return middle


def _added(first: dict[int, int], second: Mapping[int, int]) -> dict[int, int]:
    for index, count in second.items():
        first[index] = first.get(index, 0) + count
    return first


def _subtracted(now: dict[int, int], then: Mapping[int, int]) -> dict[int, int] | None:
    for index, count in then.items():
        now[index] = now.get(index, 0) - count
        if now[index] < 0:
            return None
    return now


def contradiction(count: int, total: float, extremes: Extremes, buckets: Buckets) -> str | None:
    """What makes the numbers of a histogram impossible, or ``None``."""
    counted = sum(buckets.samples)
    if buckets.samples and min(buckets.samples) < 0:
        return "a negative count"
    if counted != count:
        return f"count {count}, but {counted} samples in the buckets"
    if not abs(total) <= _MAX_FLOAT:  # NaN fails every comparison; an int may be beyond every float
        return "a sum beyond every float"
    return _extremes_contradiction(extremes, buckets) if count else None


def bounds_contradiction(bounds: Sequence[float], counts: Sequence[int]) -> str | None:
    """What makes the bounds of an explicit histogram impossible, or ``None``."""
    if len(counts) != len(bounds) + 1:
        return f"{len(bounds)} bounds and {len(counts)} counts"
    if not all(map(math.isfinite, bounds)):
        return "bounds that are not finite numbers"
    return None if all(map(lt, bounds, bounds[1:])) else "bounds that do not ascend"


def _extremes_contradiction(extremes: Extremes, buckets: Buckets) -> str | None:
    minimum, maximum, floor, ceiling = extremes
    first, last = buckets.bounds[0], buckets.bounds[-1]
    for extreme in (minimum, maximum):
        if extreme is not None and not -_MAX_FLOAT <= extreme <= _MAX_FLOAT:
            return "a minimum or maximum that is not a number"
    if first[0] <= floor <= first[1] and last[0] <= ceiling <= last[1] and floor <= ceiling:
        return None
    if floor > ceiling:
        return f"a minimum of {floor} above the maximum of {ceiling}"
    if minimum is not None and not _holds(first, minimum):
        return f"a minimum of {minimum} outside the first filled bucket"
    if maximum is not None and not _holds(last, maximum):
        return f"a maximum of {maximum} outside the last filled bucket"
    return None


def _holds(bucket: Bucket, value: float) -> bool:
    lower, upper, _ = bucket
    return lower - EDGE_TOLERANCE * abs(lower) <= value <= upper + EDGE_TOLERANCE * abs(upper)
