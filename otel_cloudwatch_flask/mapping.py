"""OpenTelemetry's metrics as CloudWatch's datums, encoded: no clock, no network, no thread."""

import contextlib
import logging
from collections.abc import Callable, Hashable, Iterator
from typing import Final

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.cardinality import MAX_OVERFLOW_SERIES, CardinalityGuard
from otel_cloudwatch_flask.datum import Series
from otel_cloudwatch_flask.fast_path import point_text
from otel_cloudwatch_flask.merging import Place
from otel_cloudwatch_flask.points import Amount, InvalidPointError, PointReader, negated
from otel_cloudwatch_flask.pricing import metrics_dollars
from otel_cloudwatch_flask.quiet_log import QuietLog
from otel_cloudwatch_flask.sources import Attributes, Source, Sources
from otel_cloudwatch_flask.wire import EncodedDatum, encoded, new_encoded_datum

_logger = logging.getLogger(__name__)

_NANOS: Final = 1_000_000_000
_INVALID_LOG_SECONDS: Final = 60.0
_MAX_CACHED_SERIES: Final = 20_000


class _Slot:
    """What becomes of the points that have one attributes object.

    The SDK hands over the same object for a series in every collection, so its identity finds the slot. That keeps the
    object, so that no other can take its place in memory.
    """

    __slots__ = ("attributes", "epoch", "places", "series")

    def __init__(self, attributes: Attributes | None, series: tuple[Series, ...]) -> None:
        self.attributes = attributes
        self.series = series
        """What such a point is published as."""
        self.places: tuple[Place, ...] = ()
        """Where it goes, if all of these have a place and its samples are published as they are."""
        self.epoch = -1
        """When that was found."""


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
        is_fast: bool = True,
    ) -> None:
        self._sources = sources
        self._guard = guard
        self._lost = lost
        self._is_fast = is_fast
        self._points = PointReader(start_unix_nano)
        self._slots: dict[Hashable, dict[int, _Slot]] = {}
        self._cached_slots = 0
        self._places: dict[Series, Place] = {}
        self._collection = 0
        self._once = QuietLog(_logger)
        self._each_minute = QuietLog(_logger, interval_seconds=_INVALID_LOG_SECONDS)

    def datums(self, data: sdk.MetricsData) -> list[EncodedDatum]:
        """The datums of one collection: one for each series, with all that was published of it."""
        self._collection += 1
        if len(self._places) > _MAX_CACHED_SERIES:
            self._places.clear()
            self._forget_slots()
        filled: list[Place] = []
        for source in self._sources.of(data):
            self._gather(filled, source)
        return [datum for place in filled if (datum := self._datum(place)) is not None]

    def _gather(self, filled: list[Place], source: Source) -> None:
        """Bring each point to the places of its series; those that were empty are ``filled`` then."""
        slots = self._slots.get(source.key) or self._slots.setdefault(source.key, {})
        collection, epoch = self._collection, self._guard.epoch()
        text_of = point_text(source.data, source.unit.factor) if self._is_fast and not source.as_statistics else None
        reading = (source, text_of)
        for point in source.data.data_points:
            attributes = point.attributes
            slot = slots.get(id(attributes))
            if slot is None or slot.attributes is not attributes:
                slot = slots[id(attributes)] = self._new_slot(source, attributes)
            if slot.epoch != epoch:
                self._renew(source, slot, epoch)
            if text_of is None or not slot.places:
                self._gather_amount(filled, source, slot, point)
                continue
            for place in slot.places:
                if place.collection == collection:
                    self._merge(place, source, point)
                else:
                    place.collection = collection
                    place.lone_point = (reading, point)
                    filled.append(place)

    def _gather_amount(self, filled: list[Place], source: Source, slot: _Slot, point: sdk.DataPointT) -> None:
        """Bring what a point says to each of its places, where it may meet what others say."""
        with self._boundary(source):
            amount = self._amount(source, point)
            if amount is None:
                return
            for series in self._admitted(slot.series or self._sources.series(source, slot.attributes or {})):
                place = self._place_for(series)
                if place.collection != self._collection:
                    place.collection = self._collection
                    filled.append(place)
                self._merge_lone_point(place)
                place.add(amount, point.time_unix_nano // _NANOS, as_statistics=source.as_statistics)

    def _merge(self, place: Place, source: Source, point: sdk.DataPointT) -> None:
        """Let what a point says meet what others have said."""
        self._merge_lone_point(place)
        with self._boundary(source):
            amount = self._amount(source, point)
            if amount is not None:
                place.add(amount, point.time_unix_nano // _NANOS, as_statistics=source.as_statistics)

    def _merge_lone_point(self, place: Place) -> None:
        if place.lone_point is not None:
            ((source, _), point), place.lone_point = place.lone_point, None
            self._merge(place, source, point)

    def _datum(self, place: Place) -> EncodedDatum | None:
        if place.lone_point is None:
            return self._merged_datum(place)
        (source, text_of), point = place.lone_point
        try:
            seconds, text = point.time_unix_nano // _NANOS, text_of(point)
        except Exception:  # noqa: BLE001 - the plain path finds out what is the matter with this point
            text = None
        if text is None:
            self._merge_lone_point(place)
            return self._merged_datum(place)
        place.lone_point = None
        return new_encoded_datum((f"{place.head}{seconds}, {text}}}", source.name, seconds))

    def _merged_datum(self, place: Place) -> EncodedDatum | None:
        if place.is_empty:
            return None
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

    def _admitted(self, series: tuple[Series, ...]) -> Iterator[Series]:
        """Those that have a place. Of a point that is to be published in full, the overflow series takes its place."""
        *coarser, finest = series
        for each in coarser:
            if self._admit(each) is each:
                yield each
        yield self._admit(finest)

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

    def _place_for(self, series: Series) -> Place:
        place = self._places.get(series)
        if place is None:
            place = self._places[series] = Place(series)
        return place

    def _new_slot(self, source: Source, attributes: Attributes | None) -> _Slot:
        if self._cached_slots >= _MAX_CACHED_SERIES:
            self._forget_slots()
        self._cached_slots += 1
        series: tuple[Series, ...] = ()
        with contextlib.suppress(Exception):  # the plain path finds out what is the matter with these attributes
            series = self._sources.series(source, attributes or {})
        return _Slot(attributes, series)

    def _renew(self, source: Source, slot: _Slot, epoch: int) -> None:
        """Find the places of the slot's series, which keep them thereby."""
        if source.negates(slot.attributes or {}) or not all(map(self._guard.renew, slot.series)):
            slot.places = ()
            return
        slot.places = slot.places or tuple(map(self._place_for, slot.series))
        slot.epoch = epoch

    def _forget_slots(self) -> None:
        self._slots.clear()
        self._cached_slots = 0
