"""Which numbers CloudWatch takes."""

import math
from collections.abc import Sequence
from typing import Final

from otel_cloudwatch_flask.limits import MAX_MAGNITUDE, MIN_MAGNITUDE

NUMBERS: Final = frozenset({float, int})
_EXACT: Final = 10**15
"""Every whole number below it is a float, too."""


def sendable(value: float) -> float | None:
    """The number as CloudWatch takes it, or ``None`` if it takes no such number.

    NaN, the infinities and magnitudes above 2^360 are refused. What is not 0 but below 2^-360 is refused too: it is
    sent as 0. There is no negative zero.

    >>> sendable(float("nan")) is None
    True
    >>> sendable(1e-200)
    0.0
    """
    try:
        number = float(value)
    except OverflowError:  # an int beyond every float
        return None
    if not abs(number) <= MAX_MAGNITUDE:  # NaN fails every comparison
        return None
    return number if abs(number) >= MIN_MAGNITUDE else 0.0


def is_finite(value: float) -> bool:
    """Whether this is a number at all, whatever its size."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return True


def are_plain(values: Sequence[float]) -> bool:
    """Whether all of these are ints or floats that CloudWatch takes as they are."""
    return (
        {*map(type, values)} <= NUMBERS
        and all(map(math.isfinite, values))
        and min(values) > -_EXACT
        and max(values) < _EXACT
        and not any(0 < abs(value) < MIN_MAGNITUDE for value in values if type(value) is float)
    )
