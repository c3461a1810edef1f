"""Count datums and requests by outcome, and losses by reason."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Final


class LossReason(str, Enum):
    """The reason that a datum or a measurement will never reach CloudWatch."""

    INVALID = "invalid"
    """CloudWatch cannot store the value, the data point is inconsistent, or add_metric or label got invalid
    arguments.
    """
    REFUSED = "refused"
    """CloudWatch refused the data point, or has recently refused one with the same name, unit and dimensions."""
    EXPIRED = "expired"
    """The data point is more than two weeks old, so CloudWatch does not accept it."""
    BACKLOG_FULL = "backlog_full"
    """The data point was among the oldest when the backlog was full."""
    UNREADABLE = "unreadable"
    """The spool file of the data point was damaged or removed."""
    SHUTDOWN = "shutdown"
    """The exporter was shut down, or the process ended, before the data point was sent."""
    NOT_SET_UP = "not_set_up"
    """The reporter had no app and could not be set up. Counted only in measurements_lost."""


@dataclass(frozen=True, slots=True)
class DeliveryStats:
    """Counters of one exporter in this process, or the totals of several exporters.

    Every datum of an exporter counts once: in ``datums_sent``, ``datums_pending``, ``datums_merged`` or
    ``datums_lost``. Datums that remain in the spool at shutdown are no longer counted. With ``output="emf"``, the
    stream takes the place of CloudWatch. In dry-run mode, all datums count as accepted.

    :param datums_sent: number of datums that CloudWatch accepted.
    :param datums_pending: number of datums that are still to be sent, in memory or in the spool.
    :param datums_merged: number of datums that became part of another datum, with all their samples, because the
        backlog was full.
    :param datums_lost: number of lost datums by :class:`LossReason` value. A data point that cannot become a datum
        counts as one, in ``datums_lost["invalid"]``.
    :param measurements_lost: number of ``add_metric`` and ``label`` calls that never contributed to a data point, by
        :class:`LossReason` value.
    :param datums_possibly_duplicated: number of datums that CloudWatch may store twice, because the response to their
        request was lost or incomplete. Includes datums in the spool whose response had not arrived at shutdown.
    :param requests_sent: number of requests that CloudWatch accepted.
    :param requests_failed: number of all other requests. A batch that a stream accepted only in part counts in
        ``requests_sent`` as well.
    :param requests_seconds: total duration of all requests.
    :param bytes_sent: total size of the accepted request bodies, before compression.
    :param metrics_active: number of distinct CloudWatch metrics published within the last hour.
    :param metrics_overflowed: number of times that a data point went to an overflow series because of ``max_metrics``.
    :param last_error: message of the last failed request.
    :param last_success: Unix time of the last accepted request, in seconds.
    """

    datums_sent: int = 0
    datums_pending: int = 0
    datums_lost: Mapping[str, int] = field(default_factory=dict)
    datums_merged: int = 0
    measurements_lost: Mapping[str, int] = field(default_factory=dict)
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
        """Add up the statistics of several exporters.

        ``last_success`` is the latest time among the exporters, and ``last_error`` is taken from the first exporter
        that has an error.
        """
        every = list(exporters)
        datums_lost, measurements_lost = Counter[str](), Counter[str]()
        for each in every:
            datums_lost.update(each.datums_lost)
            measurements_lost.update(each.measurements_lost)
        return cls(
            **{name: sum(getattr(each, name) for each in every) for name in _SUMMED},
            datums_lost=dict(datums_lost),
            measurements_lost=dict(measurements_lost),
            last_error=next((each.last_error for each in every if each.last_error), None),
            last_success=max((each.last_success for each in every if each.last_success), default=None),
        )


_SUMMED: Final = {each.name: each.default for each in fields(DeliveryStats) if each.default == 0}
"""The fields that are added up, with their initial values."""


class StatsRecorder:
    """Counts datums and requests by their outcome. Thread-safe."""

    def __init__(self) -> None:
        # Reentrant, because a signal handler or the garbage collector may run in a thread that holds the lock, and
        # count something itself.
        self._lock = threading.RLock()
        self._lost: Counter[str] = Counter()
        self._measurements_lost: Counter[str] = Counter()
        self._totals: dict[str, Any] = {**_SUMMED}
        self._last_error: str | None = None
        self._last_success: float | None = None

    def sent(self, *, datums: int, size_bytes: int, unix_time: float) -> None:
        """Count a request that CloudWatch accepted."""
        self.count(requests_sent=1, datums_sent=datums, bytes_sent=size_bytes)
        self._last_success = unix_time

    def failed(self, error: str, *, datums_possibly_stored: int = 0) -> None:
        """Count a failed request, and how many of its datums CloudWatch may have stored anyway."""
        self.count(requests_failed=1, datums_possibly_duplicated=datums_possibly_stored)
        self._last_error = error

    def count(self, **numbers: float) -> None:
        """Add ``numbers`` to the fields of :class:`DeliveryStats` with these names."""
        with self._lock:
            for name, number in numbers.items():
                self._totals[name] += number

    def lost(self, reason: LossReason, datums: int = 1) -> None:
        """Count datums as lost for ``reason``."""
        with self._lock:
            self._lost[reason.value] += datums

    def lost_measurements(self, reason: LossReason, number: int = 1) -> None:
        """Count measurements that never became part of a data point. A negative number undoes an earlier call."""
        with self._lock:
            self._measurements_lost[reason.value] += number

    @property
    def requests(self) -> int:
        """The number of requests so far, regardless of their outcome."""
        requests: int = self._totals["requests_sent"] + self._totals["requests_failed"]
        return requests

    def lost_in_delivery(self) -> int:
        """Return the number of lost datums and measurements, not counting those that were invalid."""
        # Without the lock: a signal handler that interrupts flush() here may wait for a thread that needs the lock.
        lost = [*dict(self._lost).items(), *dict(self._measurements_lost).items()]
        return sum(number for reason, number in lost if reason != LossReason.INVALID.value)

    def stats(self, **kept_elsewhere: int) -> DeliveryStats:
        """Return a snapshot of the counters. The arguments are the fields whose values other objects keep."""
        with self._lock:
            return DeliveryStats(
                **{**self._totals, **kept_elsewhere},
                # The plus drops zeros. It iterates over a copy, because a signal handler may add a reason meanwhile.
                datums_lost=dict(+self._lost.copy()),
                measurements_lost=dict(+self._measurements_lost.copy()),
                last_error=self._last_error,
                last_success=self._last_success,
            )
