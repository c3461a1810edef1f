"""Compute the statistics that CloudWatch reports for datums: count, sum, minimum, maximum and nearest-rank percentiles.

The number of distinct values can be limited to bound memory. Percentiles are approximate if the limit is exceeded.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.model.datum import Content, Statistics, statistics_of, values_of

_FRACTION_BITS: Final = 52
_FIRST_SHIFT: Final = 44
_LAST_SHIFT: Final = 62
_UNITS: Final = 2**1074
"""The reciprocal of the smallest positive double.

Every finite double times this factor is an integer, and integers are added without rounding.
"""


class ValueCounts:
    """The number of samples at each value, from which nearest-rank percentiles are computed.

    If there are more than ``max_values`` distinct values, values with the same leading bits are merged into a bin,
    which is represented by its middle. At first, a bin is identified by the sign, the exponent and 8 bits of the
    fraction; each time there are too many bins, one bit fewer is used.

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
        present = self.counts
        for value, count in zip(_middles(values, self._shift) if self._shift else values, counts, strict=True):
            present[value] = present.get(value, 0) + count
        if len(present) > self.max_values and self._shift < _LAST_SHIFT:
            self._shift = max(self._shift + 1, _FIRST_SHIFT)
            self.counts = {}
            # The middle of a bin is in the same wider bin as the values that it represents.
            self.add(present.keys(), present.values())

    def percentiles(self, percents: Iterable[float]) -> list[float]:
        """Return a nearest-rank percentile for each of ``percents``, exact unless values have been merged."""
        values = sorted(self.counts)
        return percentiles(values, [self.counts[value] for value in values], percents)


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

    def add(self, content: Content) -> tuple[Statistics, Distribution | None]:
        """Add the samples of a datum, and return the statistics and the values, if known, of that datum alone."""
        datum, known = statistics_of(content), values_of(content)
        # Added exactly, so that the result does not depend on the order of the datums.
        numerator, denominator = datum.sum.as_integer_ratio()
        self._sum_units += numerator * (_UNITS // denominator)
        self.count += datum.count
        self.minimum = min(self.minimum, datum.minimum)
        self.maximum = max(self.maximum, datum.maximum)
        if known is None:
            self.has_percentiles = False
        else:
            self.values.add(*known)
        return datum, known

    def percentiles(self, percents: Iterable[float]) -> list[float] | None:
        """Return nearest-rank percentiles, or ``None`` if a statistic set hides the values of some samples."""
        if not self.has_percentiles:
            return None
        # The middle of a bin, which represents its values, may lie outside the range of the samples.
        return [min(max(each, self.minimum), self.maximum) for each in self.values.percentiles(percents)]

    def statistic(self, name: str) -> float | None:
        """Return a statistic by its name in CloudWatch, such as ``Average`` or ``p99``. There must be a sample.

        Returns ``None`` for percentiles that CloudWatch does not have: those of negative values or statistic sets.
        Raises ``KeyError`` for statistics such as trimmed means.
        """
        if name.startswith("p"):
            found = self.percentiles([float(name[1:])])
            return found[0] if found and self.minimum >= 0 else None
        return {
            "SampleCount": self.count,
            "Sum": self.sum,
            "Average": self.sum / self.count,
            "Minimum": self.minimum,
            "Maximum": self.maximum,
        }[name]


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


def _middles(values: Iterable[float], shift: int) -> Sequence[float]:
    """Return the middle of each value's bin. The values in a bin differ only in their last ``shift`` bits."""
    every = memoryview(array("d", values)).cast("B").cast("q")
    half = 1 << (shift - 1)
    # Zero has a bin of its own.
    middles = array("q", [(bits >> shift << shift) | half if bits else 0 for bits in every])
    return memoryview(middles).cast("B").cast("d").tolist()
