"""Histograms of given samples, computed one sample at a time: the reference for the package's arithmetic."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from otel_cloudwatch_flask.histograms.buckets import (
    Buckets,
    ExplicitHistogram,
    ExponentialHistogram,
    Extremes,
    bucket_between,
    edge,
    recorded_extremes,
)

UNRECORDED = recorded_extremes(None, None)


class Row(NamedTuple):
    """One bucket."""

    lower: float
    upper: float
    samples: int


def rows(buckets: Buckets) -> list[Row]:
    """Return the buckets as rows."""
    return [Row(lower, upper, samples) for samples, (lower, upper, _) in zip(*buckets, strict=True)]


def buckets_of(given: Iterable[tuple[float, float, int]]) -> Buckets:
    """Return rows as buckets."""
    each = [*given]
    return [samples for _, _, samples in each], [bucket_between(lower, upper) for lower, upper, _ in each]


def samples(*, min_size: int = 1, max_size: int = 40) -> st.SearchStrategy[list[float]]:
    """Return a strategy for lists of samples of every valid size and both signs, many equal or powers of two."""
    magnitudes = st.one_of(
        st.floats(1e-3, 1e3),
        st.floats(2.0**-350, 2.0**350),
        st.integers(-40, 40).map(lambda exponent: 2.0**exponent),
        st.sampled_from([0.0, 0.5, 1.0, 10.0, 1000.0, 2.0**-350, 2.0**350]),
    )
    signed = st.builds(math.copysign, magnitudes, st.sampled_from([1.0, 1.0, -1.0])).map(lambda value: value + 0.0)
    return st.lists(signed, min_size=min_size, max_size=max_size)


def explicit(
    recorded: Sequence[float], bounds: Sequence[float], *, extremes: Extremes | None = None
) -> ExplicitHistogram:
    """Return the histogram of these samples; the bounds are the upper edges of its buckets."""
    counts = Counter(bisect_left(bounds, sample) for sample in recorded)
    return ExplicitHistogram(
        count=len(recorded),
        sum=math.fsum(recorded),
        extremes=extremes or recorded_extremes(min(recorded), max(recorded)),
        bounds=tuple(bounds),
        counts=tuple(counts[i] for i in range(len(bounds) + 1)),
    )


def exponential(recorded: Sequence[float], scale: int, *, extremes: Extremes | None = None) -> ExponentialHistogram:
    """Return the exponential histogram of these samples at this scale."""
    return ExponentialHistogram(
        count=len(recorded),
        sum=math.fsum(recorded),
        extremes=extremes or recorded_extremes(min(recorded), max(recorded)),
        scale=scale,
        zero_count=sum(sample == 0 for sample in recorded),
        positive=Counter(bucket_index(sample, scale) for sample in recorded if sample > 0),
        negative=Counter(bucket_index(-sample, scale) for sample in recorded if sample < 0),
    )


def bucket_index(magnitude: float, scale: int) -> int:
    """Return the index of the bucket that contains a magnitude. Lower edges are exclusive, upper ones inclusive."""
    index = math.ceil(math.ldexp(math.log2(magnitude), scale)) - 1
    while magnitude <= edge(scale, index):
        index -= 1
    while magnitude > edge(scale, index + 1):
        index += 1
    return index
