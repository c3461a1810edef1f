"""The cost guard: how many CloudWatch metrics one process may create.

Each distinct metric costs $0.30 a month (the first 10,000), billed by the hour:
https://aws.amazon.com/cloudwatch/pricing/.
"""

from collections.abc import Callable
from typing import Final

from otel_cloudwatch_flask.model.datum import OVERFLOW_DIMENSIONS, OVERFLOW_KEY, Series

IDLE_SECONDS: Final = 3600.0
"""A metric without a datum for this long costs nothing, so another one may replace it."""

MAX_OVERFLOW_SERIES: Final = 1000
"""Number of metrics that get an overflow series of their own; a bound, because names may come from client input too."""

OVERFLOW_NAME: Final = OVERFLOW_KEY
"""Name of the metric that further overflow series are published as."""

_SWEEP_SECONDS: Final = 10.0
_EPOCH_SECONDS: Final = 60.0


class _ActiveSeries:
    """At most ``limit`` series; a series that is idle for an hour is removed when another one needs room."""

    def __init__(self, limit: int, now: float) -> None:
        self._limit = limit
        self._swept_at = now
        self.last_used: dict[Series, float] = {}

    def use(self, series: Series, now: float) -> bool:
        """Mark a series as used, adding it if there is room; return False if there is none."""
        if series not in self.last_used and not self._has_room(now):
            return False
        self.last_used[series] = now
        return True

    def _has_room(self, now: float) -> bool:
        # A sweep looks at every series, so it must not happen for each of many new ones.
        if len(self.last_used) >= self._limit and now - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = now
            self.last_used = {series: used for series, used in self.last_used.items() if now - used < IDLE_SECONDS}
        return len(self.last_used) < self._limit


class CardinalityGuard:
    """Admit at most ``max_metrics`` distinct series; replace further ones by their metric's overflow series.

    Overflow series have a limit of their own, :data:`MAX_OVERFLOW_SERIES`. Beyond it they are all published as the
    metric :data:`OVERFLOW_NAME`, one series for each unit.
    """

    def __init__(self, max_metrics: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._series = _ActiveSeries(max_metrics, clock())
        self._overflow_series = _ActiveSeries(MAX_OVERFLOW_SERIES, clock())
        self.overflowed = 0

    def admit(self, series: Series) -> Series:
        """Return the series if it is active or there is room, else its metric's overflow series or the common one."""
        now = self._clock()
        if series.dimensions != OVERFLOW_DIMENSIONS:
            if self._series.use(series, now):
                return series
            self.overflowed += 1
            series = series._replace(dimensions=OVERFLOW_DIMENSIONS)
        return series if self._overflow_series.use(series, now) else series._replace(name=OVERFLOW_NAME)

    def renew(self, series: Series) -> bool:
        """Mark a series as used if it is active; return whether it is."""
        if series not in self._series.last_used:
            return False
        self._series.last_used[series] = self._clock()
        return True

    def epoch(self) -> int:
        """Return a number that changes every minute: callers have to renew their series once in each epoch."""
        return int(self._clock() // _EPOCH_SECONDS)

    def active(self) -> int:
        """Return the number of series published within the last hour, without overflow series."""
        oldest = self._clock() - IDLE_SECONDS
        return sum(last_used > oldest for last_used in tuple(self._series.last_used.values()))
