"""The accounts: what was sent, what was lost and why, and the figures made of them."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Final


class LossReason(str, Enum):
    """Why a datum will never be in CloudWatch."""

    INVALID = "invalid"
    """Its number is none that CloudWatch takes, or its data point contradicts itself."""
    REFUSED = "refused"
    """CloudWatch refused it, alone."""
    EXPIRED = "expired"
    """It grew older than CloudWatch accepts before it could be sent."""
    BACKLOG_FULL = "backlog_full"
    """It was the oldest when the backlog had no room for a newer one."""
    UNREADABLE = "unreadable"
    """It was spooled, and its file was damaged or taken away."""
    SHUTDOWN = "shutdown"
    """The process ended, or the exporter was shut down, before it could be sent."""


@dataclass(frozen=True, slots=True)
class DeliveryStats:
    """What became of the datums of one exporter in this process, since it started.

    ``datums_sent``, ``datums_pending`` and the sum of ``datums_lost`` (by :class:`LossReason` value) are all the datums
    there ever were; one that was put together with others of its series for want of room counts with them as one.
    ``requests_sent`` were answered with success, ``requests_failed`` were not, and ``requests_seconds`` is how long
    all of them took; ``bytes_sent`` are those of the accepted bodies, uncompressed. ``metrics_active`` is the number of
    distinct CloudWatch metrics published within the last hour, ``metrics_overflowed`` how often a new one found no
    place among ``max_metrics``. ``last_success`` is a Unix time in seconds.
    """

    datums_sent: int = 0
    datums_pending: int = 0
    datums_lost: Mapping[str, int] = field(default_factory=dict)
    requests_sent: int = 0
    requests_failed: int = 0
    requests_seconds: float = 0.0
    bytes_sent: int = 0
    metrics_active: int = 0
    metrics_overflowed: int = 0
    last_error: str | None = None
    last_success: float | None = None

    @classmethod
    def total(cls, each_exporter: "Iterable[DeliveryStats]") -> "DeliveryStats":
        """The figures of several exporters as those of one."""
        every = list(each_exporter)
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


class Ledger:
    """Count what happens to datums; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: Counter[str] = Counter()
        self._datums_sent = 0
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

    def failed(self, error: str) -> None:
        """Count a request that was not accepted."""
        with self._lock:
            self._requests_failed += 1
            self._last_error = error

    def took(self, seconds: float) -> None:
        """Count the time of a request, whatever came of it."""
        with self._lock:
            self._requests_seconds += seconds

    def lost(self, reason: LossReason, datums: int = 1) -> None:
        """Count datums that will never be in CloudWatch."""
        if datums:
            with self._lock:
                self._lost[reason.value] += datums

    def lost_in_delivery(self) -> int:
        """How many datums were lost although their numbers were such as can be sent."""
        # No lock: flush() asks for it, and a signal handler that interrupts flush() may wait for the delivering thread.
        lost = dict(self._lost)
        return sum(lost.values()) - lost.get(LossReason.INVALID.value, 0)

    def stats(self, *, datums_pending: int, metrics_active: int, metrics_overflowed: int) -> DeliveryStats:
        """The figures now, completed by those that others keep."""
        with self._lock:
            return DeliveryStats(
                datums_sent=self._datums_sent,
                datums_pending=datums_pending,
                datums_lost=dict(self._lost),
                requests_sent=self._requests_sent,
                requests_failed=self._requests_failed,
                requests_seconds=self._requests_seconds,
                bytes_sent=self._bytes_sent,
                metrics_active=metrics_active,
                metrics_overflowed=metrics_overflowed,
                last_error=self._last_error,
                last_success=self._last_success,
            )
