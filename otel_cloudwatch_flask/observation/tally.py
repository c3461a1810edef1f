"""Compute the statistics that CloudWatch reports for datums: count, sum, minimum, maximum and nearest-rank percentiles.

The number of distinct values can be limited to bound memory. Percentiles are approximate if the limit is exceeded.
"""

import math
import operator
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple, TypeAlias

from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.model.datum import Statistics

Content: TypeAlias = float | Distribution | Statistics

_FRACTION_BITS: Final = 52
_FIRST_SHIFT: Final = 44
_LAST_SHIFT: Final = 62
_MAGNITUDE: Final = 2**63 - 1
"""A mask of all bits of a double except its sign."""
_SMALLEST: Final = 2.0**-1000
"""Bins up to this magnitude count as 0. CloudWatch accepts no nonzero values of this magnitude anyway."""
_UNITS: Final = 2**1074
"""The reciprocal of the smallest positive double.

Every finite double times this factor is an integer, and integers are added without rounding.
"""


class Summary(NamedTuple):
    """The statistics of a datum, its values in ascending order (``None`` if they are unknown), and their counts."""

    samples: float
    sum: float
    minimum: float
    maximum: float
    values: Sequence[float] | None
    counts: Sequence[float]


class ValueCounts:
    """The number of samples at each value, from which nearest-rank percentiles are computed.

    If there are more than ``max_values`` distinct values, values with the same leading bits are merged into a bin. At
    first, a bin is identified by the sign, the exponent and 8 bits of the fraction; each time there are too many bins,
    one bit fewer is used.

    >>> counts = ValueCounts(max_values=4)
    >>> counts.add([10, 20, 30], [1, 998, 1])
    >>> counts.percentiles([50, 99.9, 100]), counts.error
    ([20, 20, 30], 0.0)
    >>> counts.add([10.01, 40], [1, 1])
    >>> counts.percentiles([50]), counts.error
    ([20.03125], 0.001953125)
    """

    def __init__(self, max_values: float) -> None:
        self.max_values = max_values
        self.counts: dict[float, float] = {}
        self._shift = 0

    @property
    def error(self) -> float:
        """The maximum relative error of percentiles, which is 0 as long as they are exact."""
        return 2.0 ** (self._shift - _FRACTION_BITS - 1) if self._shift else 0.0

    def add(self, values: Iterable[float], counts: Iterable[float]) -> None:
        """Add ``counts[i]`` samples at ``values[i]``, for each index ``i``."""
        self._add_counts(_bin_keys(values, self._shift) if self._shift else values, counts)
        while len(self.counts) > self.max_values and self._shift < _LAST_SHIFT:
            self._coarsen()

    def percentiles(self, percents: Iterable[float]) -> list[float]:
        """Return a nearest-rank percentile for each of ``percents``, exact unless values have been merged."""
        keys = sorted(self.counts)
        found = percentiles(keys, [self.counts[key] for key in keys], percents)
        return [_middle(int(key), self._shift) for key in found] if self._shift else found

    def _add_counts(self, keys: Iterable[float], counts: Iterable[float]) -> None:
        present = self.counts
        for key, count in zip(keys, counts, strict=True):
            present[key] = present.get(key, 0) + count

    def _coarsen(self) -> None:
        # Dropping one more bit merges pairs of bins, so the original values are not needed.
        keys, counts = list(self.counts), list(self.counts.values())
        self.counts = {}
        self._add_counts([int(key) >> 1 for key in keys] if self._shift else _bin_keys(keys, _FIRST_SHIFT), counts)
        self._shift = self._shift + 1 if self._shift else _FIRST_SHIFT


class Tally:
    """The combined statistics of several datums. Percentiles are exact up to ``max_values`` distinct values.

    >>> tally = Tally.of([3, Distribution((1, 2.5), (10, 1))])
    >>> tally.count, tally.sum, tally.minimum, tally.maximum, tally.percentiles([50, 99])
    (12.0, 15.5, 1, 3, [1, 3])
    """

    def __init__(self, max_values: float = math.inf) -> None:
        self.count = 0.0
        self.minimum, self.maximum = math.inf, -math.inf
        self.values = ValueCounts(max_values)
        self.has_percentiles = True
        self._sum_units = 0

    @classmethod
    def of(cls, contents: Iterable[Content]) -> "Tally":
        """Return the combined statistics of all ``contents``."""
        tally = cls()
        for content in contents:
            tally.add(content)
        return tally

    @property
    def sum(self) -> float:
        """The sum of the datums' sums, rounded only once."""
        return self._sum_units / _UNITS

    def add(self, content: Content) -> Summary:
        """Add the samples of a datum, and return the statistics of that datum alone."""
        datum = summary(content)
        # Added exactly, so that the result does not depend on the order of the datums.
        numerator, denominator = datum.sum.as_integer_ratio()
        self._sum_units += numerator * (_UNITS // denominator)
        self.count += datum.samples
        self.minimum = min(self.minimum, datum.minimum)
        self.maximum = max(self.maximum, datum.maximum)
        if datum.values is None:
            self.has_percentiles = False
        else:
            self.values.add(datum.values, datum.counts)
        return datum

    def percentiles(self, percents: Iterable[float]) -> list[float] | None:
        """Return nearest-rank percentiles, or ``None`` if a statistic set hides the values of some samples."""
        if not self.has_percentiles:
            return None
        # The middle of a bin, which represents its values, may lie outside the range of the samples.
        return [min(max(each, self.minimum), self.maximum) for each in self.values.percentiles(percents)]


def samples_of(content: Content) -> float:
    """Return the number of samples in one datum."""
    if isinstance(content, Distribution):
        return sum(content.counts)
    return content.count if isinstance(content, Statistics) else 1


def summary(content: Content) -> Summary:
    """Return the statistics of one datum."""
    if isinstance(content, Distribution):
        values, counts = content.values, content.counts
        total = math.fsum(map(operator.mul, values, counts))
        return Summary(sum(counts), total, values[0], values[-1], values, counts)
    if isinstance(content, Statistics):
        smallest, largest = content.minimum, content.maximum
        # If all samples are equal, their value is known, and CloudWatch has percentiles too.
        known = (smallest,) if smallest == largest else None
        return Summary(content.count, content.sum, smallest, largest, known, (content.count,))
    return Summary(1, content, content, content, (content,), (1,))


def content_of(datum: Mapping[str, Any]) -> Content:
    """Return the number, distribution or statistic set that a valid datum in boto3's form contains."""
    if (statistics := datum.get("StatisticValues")) is not None:
        total, minimum, maximum = (float(statistics[name]) for name in ("Sum", "Minimum", "Maximum"))
        return Statistics(statistics["SampleCount"], total, minimum, maximum)
    if (values := datum.get("Values")) is not None:
        return Distribution.of(zip(values, datum.get("Counts") or [1] * len(values), strict=True))
    return float(datum["Value"])


def percentiles(values: Sequence[float], counts: Sequence[float], percents: Iterable[float]) -> list[float]:
    """Return nearest-rank percentiles of ascending ``values``, given their ``counts``. Percentile 0 is the minimum.

    >>> percentiles([12, 350], [99, 1], [0, 50, 99, 99.1])
    [12, 12, 12, 350]
    """
    if len(values) == 1:
        return [values[0] for _ in percents]
    *reached, samples = accumulate(counts)
    return [values[bisect_left(reached, _rank(percent, samples))] for percent in percents]


def _rank(percent: float, samples: float) -> float:
    # The percentage is scaled to an integer to avoid rounding errors: in doubles, 99.9 / 100 * 1000 exceeds 999.
    return round(percent * 10**10) * samples / 10**12


def _bin_keys(values: Iterable[float], shift: int) -> list[int]:
    """Return the key of each value's bin: the bits of the value without the last ``shift`` bits, as a signed integer.

    Keys sort in the same order as values.
    """
    every = memoryview(array("d", values)).cast("B").cast("q")
    return [(bits if bits >= 0 else -(bits & _MAGNITUDE)) >> shift for bits in every]


def _middle(key: int, shift: int) -> float:
    """Return the middle of a bin, given its ``key`` from :func:`_bin_keys`. Magnitudes up to 2^-1000 become 0."""
    bits = (key << shift) + (1 << (shift - 1))
    (magnitude,) = struct.unpack("=d", struct.pack("=q", abs(bits)))
    return math.copysign(magnitude, bits) if magnitude > _SMALLEST else 0.0
