"""OpenTelemetry's metrics as CloudWatch's datums, encoded: no clock, no network, no thread."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Final, NamedTuple

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.cardinality import MAX_OVERFLOW_SERIES, CardinalityGuard
from otel_cloudwatch_flask.datum import Series
from otel_cloudwatch_flask.fast_path import PointText, point_text, texts_of
from otel_cloudwatch_flask.merging import Place
from otel_cloudwatch_flask.points import Amount, InvalidPointError, PointReader, negated
from otel_cloudwatch_flask.pricing import metrics_dollars
from otel_cloudwatch_flask.quiet_log import QuietLog
from otel_cloudwatch_flask.slots import Run, Slot, Slots
from otel_cloudwatch_flask.sources import Source, Sources
from otel_cloudwatch_flask.wire import EncodedDatum, encoded

_logger = logging.getLogger(__name__)

_NANOS: Final = 1_000_000_000
_TIME: Final = attrgetter("time_unix_nano")
_MOST_SECONDS: Final = 253_402_300_799
_INVALID_LOG_SECONDS: Final = 60.0


class Datums(NamedTuple):
    """What a collection is published as; ``bounds`` are the oldest and the newest time of a point, if there is one."""

    texts: list[EncodedDatum]
    bounds: tuple[int, int] | None


class Mapper:
    """Turn what a collection brought into datums, remembering what the next collection needs.

    ``lost`` is told how many points have numbers that cannot be sent. ``is_fast`` is false where the plain path is to
    be compared with the fast one. Not safe to use from several threads at once.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        guard: CardinalityGuard,
        start_unix_nano: int,
        lost: Callable[[int], None],
        is_fast: bool,
    ) -> None:
        self._sources = sources
        self._guard = guard
        self._lost = lost
        self._is_fast = is_fast
        self._points = PointReader(start_unix_nano)
        self._slots = Slots(guard, sources.series)
        self._once = QuietLog(_logger)
        self._each_minute = QuietLog(_logger, interval_seconds=_INVALID_LOG_SECONDS)
        self._begin_collection()

    def datums(self, data: sdk.MetricsData) -> Datums:
        """The datums of one collection: one for each series, with all that was published of it."""
        self._begin_collection()
        # All before the first datum is made: a later metric may have points of a series, too.
        found = []
        for source in self._sources.of(data):
            points = [*source.data.data_points]
            found.append((source, points, self._slots.of(source, points)))
        for source, points, slots in found:
            self._read(source, points, slots)
        self._texts.extend(text for place in self._filled if (text := self._merged_datum(place)) is not None)
        return Datums(self._texts, (min(self._seconds), max(self._seconds)) if self._seconds else None)

    def _begin_collection(self) -> None:
        self._slots.begin_collection()
        self._texts: list[EncodedDatum] = []
        self._filled: dict[Place, None] = {}
        self._seconds: set[int] = set()

    def _read(self, source: Source, points: list[sdk.DataPointT], slots: Run) -> None:
        """Write the points that are the only ones of their series; bring others to where they meet."""
        text_of = point_text(source.data, source.unit.factor) if self._is_fast and not source.as_statistics else None
        if text_of is not None and self._are_written_alike(text_of, points, self._slots.heads(slots)):
            return
        texts, nanos, moment = self._texts, math.nan, ""  # unequal to any time
        for point, slot in zip(points, slots, strict=True):
            text = None
            try:
                if slot.heads and text_of is not None:
                    text = text_of(point)
                    if nanos != point.time_unix_nano:
                        nanos, moment = point.time_unix_nano, f"{self._noted_seconds(point)},"
            except Exception:  # noqa: BLE001 - the plain path finds out what is the matter with this point
                text = None
            if text is None:
                self._gather(source, point, self._admitted_places(source, slot))
                continue
            for head in slot.heads:
                texts.append(f"{head}{moment}{text}}}")
            if slot.shared:
                self._gather(source, point, slot.shared)

    def _are_written_alike(self, text_of: PointText, points: list[sdk.DataPointT], heads: list[str] | None) -> bool:
        """Write all points of a metric at once, if each has one datum for itself, and all are common, of one time."""
        if heads is None or not points:
            return False
        try:
            written = texts_of(text_of, points)
            if written is None or len({*map(_TIME, points)}) > 1:
                return False
            member, texts = written
            begin = f"{self._noted_seconds(points[0])},{member}"
        except Exception:  # noqa: BLE001 - one after the other they show which of them it is
            return False
        self._texts += [f"{head}{begin}{text}}}" for head, text in zip(heads, texts, strict=True)]
        return True

    def _gather(self, source: Source, point: sdk.DataPointT, places: Iterable[Place]) -> None:
        """Bring what a point says to places, where it may meet what others say."""
        with self._boundary(source):
            amount = self._amount(source, point)
            if amount is None:
                return
            seconds = self._noted_seconds(point)
            for place in places:
                self._filled[place] = None
                place.add(amount, seconds, as_statistics=source.as_statistics)

    def _noted_seconds(self, point: sdk.DataPointT) -> int:
        """The time, as one of the collection's; raises an ``Exception`` of some kind if it is none."""
        seconds = int(point.time_unix_nano // _NANOS)
        if abs(seconds) > _MOST_SECONDS:
            raise OverflowError("the time of a data point is beyond the year 9999")
        self._seconds.add(seconds)
        return seconds

    def _merged_datum(self, place: Place) -> EncodedDatum | None:
        datum = place.take_datum()
        if datum is None:
            self._lost(1)
            return None
        return encoded(datum, place.head)

    def _amount(self, source: Source, point: sdk.DataPointT) -> Amount | None:
        amount = self._points.amount(source.identity, source.data, point, source.unit.factor)
        return negated(amount) if amount is not None and source.negates(point.attributes or {}) else amount

    @contextlib.contextmanager
    def _boundary(self, source: Source) -> Iterator[None]:
        """Let a point that cannot be read cost nothing but itself, whatever a producer has put into it."""
        try:
            yield
        except InvalidPointError as error:
            self._lost(1)
            self._each_minute.warning(
                ("invalid", source.name),
                "A data point of %s has %s: CloudWatch takes no such number, so this point is lost; others are not. "
                "Do not record NaN, infinities, or magnitudes beyond 2^360.",
                source.name,
                error,
            )
        except Exception:  # noqa: BLE001 - a producer may do anything
            self._lost(1)
            self._each_minute.log(
                logging.ERROR,
                ("error", source.name),
                "A data point of %s could not be read, and is lost; others are not. What made it, or this package, has "
                "a fault: the traceback says where.",
                source.name,
                exc_info=True,
            )

    def _admitted_places(self, source: Source, slot: Slot) -> Iterator[Place]:
        """Those of the series that are let through. The overflow series takes the place of the finest."""
        *coarser, finest = slot.series or self._sources.series(source, slot.attributes or {})
        for each in coarser:
            if self._admit(each) is each:
                yield self._slots.place_of(each)
        yield self._slots.place_of(self._admit(finest))

    def _admit(self, series: Series) -> Series:
        admitted = self._guard.admit(series)
        if admitted.name != series.name:
            self._once.warning(
                "overflow",
                "More than %d metrics have combinations of dimensions that max_metrics leaves no room for: those of %s "
                "and of further metrics are published together, as the metric otel.metric.overflow. Put what clients "
                "send into dimensions and not into names, or raise max_metrics.",
                MAX_OVERFLOW_SERIES,
                series.name,
            )
        elif admitted is not series:
            self._once.warning(
                ("overflow", series.name),
                "%s has more combinations of dimensions than max_metrics leaves room for: further ones are published "
                "as its overflow series (otel.metric.overflow=true). Drop a dimension with a MetricRule, or raise "
                "max_metrics; each metric costs up to $%.2f a month.",
                series.name,
                metrics_dollars(1),
            )
        return admitted
