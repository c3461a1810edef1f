"""The buckets of a vector's histogram, and the samples that a published value represents."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tests.vectors.inputs import Json, bucket_counts, number

VALUES_THAT_NEED_NO_MERGING = 148
"""Number of non-empty buckets that fit in one datum, in addition to the minimum and the maximum."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A number of samples between two edges."""

    low: float
    high: float
    count: int


def filled_buckets(point: Json, *, factor: float = 1.0) -> list[Bucket]:
    """Return the non-empty buckets in ascending order, clamped to the point's minimum and maximum, times ``factor``."""
    minimum, maximum = _recorded(point, "min", -math.inf), _recorded(point, "max", math.inf)
    every = _exponential(point) if "scale" in point else _explicit(point)
    return [
        Bucket(max(bucket.low, minimum) * factor, min(bucket.high, maximum) * factor, bucket.count)
        for bucket in every
        if bucket.count
    ]


def value_errors(
    values: Sequence[tuple[float, float]], buckets: Sequence[Bucket], *, relative_slack: float
) -> Iterator[str]:
    """Yield the errors in ascending ``(value, count)`` pairs: a value must lie in every bucket whose ranks it covers.

    If there are more buckets than fit in one datum, a value may represent adjacent buckets and lie in any of them.
    """
    last_ranks = list(accumulate(bucket.count for bucket in buckets))
    value_ranks = list(accumulate(count for _, count in values))
    if value_ranks[-1:] != last_ranks[-1:]:
        yield f"counts add up to {value_ranks[-1:]}, those of the buckets to {last_ranks[-1:]}"
        return
    low_of, high_of = (min, max) if len(buckets) > VALUES_THAT_NEED_NO_MERGING else (max, min)
    for (value, count), last in zip(values, value_ranks, strict=True):
        own = buckets[bisect_right(last_ranks, last - count) : bisect_left(last_ranks, last) + 1]
        low, high = low_of(bucket.low for bucket in own), high_of(bucket.high for bucket in own)
        nearest = min(max(value, low), high)
        if value != nearest and not math.isclose(value, nearest, rel_tol=relative_slack, abs_tol=0):
            yield f"{value!r} (x {count}) is not within {low!r} ... {high!r}"


def _recorded(point: Json, key: str, otherwise: float) -> float:
    value = point.get(key)
    return otherwise if value is None or not math.isfinite(number(value)) else number(value)


def _explicit(point: Json) -> Iterator[Bucket]:
    edges = [-math.inf, *point["bounds"], math.inf]
    return map(Bucket, edges, edges[1:], bucket_counts(point["counts"]))


def _exponential(point: Json) -> Iterator[Bucket]:
    yield from (Bucket(-side.high, -side.low, side.count) for side in reversed(_side(point, "negative")))
    yield Bucket(0.0, 0.0, point.get("zero_count", 0))
    yield from _side(point, "positive")


def _side(point: Json, sign: str) -> list[Bucket]:
    """Return the buckets of one sign, by magnitude."""
    side: Json = point.get(sign, {"offset": 0, "counts": []})
    return [
        Bucket(_edge(index, point["scale"]), _edge(index + 1, point["scale"]), count)
        for index, count in enumerate(bucket_counts(side["counts"]), start=side["offset"])
    ]


def _edge(index: int, scale: int) -> float:
    """Return 2 to the power of index / 2^scale, or infinity if a float cannot hold it."""
    try:
        return float(2.0 ** (index * 2.0**-scale))
    except OverflowError:
        return math.inf
