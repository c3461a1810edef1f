"""Buckets of exponential histograms, and the short texts of their middles: worked out once, and remembered.

The same buckets come again in every collection, of all series, and to write a number takes far longer than to look it
up. What is remembered is bounded, and forgotten all at once.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import mul
from typing import Any, Final

from otel_cloudwatch_flask.wire import number_json

FINEST_SCALE: Final = 20
"""Buckets of finer ones are about as wide as what the SDK's rounding may put an extreme beside its own."""
BLOCK_BITS: Final = 8
BLOCK: Final = 1 << BLOCK_BITS
"""What is known of buckets is kept in blocks that begin at a multiple of it, and go on for as many buckets beyond."""
MAX_ENTRIES: Final = 100_000
"""What is remembered at most, at about a hundred bytes each."""
_ENTRIES_OF_BLOCK: Final = 240
"""What an empty block counts for."""

_MIDST: Final = 0.125
"""The farthest that a short number may be from the middle, in widths of its bucket."""
_NEAR_EDGE: Final = 0.02
_DIGITS: Final = 3
"""Those that place a value in its bucket; those that tell buckets apart come on top."""


class Scale:
    """What is the same for all histograms of a scale."""

    def __init__(self, scale: int) -> None:
        self._doublings: float = 2.0**-scale
        growth: float = 2.0**self._doublings - 1.0
        # Places in a bucket that rounding does not lead out of, relative to its lower edge.
        self._near_lower, self._near_upper = 1.0 + _NEAR_EDGE * growth, 1.0 + (1.0 - _NEAR_EDGE) * growth
        digits = _DIGITS - math.floor(math.log10(growth))
        self._template = f"%.{digits}g"
        self.fine_template = f"%.{digits + 1}g"
        """What writes a value so exactly that it is in its part of a bucket."""

    def edge(self, index: int) -> float:
        """The lower edge of a bucket."""
        edge: float = 2.0 ** (index * self._doublings)
        return edge

    def text_beside_edge(self, lower: float, *, is_upper: bool) -> str:
        """Of a number that is beside the lower, or the upper, edge of the bucket with this lower one."""
        return self._template % (lower * (self._near_upper if is_upper else self._near_lower))


@lru_cache(FINEST_SCALE + 1)
def scale_of(scale: int) -> Scale:
    """The scale with this number."""
    return Scale(scale)


class Block:
    """What is known of buckets that follow each other, as lists beside each other."""

    __slots__ = ("edges", "middles", "scale", "texts")

    def __init__(self, scale: Scale, first: int) -> None:
        self.scale = scale
        self.edges = [scale.edge(index) for index in range(first, first + 2 * BLOCK + 1)]
        """The lower edge of each bucket, which is the upper one of that before."""
        self.texts = [""] * (2 * BLOCK)
        """The middles of the buckets as short texts; "" where that is not known yet."""
        self.middles: list[Any] = [None] * (2 * BLOCK)
        """What these texts say; ``None`` where that is not known yet."""

    def known(
        self, start: int, places: list[int], pick: Callable[[Sequence[Any]], Sequence[Any]], samples: list[int]
    ) -> tuple[list[str], list[float]]:
        """The texts of the buckets at these places behind ``start``, which ``pick`` gets, and what all samples add."""
        here = slice(start, start + places[-1] + 1)
        try:
            masses = [*map(mul, pick(self.middles[here]), samples)]  # a float first is faster
        except TypeError:  # not all are known yet
            for place in places:
                if not self.texts[start + place]:
                    self.learn(start + place)
            masses = [*map(mul, pick(self.middles[here]), samples)]
        return [*pick(self.texts[here])], masses

    def learn(self, place: int) -> str:
        """Work out what belongs to one bucket; its text."""
        blocks.make_room(1)
        text = self.texts[place] = short_text_between(self.edges[place], self.edges[place + 1])
        self.middles[place] = float(text)  # the last: with it another thread takes both for known
        return text


class Blocks(dict[tuple[int, int], Block]):
    """The blocks by scale and number, made when they are asked for."""

    entries = 0

    def __missing__(self, key: tuple[int, int]) -> Block:
        scale, number = key
        block = Block(scale_of(scale), number << BLOCK_BITS)
        self.make_room(_ENTRIES_OF_BLOCK)
        self[key] = block
        return block

    def make_room(self, entries: int) -> None:
        """Count what is going to be remembered; if it is too much, forget everything else."""
        if self.entries >= MAX_ENTRIES:
            self.clear()
            self.entries = 0
        self.entries += entries


blocks: Final = Blocks()
"""All that is remembered in this process."""


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
