"""Where the points of each series go, remembered from one collection to the next: most of them are the same.

A point whose series no other slot has can be written as it comes. Where points meet, a :class:`Place` puts them
together. Which of the two it is has to be known of all points of a collection before the first one is written.
"""

from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter
from typing import Final

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.cardinality import CardinalityGuard
from otel_cloudwatch_flask.datum import Series
from otel_cloudwatch_flask.merging import Place
from otel_cloudwatch_flask.sources import Attributes, Source

_MAX_REMEMBERED: Final = 20_000
_ATTRIBUTES: Final = attrgetter("attributes")


class Slot:
    """What becomes of the points that have one attributes object.

    The SDK hands over the same object for a series in every collection, so its identity finds the slot. That keeps the
    object, so that no other can take its place in memory.
    """

    __slots__ = ("attributes", "collection", "epoch", "heads", "series", "shared")

    def __init__(self, attributes: Attributes | None, series: tuple[Series, ...]) -> None:
        self.attributes = attributes
        self.series = series
        """What such a point is published as; nothing if that could not be found out."""
        self.heads: tuple[str, ...] = ()
        """The beginnings of the datums that it has for itself."""
        self.shared: tuple[Place, ...] = ()
        """The places of its other datums."""
        self.epoch = -1
        """When the guard let all of these through; if it did not, there are none."""
        self.collection = 0
        """The number of the collection that has brought a point last."""


class Run(list[Slot]):
    """The slots of a metric's points, in their order. As long as nothing changes, it does for further collections."""

    __slots__ = ("changes", "collection", "epoch", "heads", "ids")

    def __init__(self, slots: list[Slot], ids: list[int], epoch: int) -> None:
        super().__init__(slots)
        self.ids = ids
        """The identities of the points' attributes objects."""
        self.epoch = epoch
        self.collection = 0
        self.heads: list[str] | None = None
        """The beginnings of the points' datums, if every slot has one series, and that for itself."""
        self.changes = -1
        """How many series had come to be shared when that was so."""


class Slots:
    """Find the slots of points; ``series_of`` says what a point is published as. For one thread at a time."""

    def __init__(self, guard: CardinalityGuard, series_of: Callable[[Source, Attributes], tuple[Series, ...]]) -> None:
        self._guard = guard
        self._series_of = series_of
        self._collection = 0
        self._slots: dict[Hashable, dict[int, Slot]] = {}
        self._runs: dict[Hashable, Run] = {}
        self._changes = 0
        self._number = 0
        self._places: dict[Series, Place] = {}
        self._owners: dict[Series, Slot | None] = {}
        """The slot that has a series for itself; ``None`` where there are several."""

    def begin_collection(self) -> None:
        """Take what comes from now on for parts of one collection; where too much is remembered, forget it."""
        self._collection += 1
        if max(self._number, len(self._places)) > _MAX_REMEMBERED:
            self._slots.clear()
            self._runs.clear()
            self._number = 0
            self._places.clear()
            self._owners.clear()

    def of(self, source: Source, points: Sequence[sdk.DataPointT]) -> Run:
        """The slots of a metric's points, in their order. What they share may become more with other metrics'."""
        collection, epoch = self._collection, self._guard.epoch()
        ids = [*map(id, map(_ATTRIBUTES, points))]
        run = self._runs.get(source.key)
        if run is not None and run.collection == collection:
            for slot in run:
                slot.collection = collection
        elif (
            run is not None
            and run.heads is not None
            and (run.changes, run.epoch) == (self._changes, epoch)
            and run.ids == ids
        ):
            run.collection = collection
            return run
        run = self._runs[source.key] = Run(self._found(source, points, epoch), ids, epoch)
        run.collection = collection
        return run

    def heads(self, run: Run) -> list[str] | None:
        """The beginnings of the datums, if each point has one for itself: once all slots of a collection are found."""
        if run.changes != self._changes:
            run.changes = self._changes
            is_each_for_itself = all(len(slot.heads) == 1 and not slot.shared for slot in run)
            run.heads = [slot.heads[0] for slot in run] if is_each_for_itself else None
        return run.heads

    def place_of(self, series: Series) -> Place:
        """Where the points of a series meet."""
        place = self._places.get(series)
        if place is None:
            place = self._places[series] = Place(series)
        return place

    def _found(self, source: Source, points: Sequence[sdk.DataPointT], epoch: int) -> list[Slot]:
        known = self._slots.setdefault(source.key, {})
        slots = [known.get(id(point.attributes)) or self._new_slot(known, source, point.attributes) for point in points]
        collection = self._collection
        for slot in slots:
            if slot.epoch != epoch:
                self._renew(source, slot, epoch)
            if slot.collection == collection:
                for series in slot.series:
                    self._share(slot, series)
            slot.collection = collection
        return slots

    def _new_slot(self, known: dict[int, Slot], source: Source, attributes: Attributes | None) -> Slot:
        try:
            series = self._series_of(source, attributes or {})
        except Exception:  # noqa: BLE001 - whoever reads the point finds out what is the matter with these
            return Slot(attributes, ())
        self._number += 1
        slot = known[id(attributes)] = Slot(attributes, series)
        for each in series:
            owner = self._owners.setdefault(each, slot)
            if owner is not slot and owner is not None:
                self._share(owner, each)
        return slot

    def _share(self, owner: Slot, series: Series) -> None:
        """Let a slot no longer have a series for itself."""
        self._changes += 1
        self._owners[series] = None
        owner.heads, owner.shared, owner.epoch = (), (), -1

    def _renew(self, source: Source, slot: Slot, epoch: int) -> None:
        """Keep the slot's series among those that the guard lets through, if all of them are."""
        if source.negates(slot.attributes or {}) or not all(map(self._guard.renew, slot.series)):
            slot.heads, slot.shared = (), ()
            return
        slot.epoch = epoch
        if not (slot.heads or slot.shared):
            places = [(self.place_of(series), self._owners[series] is slot) for series in slot.series]
            slot.heads = tuple(place.head for place, is_own in places if is_own)
            slot.shared = tuple(place for place, is_own in places if not is_own)
