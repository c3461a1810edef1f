"""Samples by value, in bounded memory: exact for as long as there are few different values, then nearly."""

import math
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

_FRACTION_BITS: Final = 52
_FIRST_SHIFT: Final = 44
_LAST_SHIFT: Final = 62
_MAGNITUDE: Final = 2**63 - 1
"""All bits but the sign."""
_SMALLEST: Final = 2.0**-1000
"""Smaller numbers are in the same class as 0, and CloudWatch takes none of them."""


class ValueCounts:
    """How many samples had which value, for percentiles by nearest rank.

    With more than ``max_values`` different values, those close to each other share a class: the leading bits of a
    double are its class, 8 of its fraction at first, and one less whenever there are too many classes.

    >>> counts = ValueCounts(max_values=4)
    >>> counts.add([10, 20, 30], [1, 998, 1])
    >>> counts.percentiles([50, 99.9, 100]), counts.error
    ([20, 20, 30], 0.0)
    >>> counts.add([10.01, 40], [1, 1])
    >>> counts.percentiles([50]), counts.error
    ([20.03125], 0.001953125)
    """

    def __init__(self, max_values: int) -> None:
        self.max_values = max_values
        self._counts: dict[float, float] = {}
        self._shift = 0

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def error(self) -> float:
        """How far a percentile may be off at most, as a fraction of it; 0 while all are exact."""
        return 2.0 ** (self._shift - _FRACTION_BITS - 1) if self._shift else 0.0

    def add(self, values: Iterable[float], counts: Iterable[float]) -> None:
        """Add samples: values, and beside each how many samples have it."""
        self._add_to_classes(_classes(values, self._shift) if self._shift else values, counts)
        while len(self._counts) > self.max_values and self._shift < _LAST_SHIFT:
            self._coarsen()

    def percentiles(self, percents: Iterable[float]) -> list[float]:
        """For each percentage, the smallest value that at least so many of the samples do not exceed."""
        keys = sorted(self._counts)
        found = percentiles(keys, list(map(self._counts.__getitem__, keys)), percents)
        return [_middle(int(key), self._shift) for key in found] if self._shift else found

    def _add_to_classes(self, keys: Iterable[float], counts: Iterable[float]) -> None:
        present = self._counts
        for key, count in zip(keys, counts, strict=True):
            present[key] = present.get(key, 0) + count

    def _coarsen(self) -> None:
        counts = self._counts.values()
        if self._shift:
            keys, self._shift = [int(key) >> 1 for key in self._counts], self._shift + 1
        else:
            keys, self._shift = _classes(self._counts, _FIRST_SHIFT), _FIRST_SHIFT
        self._counts = {}
        self._add_to_classes(keys, counts)


def percentiles(values: Sequence[float], counts: Sequence[float], percents: Iterable[float]) -> list[float]:
    """Percentiles by nearest rank of ascending values with their counts.

    >>> percentiles([12, 350], [99, 1], [50, 99, 99.1])
    [12, 12, 350]
    """
    if len(values) == 1:
        return [values[0] for _ in percents]
    reached = list(accumulate(counts))
    return [values[bisect_left(reached, _rank(percent, reached[-1]))] for percent in percents]


def _rank(percent: float, samples: float) -> float:
    # In thousandths of a percent and whole numbers: 99.9 / 100 * 1000 is more than 999 as a double.
    return -(-round(percent * 1000) * samples // 100_000)


def _classes(values: Iterable[float], shift: int) -> list[int]:
    """The bits of each double but for the last ``shift``, in the order of the values."""
    every = memoryview(array("d", values)).cast("B").cast("q")
    return [(bits if bits >= 0 else -(bits & _MAGNITUDE)) >> shift for bits in every]


def _middle(key: int, shift: int) -> float:
    """The value in the middle of a class."""
    bits = (key << shift) + (1 << (shift - 1))
    (magnitude,) = struct.unpack("=d", struct.pack("=q", abs(bits)))
    return math.copysign(magnitude, bits) if magnitude > _SMALLEST else 0.0


class ExactSum:
    """A running sum without rounding errors: ``float()`` of it is what ``math.fsum`` says of all that was added.

    Shewchuk's algorithm, as ``fsum`` has it: https://github.com/python/cpython/blob/main/Modules/mathmodule.c
    """

    __slots__ = ("_partials",)

    def __init__(self) -> None:
        self._partials: list[float] = []

    def add(self, value: float) -> None:
        """Add a finite number."""
        partials = self._partials
        kept = 0
        for each in partials:
            larger, smaller = (value, each) if abs(value) >= abs(each) else (each, value)
            value = larger + smaller
            if rest := smaller - (value - larger):
                partials[kept] = rest
                kept += 1
        partials[kept:] = [value]

    def __float__(self) -> float:
        return math.fsum(self._partials)
