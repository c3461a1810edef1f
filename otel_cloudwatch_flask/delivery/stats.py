"""Delivery statistics: what was sent, and what was lost for which reason."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Final


class LossReason(str, Enum):
    """Why a datum will never reach CloudWatch."""

    INVALID = "invalid"
    """The value is outside CloudWatch's range, or the data point is inconsistent."""
    REFUSED = "refused"
    """CloudWatch rejected this datum."""
    EXPIRED = "expired"
    """It became older than CloudWatch accepts (two weeks) before it could be sent."""
    BACKLOG_FULL = "backlog_full"
    """It was the oldest datum when the backlog was full."""
    UNREADABLE = "unreadable"
    """It was in the spool, and its file was damaged or removed."""
    SHUTDOWN = "shutdown"
    """The process ended, or the exporter was shut down, before it was sent."""


@dataclass(frozen=True, slots=True)
class DeliveryStats:
    """Counters of one exporter since this process started.

    ``datums_sent``, ``datums_pending`` and the sum of ``datums_lost`` (by :class:`LossReason` value) are all datums the
    exporter produced; datums of one series that were merged because the backlog was full count as one.
    ``datums_possibly_duplicated`` counts the datums of requests whose response was lost, once for each such request: at
    most so many are in CloudWatch in addition to those that it has confirmed. ``requests_sent`` is the number of
    successful requests, ``requests_failed`` of all others, ``requests_seconds`` the total duration of both, and
    ``bytes_sent`` the size of the accepted bodies before compression. ``metrics_active`` is the number of distinct
    CloudWatch metrics published within the last hour, ``metrics_overflowed`` how often a new one exceeded
    ``max_metrics``. ``last_success`` is a Unix time in seconds.
    """

    datums_sent: int = 0
    datums_pending: int = 0
    datums_lost: Mapping[str, int] = field(default_factory=dict)
    datums_possibly_duplicated: int = 0
    requests_sent: int = 0
    requests_failed: int = 0
    requests_seconds: float = 0.0
    bytes_sent: int = 0
    metrics_active: int = 0
    metrics_overflowed: int = 0
    last_error: str | None = None
    last_success: float | None = None

    @classmethod
    def total(cls, exporters: "Iterable[DeliveryStats]") -> "DeliveryStats":
        """Return the sums over several exporters, with the latest ``last_success``."""
        every = list(exporters)
        lost: Counter[str] = Counter()
        for each in every:
            lost.update(each.datums_lost)
        return cls(
            **{name: sum(getattr(each, name) for each in every) for name in _SUMMED},
            datums_lost=dict(lost),
            last_error=next((each.last_error for each in every if each.last_error), None),
            last_success=max((each.last_success for each in every if each.last_success), default=None),
        )


_SUMMED: Final = tuple(each.name for each in fields(DeliveryStats) if each.default == 0)


class StatsRecorder:
    """Count what happens to datums and requests. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: Counter[str] = Counter()
        self._datums_sent = 0
        self._datums_possibly_duplicated = 0
        self._requests_sent = 0
        self._requests_failed = 0
        self._requests_seconds = 0.0
        self._bytes_sent = 0
        self._last_error: str | None = None
        self._last_success: float | None = None

    def sent(self, *, datums: int, size_bytes: int, unix_time: float) -> None:
        """Count a request that CloudWatch accepted."""
        with self._lock:
            self._requests_sent += 1
            self._datums_sent += datums
            self._bytes_sent += size_bytes
            self._last_success = unix_time

    def failed(self, error: str, *, datums_possibly_stored: int = 0) -> None:
        """Count a request that was not accepted, or whose response was lost after these datums may have been stored."""
        with self._lock:
            self._requests_failed += 1
            self._datums_possibly_duplicated += datums_possibly_stored
            self._last_error = error

    def took(self, seconds: float) -> None:
        """Add the duration of a request, whether it succeeded or not."""
        with self._lock:
            self._requests_seconds += seconds

    def lost(self, reason: LossReason, datums: int = 1) -> None:
        """Count datums that will never reach CloudWatch."""
        if datums:
            with self._lock:
                self._lost[reason.value] += datums

    def lost_in_delivery(self) -> int:
        """Return the number of lost datums that were valid."""
        # No lock: flush() asks for it, and a signal handler that interrupts flush() may wait for the delivering thread.
        lost = dict(self._lost)
        return sum(lost.values()) - lost.get(LossReason.INVALID.value, 0)

    def stats(self, *, datums_pending: int, metrics_active: int, metrics_overflowed: int) -> DeliveryStats:
        """Return a snapshot, completed by the given figures, which other objects count."""
        with self._lock:
            return DeliveryStats(
                datums_sent=self._datums_sent,
                datums_pending=datums_pending,
                datums_lost=dict(self._lost),
                datums_possibly_duplicated=self._datums_possibly_duplicated,
                requests_sent=self._requests_sent,
                requests_failed=self._requests_failed,
                requests_seconds=self._requests_seconds,
                bytes_sent=self._bytes_sent,
                metrics_active=metrics_active,
                metrics_overflowed=metrics_overflowed,
                last_error=self._last_error,
                last_success=self._last_success,
            )
