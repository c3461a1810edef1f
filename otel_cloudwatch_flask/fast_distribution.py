"""The common case of ``distribution``, without an object for each bucket: most of an export's CPU is spent here.

Common is an exponential histogram whose minimum and maximum were recorded, with no more filled buckets than a datum
has room for. The values are, but for rounding, those of the plain twin, which takes everything else.
"""

import math
from operator import mul

from otel_cloudwatch_flask.distribution import MAX_BUCKETS, SAMPLES_PER_PART, Distribution
from otel_cloudwatch_flask.histogram import ExponentialHistogram, edge
from otel_cloudwatch_flask.limits import MAX_MAGNITUDE, MIN_MAGNITUDE

_MIN_COUNT = 4
"""Up to three samples are known exactly, which is the plain twin's business."""


def fast_distribution(histogram: ExponentialHistogram) -> Distribution | None:
    """The values and counts to send, or ``None`` for a histogram that is not of the common kind."""
    if histogram.extremes.minimum is None or histogram.extremes.maximum is None:
        return None
    minimum, maximum = float(histogram.extremes.minimum), float(histogram.extremes.maximum)
    if not _is_common(histogram, minimum, maximum):
        return None
    lowers, uppers, samples = _inner_buckets(histogram, minimum, maximum)
    if max(samples) >= 2 * SAMPLES_PER_PART:
        return None  # the twin divides crowded buckets
    inner = _values(lowers, uppers, samples, math.fsum((histogram.sum, -minimum, -maximum)))
    values, counts = [minimum, *inner, maximum], [1, *samples, 1]
    if histogram.factor != 1.0:
        values = [value * histogram.factor for value in values]
    if len(set(values)) < len(values) or min(map(abs, values)) < MIN_MAGNITUDE:
        values = [value if abs(value) >= MIN_MAGNITUDE else 0.0 for value in values]
        return Distribution.of(zip(values, counts, strict=True))
    return Distribution(tuple(values), tuple(counts))


def _is_common(histogram: ExponentialHistogram, minimum: float, maximum: float) -> bool:
    return (
        histogram.count >= _MIN_COUNT
        and len(histogram.positive) + len(histogram.negative) < MAX_BUCKETS
        and max(-minimum, maximum) * histogram.factor <= MAX_MAGNITUDE
    )


def _inner_buckets(
    histogram: ExponentialHistogram, minimum: float, maximum: float
) -> tuple[list[float], list[float], list[int]]:
    """Lower edges, upper edges and samples of the filled buckets, narrowed to the extremes, without these two."""
    scale, positive, negative = histogram.scale, histogram.positive, histogram.negative
    lowers: list[float] = []
    uppers: list[float] = []
    samples: list[int] = []
    if negative:
        descending = sorted(negative, reverse=True)
        lowers = [-edge(scale, index + 1) for index in descending]
        uppers = [-edge(scale, index) for index in descending]
        samples = [negative[index] for index in descending]
    if histogram.zero_count:
        lowers.append(-histogram.zero_threshold)
        uppers.append(histogram.zero_threshold)
        samples.append(histogram.zero_count)
    ascending = sorted(positive)
    lowers += [edge(scale, index) for index in ascending]
    uppers += [edge(scale, index + 1) for index in ascending]
    samples += [positive[index] for index in ascending]
    # Only the outermost reach beyond the extremes; rounding may put an extreme outside of its bucket.
    lowers[0], uppers[-1] = max(lowers[0], minimum), min(uppers[-1], maximum)
    uppers[0], lowers[-1] = max(uppers[0], lowers[0]), min(lowers[-1], uppers[-1])
    for place in (0, -1):
        samples[place] -= 1
        if not samples[place]:
            del lowers[place], uppers[place], samples[place]
    return lowers, uppers, samples


def _values(lowers: list[float], uppers: list[float], samples: list[int], total: float) -> list[float]:
    """One value in each bucket, at the fraction of its width that makes the sum right."""
    lowest, highest = math.fsum(map(mul, samples, lowers)), math.fsum(map(mul, samples, uppers))
    width = highest - lowest
    if width <= 0:
        return lowers
    above, below = total - lowest, highest - total
    if below < above:
        fraction = max(below, 0.0) / width
        return [upper - fraction * (upper - lower) for lower, upper in zip(lowers, uppers, strict=True)]
    fraction = max(above, 0.0) / width
    return [lower + fraction * (upper - lower) for lower, upper in zip(lowers, uppers, strict=True)]
