"""The cost guard: how many CloudWatch metrics one process may create.

Each distinct metric costs $0.30 a month (the first 10,000), billed by the hour:
https://aws.amazon.com/cloudwatch/pricing/.
"""

from collections.abc import Callable
from typing import Final

from otel_cloudwatch_flask.model.datum import OVERFLOW_DIMENSIONS, OVERFLOW_KEY, Series

IDLE_SECONDS: Final = 3600.0
"""After so long without a datum a metric costs nothing more, and its place is free for another."""

MAX_OVERFLOW_SERIES: Final = 1000
"""So many metrics may have an overflow series of their own: names, too, may come from what a client sends."""

OVERFLOW_NAME: Final = OVERFLOW_KEY
"""The metric whose overflow series takes what is left of all others."""

_SWEEP_SECONDS: Final = 10.0
_EPOCH_SECONDS: Final = 60.0


class _Places:
    """Places for so many series; who was idle for an hour gives its own back."""

    def __init__(self, number: int, now: float) -> None:
        self._number = number
        self._swept_at = now
        self.last_used: dict[Series, float] = {}

    def take(self, series: Series, now: float) -> bool:
        """Whether this series has a place or one is free; it is then used now."""
        if series not in self.last_used and not self._is_one_free(now):
            return False
        self.last_used[series] = now
        return True

    def _is_one_free(self, now: float) -> bool:
        if len(self.last_used) >= self._number and now - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = now
            self.last_used = {series: used for series, used in self.last_used.items() if now - used < IDLE_SECONDS}
        return len(self.last_used) < self._number


class CardinalityGuard:
    """Let at most ``max_metrics`` distinct series through; further ones become their metric's overflow series.

    Overflow series have places of their own, :data:`MAX_OVERFLOW_SERIES`. Those of further metrics become one metric,
    :data:`OVERFLOW_NAME`, with each unit that they have.
    """

    def __init__(self, max_metrics: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._places = _Places(max_metrics, clock())
        self._overflow_places = _Places(MAX_OVERFLOW_SERIES, clock())
        self.overflowed = 0

    def admit(self, series: Series) -> Series:
        """This series if it has a place or one is free, else the overflow series of its metric, or of all."""
        now = self._clock()
        if series.dimensions != OVERFLOW_DIMENSIONS:
            if self._places.take(series, now):
                return series
            self.overflowed += 1
            series = series._replace(dimensions=OVERFLOW_DIMENSIONS)
        return series if self._overflow_places.take(series, now) else series._replace(name=OVERFLOW_NAME)

    def renew(self, series: Series) -> bool:
        """Whether this series has a place; it is then used now."""
        if series not in self._places.last_used:
            return False
        self._places.last_used[series] = self._clock()
        return True

    def epoch(self) -> int:
        """A number that changes every minute: places have to be renewed that often, and no oftener."""
        return int(self._clock() // _EPOCH_SECONDS)

    def active(self) -> int:
        """The number of series published within the last hour, those that overflowed not counted."""
        oldest = self._clock() - IDLE_SECONDS
        return sum(last_used > oldest for last_used in tuple(self._places.last_used.values()))
