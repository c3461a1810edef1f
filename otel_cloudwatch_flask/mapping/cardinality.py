"""The cost guard: bounds the CloudWatch metrics that one process creates.

Each distinct metric costs $0.30 a month (the first 10,000), billed by the hour:
https://aws.amazon.com/cloudwatch/pricing/.
"""

from collections.abc import Callable
from typing import Final

from otel_cloudwatch_flask.model.datum import OVERFLOW_DIMENSIONS, OVERFLOW_KEY, Series

IDLE_SECONDS: Final = 3600.0
"""A metric without a datum for this long costs nothing more, so that another may replace it."""

OVERFLOW_NAME: Final = OVERFLOW_KEY
"""The metric whose overflow series replaces the overflow series of all further metrics."""

_SWEEP_SECONDS: Final = 10.0
_EPOCH_SECONDS: Final = 60.0


def overflow_capacity(max_metrics: int) -> int:
    """Return how many of ``max_metrics`` are reserved for overflow series: a tenth, and from 10 metrics on at least 2.

    CloudWatch bills a metric from its first datum, so an overflow series cannot replace another metric later. Below 10
    there is room for that of one metric only: if a second metric overflows, there is one metric more.

    >>> overflow_capacity(1000), overflow_capacity(10), overflow_capacity(3)
    (100, 2, 1)
    """
    return max(max_metrics // 10, 2 if max_metrics >= 10 else 1)


class _SeriesPool:
    """Up to ``capacity`` series with the time of their last use; idle ones are removed when the pool is full."""

    def __init__(self, capacity: int, now: float) -> None:
        self._capacity = capacity
        self._swept_at = now
        self.last_used: dict[Series, float] = {}

    def use(self, series: Series, now: float) -> bool:
        """Update the last use of a series, adding it if there is room; return whether it is in the pool."""
        if series not in self.last_used and not self._has_room(now):
            return False
        self.last_used[series] = now
        return True

    def _has_room(self, now: float) -> bool:
        if len(self.last_used) >= self._capacity and now - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = now
            self.last_used = {series: used for series, used in self.last_used.items() if now - used < IDLE_SECONDS}
        return len(self.last_used) < self._capacity


class CardinalityGuard:
    """Admit at most ``max_metrics`` distinct series, overflow series included (10 or more, see above).

    Once the places for other series are used up, further series become the overflow series of their metric. Once those
    are used up (see :func:`overflow_capacity`), they become the overflow series of :data:`OVERFLOW_NAME`: one metric,
    although its datums may have different units.
    """

    def __init__(self, max_metrics: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        reserved = overflow_capacity(max_metrics)
        self._pool = _SeriesPool(max_metrics - reserved, clock())
        # One of those reserved is the overflow series of OVERFLOW_NAME.
        self._overflow_pool = _SeriesPool(max(1, reserved - 1), clock())
        self.overflowed = 0

    def admit(self, series: Series) -> Series:
        """Return the series if there is room for it, else the overflow series of its metric or of all metrics."""
        now = self._clock()
        if series.dimensions != OVERFLOW_DIMENSIONS:
            if self._pool.use(series, now):
                return series
            self.overflowed += 1
            series = series._replace(dimensions=OVERFLOW_DIMENSIONS)
        return series if self._overflow_pool.use(series, now) else series._replace(name=OVERFLOW_NAME)

    def renew(self, series: Series) -> bool:
        """Update the last use of an admitted series; return whether it is still admitted."""
        if series not in self._pool.last_used:
            return False
        self._pool.last_used[series] = self._clock()
        return True

    def epoch(self) -> int:
        """A number that changes every minute: how often admitted series have to be renewed."""
        return int(self._clock() // _EPOCH_SECONDS)

    def active(self) -> int:
        """The number of series published within the last hour, overflow series of single metrics included."""
        oldest = self._clock() - IDLE_SECONDS
        pools = self._pool, self._overflow_pool
        return sum(last_used > oldest for pool in pools for last_used in tuple(pool.last_used.values()))
