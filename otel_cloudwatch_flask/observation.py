"""A record of what was published, in bounded memory, for those who want to look at it while the program runs.

Batches are noted as they are, and read when somebody asks or two hundred datums have come together. That takes about
six microseconds a datum, and one more for each further value in it.
"""

import json
import math
import operator
import secrets
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from otel_cloudwatch_flask.process_lifecycle import call_after_fork
from otel_cloudwatch_flask.value_counts import ExactSum, ValueCounts, percentiles
from otel_cloudwatch_flask.wire import TIMESTAMP_MEMBER, Batch, Envelope

PERCENTS: Final = (50, 90, 99)

_MAX_UNREAD_DATUMS: Final = 200
_LEAST_VALUES: Final = 50
_MOST_VALUES: Final = 2000
"""How many different values one series may have, depending on how many series there are."""
_LAST_DATUMS: Final = 3
"""How many datums of a series are kept as they were sent."""
_SUMMARY_FLUSHES: Final = 30
_ACTIVE_SECONDS: Final = 3600
"""A metric is billed by the hour in which it had data."""
SLICE_SECONDS: Final = 10
"""How long a :class:`Slice` is."""
_SLICES: Final = 360
"""An hour of :class:`Slice`."""


class Flush(NamedTuple):
    """What one datum said of its series, at its own time in Unix seconds.

    The percentiles are ``None`` for statistic sets, of which CloudWatch has none.
    """

    time: int
    sum: float
    samples: float
    minimum: float
    maximum: float
    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(slots=True)
class Slice:
    """What was accepted in ten seconds; ``series`` is how many there had been by then, ``time`` when it began."""

    time: float
    requests: int = 0
    datums: int = 0
    bytes: int = 0
    series: int = 0


_FLUSH: Final = struct.Struct("=q8d")
"""A sequence number and a flush, which takes a third of the memory that the tuple does."""


def _packed(sequence: int, flush: Flush) -> bytes:
    if flush[-1] is None:
        flush = flush._replace(p50=math.nan, p90=math.nan, p99=math.nan)
    return _FLUSH.pack(sequence, *flush)


def _unpacked(flush: bytes) -> Flush:
    _, moment, total, samples, minimum, maximum, *percents = _FLUSH.unpack(flush)
    p50, p90, p99 = (None if math.isnan(number) else number for number in percents)
    return Flush(int(moment), total, samples, minimum, maximum, p50, p90, p99)


def _sequence_of(flush: bytes) -> int:
    return int.from_bytes(flush[:8], sys.byteorder)


class _Samples(NamedTuple):
    """What a datum says, and its values with their counts, which a statistic set with different samples has not."""

    flush: Flush
    values: list[float] | None
    counts: list[float]


class _ObservedSeries:
    """Everything that is kept of one series."""

    def __init__(self, number: int, namespace: str, head: Mapping[str, Any], bounds: "Bounds") -> None:
        self.number = number
        self.changed = self.last_time = 0
        self.identity = {
            "id": number,
            "namespace": namespace,
            "metric_name": head["MetricName"],
            "dimensions": {each["Name"]: each["Value"] for each in head.get("Dimensions", ())},
            "unit": head.get("Unit", "None"),
            "storage_resolution": head.get("StorageResolution", 60),
        }
        self._flushes: deque[bytes] = deque(maxlen=bounds.max_flushes)
        self.last_datums: deque[str] = deque(maxlen=_LAST_DATUMS)
        self._values: ValueCounts | None = ValueCounts(_MOST_VALUES)
        self._sum = ExactSum()
        self._samples = 0.0
        self._minimum = self._maximum = 0.0
        self._figures: dict[str, Any] | None = None

    def add(self, text: str, samples: _Samples, *, sequence: int, max_values: int) -> None:
        flush, values, counts = samples
        if not self._samples or flush.minimum < self._minimum:
            self._minimum = flush.minimum
        if not self._samples or flush.maximum > self._maximum:
            self._maximum = flush.maximum
        self._samples += flush.samples
        self._sum.add(flush.sum)
        if values is None:
            self._values = None
        elif self._values is not None:
            self._values.max_values = max_values
            self._values.add(values, counts)
        self._flushes.append(_packed(sequence, flush))
        self.last_datums.append(text)
        self.last_time = flush.time
        self.changed = sequence
        self._figures = None

    def figures(self) -> dict[str, Any]:
        """What CloudWatch's statistics over all datums would be."""
        if self._figures is None:
            self._figures = {
                "sum": float(self._sum),
                "samples": self._samples,
                "minimum": self._minimum,
                "maximum": self._maximum,
                **self._percentiles(),
            }
        return self._figures

    def _percentiles(self) -> dict[str, float | None]:
        names = [f"p{percent}" for percent in PERCENTS]
        if self._values is None:
            return {**dict.fromkeys(names), "percentile_error": None}
        # A class's middle may lie beyond what was measured.
        found = [min(max(each, self._minimum), self._maximum) for each in self._values.percentiles(PERCENTS)]
        return {**dict(zip(names, found, strict=True)), "percentile_error": self._values.error}

    def document(self) -> dict[str, Any]:
        flushes = [_unpacked(flush)._asdict() for flush in self._flushes]
        return {**self.identity, **self.figures(), "flushes": flushes}

    def summary(self, *, since: int) -> dict[str, Any]:
        latest = [flush for flush in list(self._flushes)[-_SUMMARY_FLUSHES:] if _sequence_of(flush) > since]
        return {**self.identity, **self.figures(), "flushes": [_unpacked(flush)[:3] for flush in latest]}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept: series, flushes of each, and different values of all together."""

    max_series: int
    max_flushes: int
    max_values: int


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
        self._bounds = Bounds(max_series, max_flushes, max_values)
        self._clock = clock
        self._begin()
        call_after_fork(self._begin)

    def _begin(self) -> None:
        """Begin with nothing: what was there, and whoever held the lock, is the parent's."""
        self._lock = threading.Lock()
        self._instance = secrets.token_hex(6)
        self._started = self._clock()
        self._unread: list[tuple[float, Batch]] = []
        self._unread_datums = 0
        self._sequence = 0
        self._series: dict[tuple[str, str], _ObservedSeries] = {}
        self._series_seen = self._forgotten = 0
        self._requests = self._datums = self._bytes = 0
        self._slices: deque[Slice] = deque(maxlen=_SLICES)
        self._envelope: tuple[Envelope, str] | None = None

    def observe(self, batch: Batch) -> None:
        """Note a batch that was accepted."""
        with self._lock:
            self._unread.append((self._clock(), batch))
            self._unread_datums += len(batch.datums)
            if self._unread_datums >= _MAX_UNREAD_DATUMS:
                self._read()

    def document(self) -> dict[str, Any]:
        """Everything, as JSON has it; each series with its ``flushes``, oldest first, and its ``last_datum``."""
        with self._lock:
            self._read()
            series = [{**each.document(), "last_datum": json.loads(each.last_datums[-1])} for each in self._in_order()]
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
            self._read()
            since = _whole_number(known.get(self._instance, 0))
            series = [each.summary(since=since) for each in self._in_order() if each.changed > since]
            return {**self._totals(), "since": since, "series": series}

    def series(self, number: int) -> dict[str, Any]:
        """One series, by its ``id``, with its ``last_datums`` as they were sent, the newest last.

        Raises ``LookupError`` if there is none, or none any more.
        """
        with self._lock:
            self._read()
            found = next((each for each in self._series.values() if each.number == number), None)
            if found is None:
                raise LookupError(f"There is no series {number}.")
            return {
                **found.document(),
                "instance": self._instance,
                "last_datums": [json.loads(each) for each in found.last_datums],
            }

    def _in_order(self) -> list[_ObservedSeries]:
        return sorted(self._series.values(), key=lambda each: each.number)

    def _totals(self) -> dict[str, Any]:
        now = self._clock()
        namespaces = {namespace: None for namespace, _ in self._series}
        return {
            "instance": self._instance,
            "sequence": self._sequence,
            "namespace": next(iter(namespaces), None),
            "namespaces": list(namespaces),
            "started": self._started,
            "seconds": max(now - self._started, 0.0),
            "requests": self._requests,
            "datums": self._datums,
            "bytes": self._bytes,
            "series_active": sum(each.last_time > now - _ACTIVE_SECONDS for each in self._series.values()),
            "series_seen": self._series_seen,
            "series_forgotten": self._forgotten,
            "slices": [{name: getattr(each, name) for name in Slice.__slots__} for each in self._slices],
        }

    def _read(self) -> None:
        """Read what was noted."""
        unread, self._unread, self._unread_datums = self._unread, [], 0
        for arrived, batch in unread:
            self._sequence += 1
            namespace = self._namespace(batch.envelope)
            most_values = self._values_per_series()
            for datum, numbers in zip(batch.datums, _all_numbers(batch), strict=True):
                series = self._series_of(namespace, datum)
                series.add(datum, _samples(numbers), sequence=self._sequence, max_values=most_values)
            self._count(arrived, batch)

    def _count(self, arrived: float, batch: Batch) -> None:
        begun = arrived - arrived % SLICE_SECONDS
        if not self._slices or self._slices[-1].time != begun:
            self._slices.append(Slice(begun))
        size_bytes = batch.size_bytes
        current = self._slices[-1]
        current.requests += 1
        current.datums += len(batch.datums)
        current.bytes += size_bytes
        current.series = len(self._series)
        self._requests += 1
        self._datums += len(batch.datums)
        self._bytes += size_bytes

    def _series_of(self, namespace: str, text: str) -> _ObservedSeries:
        key = namespace, text[: text.index(TIMESTAMP_MEMBER)]
        known = self._series.pop(key, None)
        series = self._new_series(namespace, text) if known is None else known
        self._series[key] = series  # behind the others: the first is always the one that was not used for longest
        return series

    def _values_per_series(self) -> int:
        share = self._bounds.max_values // max(len(self._series), 1)
        return min(max(share, _LEAST_VALUES), _MOST_VALUES)

    def _new_series(self, namespace: str, text: str) -> _ObservedSeries:
        while len(self._series) >= self._bounds.max_series:
            del self._series[next(iter(self._series))]
            self._forgotten += 1
        self._series_seen += 1
        return _ObservedSeries(self._series_seen, namespace, json.loads(text), self._bounds)

    def _namespace(self, envelope: Envelope) -> str:
        if self._envelope is None or self._envelope[0] != envelope:
            self._envelope = envelope, str(json.loads(envelope.head + envelope.tail)["Namespace"])
        return self._envelope[1]


def _all_numbers(batch: Batch) -> list[dict[str, Any]]:
    """What the datums say beside what their series are, read at once, which is quicker than one after the other."""
    texts = ("{" + text[text.index(TIMESTAMP_MEMBER) :] for text in batch.datums)
    numbers: list[dict[str, Any]] = json.loads(f"[{','.join(texts)}]")
    return numbers


def _samples(datum: Mapping[str, Any]) -> _Samples:
    """The samples of a datum in any of its three forms."""
    moment = datum["Timestamp"]
    if (statistics := datum.get("StatisticValues")) is not None:
        return _samples_of_statistics(moment, statistics)
    values = datum.get("Values") or [datum["Value"]]
    counts = datum.get("Counts") or [1] * len(values)
    if len(values) == 1:
        value, count = values[0], counts[0]
        return _Samples(Flush(moment, value * count, count, value, value, value, value, value), values, counts)
    total = math.fsum(map(operator.mul, values, counts))
    found = percentiles(values, counts, PERCENTS)
    return _Samples(Flush(moment, total, sum(counts), values[0], values[-1], *found), values, counts)


def _samples_of_statistics(moment: int, statistics: Mapping[str, float]) -> _Samples:
    smallest, largest, count = statistics["Minimum"], statistics["Maximum"], statistics["SampleCount"]
    # If all samples are the same, their values are known.
    values, known = ([smallest], smallest) if smallest == largest else (None, None)
    return _Samples(Flush(moment, statistics["Sum"], count, smallest, largest, known, known, known), values, [count])


def _whole_number(text: str | int) -> int:
    try:
        return int(text)
    except ValueError:
        return 0
