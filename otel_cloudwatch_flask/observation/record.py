"""A record of what was published, in bounded memory, for those who want to look at it while the program runs.

To read a datum takes about six microseconds, and one more for each further value in it.
"""

import math
import secrets
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from otel_cloudwatch_flask.delivery.batch import Batch, members_of
from otel_cloudwatch_flask.model.datum import Datum, Series
from otel_cloudwatch_flask.observation.tally import Tally, content_of, percentiles
from otel_cloudwatch_flask.runtime.process import call_after_fork

PERCENTS: Final = (50, 90, 99)

_LEAST_VALUES: Final = 50
_MOST_VALUES: Final = 2000
"""How many different values one series may have, depending on how many series there are."""
_LAST_DATUMS: Final = 3
"""How many datums of a series are kept as they were sent."""
_SUMMARY_FLUSHES: Final = 30
_ACTIVE_SECONDS: Final = 3600
"""A metric is billed by the hour in which it had data."""
SLICE_SECONDS: Final = 10
"""What was accepted is counted by slices of that length."""
_SLICES: Final = 360
"""An hour of slices."""

_FLUSH_MEMBERS: Final = ("sequence", "time", "sum", "samples", "minimum", "maximum", *(f"p{each}" for each in PERCENTS))
_FLUSH: Final = struct.Struct(f"{len(_FLUSH_MEMBERS)}d")
"""What is kept of one datum, in a third of the memory that a tuple takes."""
_NO_PERCENTILES: Final = [math.nan] * len(PERCENTS)


class _ObservedSeries:
    """Everything that is kept of one series."""

    def __init__(self, number: int, namespace: str, series: Series, max_flushes: int) -> None:
        self.number = number
        self.changed = self.last_time = 0
        self.last_datums: deque[Datum] = deque(maxlen=_LAST_DATUMS)
        self._flushes: deque[bytes] = deque(maxlen=max_flushes)
        self._tally = Tally(_MOST_VALUES)
        self._identity = {
            "id": number,
            "namespace": namespace,
            "metric_name": series.name,
            "dimensions": dict(series.dimensions),
            "unit": series.unit,
            "storage_resolution": series.storage_resolution,
        }

    def add(self, datum: Datum, *, sequence: int, max_values: int) -> None:
        self._tally.values.max_values = max_values
        said = self._tally.add(datum.content)
        found = _NO_PERCENTILES if said.values is None else percentiles(said.values, said.counts, PERCENTS)
        statistics = (said.sum, said.samples, said.minimum, said.maximum)
        self._flushes.append(_FLUSH.pack(sequence, datum.unix_seconds, *statistics, *found))
        self.last_datums.append(datum)
        self.last_time = datum.unix_seconds
        self.changed = sequence

    def figures(self) -> dict[str, Any]:
        """Who it is, and what CloudWatch's statistics over all datums would be."""
        tally = self._tally
        found = tally.percentiles(PERCENTS)
        return {
            **self._identity,
            "sum": tally.sum,
            "samples": tally.count,
            "minimum": tally.minimum,
            "maximum": tally.maximum,
            **{f"p{percent}": found and found[place] for place, percent in enumerate(PERCENTS)},
            "percentile_error": None if found is None else tally.values.error,
        }

    def document(self) -> dict[str, Any]:
        return {**self.figures(), "flushes": list(map(_flush_document, self._flushes))}

    def summary(self, *, since: int) -> dict[str, Any]:
        flushes = map(_FLUSH.unpack, list(self._flushes)[-_SUMMARY_FLUSHES:])
        latest = [flush for flush in flushes if flush[0] > since]
        return {**self.figures(), "flushes": [(int(flush[1]), flush[2], flush[3]) for flush in latest]}


class Observation:
    """What was published since it began, or since this process was forked; safe to use from several threads.

    Give :meth:`observe` to :meth:`CloudWatchMetricExporter.watch`. ``max_series`` are remembered, those used last, and
    of each the last ``max_flushes`` datums. Sum, samples, minimum and maximum are exact for as long as a series is
    remembered. So are percentiles, until a series has 2,000 different values, or more than its share of ``max_values``,
    and 50; after that they are within ``percentile_error`` of it, a fraction: 0.2 % at first.

    A thousand series take 20 MB, or 40 if all are histograms of many values. ``clock`` gives Unix seconds.
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
        """Begin with nothing: what was there, and whoever held the lock, is the parent's."""
        self._lock = threading.Lock()
        self._instance = secrets.token_hex(6)
        self._started = self._clock()
        self._series: dict[tuple[str, Series], _ObservedSeries] = {}
        self._series_seen = self._forgotten = 0
        self._requests = self._datums = self._bytes = 0
        self._slices: deque[dict[str, float]] = deque(maxlen=_SLICES)

    def observe(self, batch: Batch) -> None:
        """Note a batch that was accepted."""
        self.note(batch.envelope.namespace, batch.datums, size_bytes=batch.size_bytes)

    def note(self, namespace: str, datums: Sequence[Datum], *, size_bytes: int) -> None:
        """Note a request that was accepted."""
        with self._lock:
            self._requests += 1
            most_values = self._values_per_series()
            for datum in datums:
                self._series_of(namespace, datum.series).add(datum, sequence=self._requests, max_values=most_values)
            self._count(datums=len(datums), size_bytes=size_bytes)

    def document(self) -> dict[str, Any]:
        """Everything, as JSON has it; each series with its ``flushes``, oldest first, and its ``last_datum``."""
        with self._lock:
            series = [{**each.document(), "last_datum": members_of(each.last_datums[-1])} for each in self._in_order()]
            return {**self._totals(), "series": series}

    @property
    def instance(self) -> str:
        """What tells this record from those of other processes, and from what it was before a fork."""
        return self._instance

    def changes(self, known: Mapping[str, str | int] = MappingProxyType({})) -> dict[str, Any]:
        """The same in short, and only the series that went on since an earlier answer.

        ``known`` are the instances that have answered before, each with the ``sequence`` of its last answer. Of a
        series' flushes since then, the last 30 at most, each is a list of its time, sum and samples.
        """
        with self._lock:
            since = _whole_number(known.get(self._instance, 0))
            series = [each.summary(since=since) for each in self._in_order() if each.changed > since]
            return {**self._totals(), "since": since, "series": series}

    def series(self, number: int) -> dict[str, Any]:
        """One series, by its ``id``, with its ``last_datums`` as they were sent, the newest last.

        Raises ``LookupError`` if there is none, or none any more.
        """
        with self._lock:
            found = next((each for each in self._series.values() if each.number == number), None)
            if found is None:
                raise LookupError(f"There is no series {number}.")
            last_datums = list(map(members_of, found.last_datums))
            return {**found.document(), "instance": self._instance, "last_datums": last_datums}

    def _in_order(self) -> list[_ObservedSeries]:
        return sorted(self._series.values(), key=lambda each: each.number)

    def _totals(self) -> dict[str, Any]:
        now = self._clock()
        namespaces = list(dict.fromkeys(namespace for namespace, _ in self._series))
        return {
            "instance": self._instance,
            "sequence": self._requests,
            "namespace": namespaces[0] if namespaces else None,
            "namespaces": namespaces,
            "started": self._started,
            "seconds": max(now - self._started, 0.0),
            "requests": self._requests,
            "datums": self._datums,
            "bytes": self._bytes,
            "series_active": sum(each.last_time > now - _ACTIVE_SECONDS for each in self._series.values()),
            "series_seen": self._series_seen,
            "series_forgotten": self._forgotten,
            "slices": list(map(dict, self._slices)),
        }

    def _count(self, *, datums: int, size_bytes: int) -> None:
        now = self._clock()
        begun = now - now % SLICE_SECONDS
        if not self._slices or self._slices[-1]["time"] != begun:
            self._slices.append({"time": begun, "requests": 0, "datums": 0, "bytes": 0})
        current = self._slices[-1]
        current["requests"] += 1
        current["datums"] += datums
        current["bytes"] += size_bytes
        current["series"] = len(self._series)
        self._datums += datums
        self._bytes += size_bytes

    def _series_of(self, namespace: str, series: Series) -> _ObservedSeries:
        key = namespace, series
        found = self._series.pop(key, None) or self._new_series(namespace, series)
        self._series[key] = found  # behind the others: the first is always the one that was not used for longest
        return found

    def _values_per_series(self) -> int:
        share = self._max_values // max(len(self._series), 1)
        return min(max(share, _LEAST_VALUES), _MOST_VALUES)

    def _new_series(self, namespace: str, series: Series) -> _ObservedSeries:
        while len(self._series) >= self._max_series:
            del self._series[next(iter(self._series))]
            self._forgotten += 1
        self._series_seen += 1
        return _ObservedSeries(self._series_seen, namespace, series, self._max_flushes)


def datum_of(members: Mapping[str, Any]) -> Datum:
    """A datum in boto3's shape, with Unix seconds for its time."""
    dimensions = tuple((each["Name"], each["Value"]) for each in members.get("Dimensions", ()))
    resolution = members.get("StorageResolution", 60)
    series = Series(members["MetricName"], dimensions, members.get("Unit", "None"), resolution)
    return Datum(series, members["Timestamp"], content_of(members))


def _flush_document(flush: bytes) -> dict[str, float | None]:
    """What one datum said; CloudWatch has no percentiles of statistic sets."""
    _, *named = zip(_FLUSH_MEMBERS, _FLUSH.unpack(flush), strict=True)
    return {name: None if math.isnan(figure) else figure for name, figure in named}


def _whole_number(text: str | int) -> int:
    try:
        return int(text)
    except ValueError:
        return 0
