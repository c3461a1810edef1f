"""Record the published and the pending metrics in bounded memory, so that they can be read while the program runs."""

import math
import secrets
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from otel_cloudwatch_flask.delivery.batch import Batch, members_of
from otel_cloudwatch_flask.model.datum import Datum, Series, statistics_of
from otel_cloudwatch_flask.observation.tally import Tally, percentiles
from otel_cloudwatch_flask.pricing import IDLE_SECONDS
from otel_cloudwatch_flask.runtime.process import call_after_fork

PERCENTS: Final = (50, 90, 99)

_LEAST_VALUES: Final = 50
_MOST_VALUES: Final = 2000
"""The bounds of the limit on distinct values per series. The more series there are, the lower the limit."""
_LAST_DATUMS: Final = 3
"""The number of datums that are kept in full for each series."""
_SUMMARY_FLUSHES: Final = 30
SLICE_SECONDS: Final = 10
"""The length of the time slices by which accepted requests are counted."""
_SLICES: Final = 360
"""The number of slices kept, which cover an hour."""

_FLUSH_MEMBERS: Final = ("sequence", "time", "sum", "samples", "minimum", "maximum", *(f"p{each}" for each in PERCENTS))
_FLUSH: Final = struct.Struct(f"{len(_FLUSH_MEMBERS)}d")
"""The format of the figures kept for each datum. Packed, they take a third of the memory that a tuple would."""
_NO_PERCENTILES: Final = [math.nan] * len(PERCENTS)


class _ObservedSeries:
    """The identity, statistics and recent datums of one series."""

    def __init__(self, number: int, namespace: str, series: Series, max_flushes: int) -> None:
        self.number = number
        self.changed = self.last_time = 0
        """The sequence number of the latest change, and the time of the latest datum."""
        self.undelivered = 0.0
        """The number of samples that are pending or were lost."""
        self.last_datums: deque[Datum] = deque(maxlen=_LAST_DATUMS)
        self._flushes: deque[bytes] = deque(maxlen=max_flushes)
        self.tally = Tally(_MOST_VALUES)
        self._identity = {
            "id": number,
            "namespace": namespace,
            "metric_name": series.name,
            "dimensions": dict(series.dimensions),
            "unit": series.unit,
            "storage_resolution": series.storage_resolution,
        }

    def add(self, datum: Datum) -> None:
        whole, known = self.tally.add(datum.content)
        # CloudWatch does not compute percentiles of negative values.
        found = _NO_PERCENTILES if known is None or whole.minimum < 0 else percentiles(*known, PERCENTS)
        statistics = (whole.sum, whole.count, whole.minimum, whole.maximum)
        self._flushes.append(_FLUSH.pack(self.changed, datum.unix_seconds, *statistics, *found))
        self.last_datums.append(datum)
        self.last_time = datum.unix_seconds

    def deliver(self, datum: Datum) -> None:
        """Record the delivery of a datum, and add the datum unless it was already added when it became pending."""
        samples = statistics_of(datum.content).count
        if samples > self.undelivered:
            self.add(datum)
        else:
            self.undelivered -= samples

    def figures(self) -> dict[str, Any]:
        """Return the identity and the statistics of the series, and the number of its undelivered samples."""
        tally = self.tally
        found = tally.percentiles(PERCENTS) if tally.minimum >= 0 else None
        return {
            **self._identity,
            "sum": tally.sum,
            "samples": tally.count,
            "minimum": tally.minimum,
            "maximum": tally.maximum,
            "undelivered": self.undelivered,
            **{f"p{percent}": found and found[index] for index, percent in enumerate(PERCENTS)},
            "percentile_error": None if found is None else tally.values.error,
        }

    def document(self) -> dict[str, Any]:
        return {**self.figures(), "flushes": list(map(_flush_document, self._flushes))}

    def summary(self, *, since: int) -> dict[str, Any]:
        flushes = map(_FLUSH.unpack, list(self._flushes)[-_SUMMARY_FLUSHES:])
        latest = [flush for flush in flushes if flush[0] > since]
        shown = [(int(flush[1]), flush[2], flush[3]) for flush in latest]
        return {**self.figures(), "changed": self.changed, "flushes": shown}


class Observation:
    """The metrics observed since this object was created or the process was forked. Thread-safe.

    Pass :meth:`observe` to :meth:`CloudWatchMetricExporter.watch`. To include datums as soon as they are pending, also
    pass :meth:`observe_pending` to :meth:`CloudWatchMetricExporter.watch_pending`. The sum, sample count, minimum and
    maximum of a series are exact. Each series may keep an equal share of ``max_values``, but at least 50 and at most
    2,000 distinct values. Its percentiles are exact until it exceeds that number. From then on, their relative error
    is at most the ``percentile_error`` of the series: 0.2% at first, and doubled each time values must be merged
    further. A thousand series need up to 20 MB of memory, or up to 40 MB if all are histograms with many values.

    :param max_series: number of series to keep. Any further series replaces the least recently published one.
    :param max_flushes: number of recent datums whose figures are kept for each series.
    :param max_values: number of distinct values to keep for all series together. More are kept if there are so many
        series that each would have fewer than 50.
    :param clock: function that returns the current time in Unix seconds.
    """

    def __init__(
        self,
        *,
        max_series: int = 2000,
        max_flushes: int = 60,
        max_values: int = 100_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_series, self._max_flushes, self._max_values = max_series, max_flushes, max_values
        self._clock = clock
        self._begin()
        call_after_fork(self._begin)

    def _begin(self) -> None:
        """Initialize an empty observation with a new lock.

        Also called after a fork, because the child inherits the parent's data and possibly a held lock.
        """
        self._lock = threading.Lock()
        self.instance = secrets.token_hex(6)
        """A random ID that identifies this observation and process, and changes after a fork."""
        self._started = self._clock()
        self._series: dict[tuple[str, Series], _ObservedSeries] = {}
        self._series_seen = self._forgotten = 0
        self._sequence = 0
        self._accepted = {"requests": 0, "datums": 0, "bytes": 0}
        self._slices: deque[dict[str, float]] = deque(maxlen=_SLICES)

    def observe(self, batch: Batch) -> None:
        """Record a batch that CloudWatch has accepted."""
        with self._lock:
            for series, datum in self._changed_series(batch):
                series.deliver(datum)
            self._count({"requests": 1, "datums": len(batch.datums), "bytes": batch.size_bytes})

    def observe_pending(self, batch: Batch) -> None:
        """Record a batch that has become pending."""
        with self._lock:
            for series, datum in self._changed_series(batch):
                series.add(datum)
                series.undelivered += statistics_of(datum.content).count

    def document(self) -> dict[str, Any]:
        """Return the totals and all series as a JSON document.

        Each series has ``flushes`` (the figures of its recent datums, oldest first) and ``last_datum``.
        """
        with self._lock:
            series = [{**each.document(), "last_datum": members_of(each.last_datums[-1])} for each in self._in_order()]
            return {**self._totals(), "series": series}

    def changes(self, since: int = 0) -> dict[str, Any]:
        """Return the totals, and a summary of each series that has changed since an earlier call.

        The ``flushes`` of a summary hold the time, sum and sample count of the latest datums since that call, at most
        30. The series with the lowest ``changed`` is the least recently published one.

        :param since: the ``sequence`` that the earlier call returned. Default: all series are returned.
        """
        with self._lock:
            series = [each.summary(since=since) for each in self._in_order() if each.changed > since]
            return {**self._totals(), "since": since, "series": series}

    def series(self, number: int) -> dict[str, Any]:
        """Return the series whose ``id`` is ``number``, with its ``last_datums`` as they were sent, newest last.

        Raises ``LookupError`` if there is no such series, or if a newer series has replaced it.
        """
        with self._lock:
            found = next((each for each in self._series.values() if each.number == number), None)
            if found is None:
                raise LookupError(f"There is no series {number}.")
            last_datums = list(map(members_of, found.last_datums))
            return {**found.document(), "instance": self.instance, "last_datums": last_datums}

    def _in_order(self) -> list[_ObservedSeries]:
        return sorted(self._series.values(), key=lambda each: each.number)

    def _totals(self) -> dict[str, Any]:
        now = self._clock()
        return {
            "instance": self.instance,
            "sequence": self._sequence,
            "namespaces": list(dict.fromkeys(namespace for namespace, _ in self._series)),
            "started": self._started,
            "seconds": max(now - self._started, 0.0),
            **self._accepted,
            "series_active": sum(each.last_time > now - IDLE_SECONDS for each in self._series.values()),
            "series_seen": self._series_seen,
            "series_forgotten": self._forgotten,
            "slices": list(map(dict, self._slices)),
        }

    def _count(self, numbers: Mapping[str, int]) -> None:
        now = self._clock()
        begun = now - now % SLICE_SECONDS
        if not self._slices or self._slices[-1]["time"] != begun:
            self._slices.append({"time": begun, **dict.fromkeys(numbers, 0)})
        current = self._slices[-1]
        current["series"] = len(self._series)
        for name, number in numbers.items():
            current[name] += number
            self._accepted[name] += number

    def _changed_series(self, batch: Batch) -> Iterator[tuple[_ObservedSeries, Datum]]:
        """Yield each datum of a batch with its series, which is marked as changed."""
        # The limit decreases as more series appear.
        share = self._max_values // max(len(self._series), 1)
        for datum in batch.datums:
            self._sequence += 1
            series = self._series_of(batch.envelope.namespace, datum.series)
            series.changed = self._sequence
            series.tally.values.max_values = min(max(share, _LEAST_VALUES), _MOST_VALUES)
            yield series, datum

    def _series_of(self, namespace: str, series: Series) -> _ObservedSeries:
        key = namespace, series
        found = self._series.pop(key, None) or self._new_series(namespace, series)
        self._series[key] = found  # moved to the end, so that the least recently published series is first
        return found

    def _new_series(self, namespace: str, series: Series) -> _ObservedSeries:
        while len(self._series) >= self._max_series:
            del self._series[next(iter(self._series))]
            self._forgotten += 1
        self._series_seen += 1
        return _ObservedSeries(self._series_seen, namespace, series, self._max_flushes)


def _flush_document(flush: bytes) -> dict[str, float | None]:
    """Unpack the figures of one datum. Unknown percentiles are ``None``."""
    _, *named = zip(_FLUSH_MEMBERS, _FLUSH.unpack(flush), strict=True)
    return {name: None if math.isnan(figure) else figure for name, figure in named}
