"""The cost guard: how many CloudWatch metrics one process may create.

Each distinct metric costs $0.30 a month (the first 10,000), billed by the hour:
https://aws.amazon.com/cloudwatch/pricing/.
"""

from collections.abc import Callable
from typing import Final

from otel_cloudwatch_flask.datum import OVERFLOW_DIMENSIONS, Series

IDLE_SECONDS: Final = 3600.0
"""After so long without a datum a metric costs nothing more, and its place is free for another."""

_SWEEP_SECONDS: Final = 10.0
_EPOCH_SECONDS: Final = 60.0


class CardinalityGuard:
    """Let at most ``max_metrics`` distinct series through; further ones become their metric's overflow series."""

    def __init__(self, max_metrics: int, clock: Callable[[], float]) -> None:
        self._max_metrics = max_metrics
        self._clock = clock
        self._last_used: dict[Series, float] = {}
        self._swept_at = clock()
        self.overflowed = 0

    def admit(self, series: Series) -> Series:
        """This series if it has a place or one is free, else the overflow series of its metric."""
        if series.dimensions == OVERFLOW_DIMENSIONS:
            return series
        now = self._clock()
        if series not in self._last_used and not self._has_place(now):
            self.overflowed += 1
            return series._replace(dimensions=OVERFLOW_DIMENSIONS)
        self._last_used[series] = now
        return series

    def renew(self, series: Series) -> bool:
        """Whether this series has a place; it is then used now."""
        if series not in self._last_used:
            return False
        self._last_used[series] = self._clock()
        return True

    def epoch(self) -> int:
        """A number that changes every minute: places have to be renewed that often, and no oftener."""
        return int(self._clock() // _EPOCH_SECONDS)

    def active(self) -> int:
        """The number of series published within the last hour, those that overflowed not counted."""
        oldest = self._clock() - IDLE_SECONDS
        return sum(last_used > oldest for last_used in tuple(self._last_used.values()))

    def _has_place(self, now: float) -> bool:
        if len(self._last_used) >= self._max_metrics and now - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = now
            self._last_used = {series: used for series, used in self._last_used.items() if now - used < IDLE_SECONDS}
        return len(self._last_used) < self._max_metrics
