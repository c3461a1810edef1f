"""Limit the number of series that one exporter creates, and therefore their cost.

A series that CloudWatch no longer bills may be replaced by another.
"""

import math
from collections.abc import Callable
from typing import Final

from otel_cloudwatch_flask.model.datum import OVERFLOW_DIMENSIONS, OVERFLOW_KEY, Series
from otel_cloudwatch_flask.pricing import IDLE_SECONDS

OVERFLOW_NAME: Final = OVERFLOW_KEY
"""The metric whose overflow series replaces the overflow series of other metrics if there is no room for them."""

_SWEEP_SECONDS: Final = 10.0
_EPOCH_SECONDS: Final = 60.0


def overflow_capacity(max_metrics: int) -> int:
    """Return how many of the ``max_metrics`` series are reserved for overflow: a hundredth, but at least 2.

    These series are reserved in advance because CloudWatch bills for a metric as soon as it receives one datum, so
    replacing a published series with an overflow series would save nothing. If ``max_metrics`` is below 4, only the
    overflow series of :data:`OVERFLOW_NAME` is reserved.

    >>> overflow_capacity(1000), overflow_capacity(10), overflow_capacity(1)
    (10, 2, 1)
    """
    return 1 if max_metrics < 4 else max(2, max_metrics // 100)


class _SeriesPool:
    """A pool of up to ``capacity`` series. When it is full, idle series are removed to make room."""

    def __init__(self, capacity: int, now: float) -> None:
        self._capacity = capacity
        self._swept_at = now
        self.last_used: dict[Series, float] = {}

    def use(self, series: Series, now: float) -> bool:
        """Record that ``series`` is used and return ``True``, or return ``False`` if there is no room for it."""
        if series not in self.last_used and not self._has_room(now):
            return False
        self.last_used[series] = max(now, self.last_used.get(series, now))  # It may be renewed until a later time.
        return True

    def _has_room(self, now: float) -> bool:
        # A sweep visits the whole pool, so a full pool must not be swept for every new series.
        if len(self.last_used) >= self._capacity and now - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = now
            self.last_used = {series: used for series, used in self.last_used.items() if now - used < IDLE_SECONDS}
        return len(self.last_used) < self._capacity


class CardinalityGuard:
    """Admits at most ``max_metrics`` distinct series at a time, including overflow series.

    Each further series is replaced by the overflow series of its metric. If there is no room for that series either
    (see :func:`overflow_capacity`), it is replaced by the overflow series of :data:`OVERFLOW_NAME`, which counts as one
    metric even if its datums have different units.
    """

    def __init__(self, max_metrics: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        reserved = overflow_capacity(max_metrics)
        self._pool = _SeriesPool(max_metrics - reserved, clock())
        # The overflow series of OVERFLOW_NAME is one of the reserved series.
        self._overflow_pool = _SeriesPool(reserved - 1, clock())
        self._shared_overflow_used = -math.inf
        self.overflowed = 0

    def use(self, series: Series) -> bool:
        """Record a use of ``series`` and return ``True``, or return ``False`` if there is no room for it."""
        return self._pool.use(series, self._clock())

    def admit(self, series: Series) -> Series:
        """Return ``series`` if there is room for it, or else the overflow series that replaces it."""
        now = self._clock()
        if series.dimensions != OVERFLOW_DIMENSIONS:
            if self._pool.use(series, now):
                return series
            self.overflowed += 1
            series = series._replace(dimensions=OVERFLOW_DIMENSIONS)
        if series.name != OVERFLOW_NAME and self._overflow_pool.use(series, now):
            return series
        self._shared_overflow_used = now
        return series._replace(name=OVERFLOW_NAME)

    def renew(self, series: Series) -> bool:
        """Allow an admitted series for the rest of the epoch. Returns ``False`` if it must be admitted first."""
        if series not in self._pool.last_used:
            return False
        # The callers do not report further uses in this epoch, so the end of the epoch counts as the last use.
        self._pool.last_used[series] = (self.epoch() + 1) * _EPOCH_SECONDS
        return True

    def epoch(self) -> int:
        """Return a number that changes every minute. Callers renew the series they use once per epoch."""
        return int(self._clock() // _EPOCH_SECONDS)

    def active(self) -> int:
        """Return the number of series used within the last hour."""
        oldest = self._clock() - IDLE_SECONDS
        # Copied because other threads may call this while a collection adds series.
        times = [self._shared_overflow_used, *self._pool.last_used.values(), *self._overflow_pool.last_used.values()]
        return sum(last_used > oldest for last_used in times)
