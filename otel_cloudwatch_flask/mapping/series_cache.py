"""Cache the series of each attribute set from one collection to the next, because most attribute sets come back.

A point needs no merging if no other point belongs to its series. If several do, an :class:`Accumulator` merges them.
Which series are shared has to be known for all points of a collection before the first one is published.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Final

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.metric_streams import Attributes, MetricStream
from otel_cloudwatch_flask.model.datum import Series

_MAX_ENTRIES: Final = 20_000


class CacheEntry:
    """The series that points with one attributes object are published as.

    The SDK passes the same object for a series in every collection, so its ``id()`` is the key of the entry. The entry
    holds a reference to the object, so that no other one can get its ``id()``.
    """

    __slots__ = ("attributes", "collection", "epoch", "own", "series", "shared")

    def __init__(self, attributes: Attributes | None, series: tuple[Series, ...]) -> None:
        self.attributes = attributes
        self.series = series
        """All series of such a point; empty if the attributes could not be read."""
        self.own: tuple[Series, ...] = ()
        """The series that receive points of this entry only."""
        self.shared: tuple[Series, ...] = ()
        """The series that receive points of other entries as well."""
        self.epoch = -1
        """The guard's epoch in which it admitted all series; until then ``own`` and ``shared`` are empty."""
        self.collection = 0
        """The number of the last collection with such a point."""


class SeriesCache:
    """Find the cache entries of points. ``series_of`` computes the series of a point. Not thread-safe."""

    def __init__(
        self, guard: CardinalityGuard, series_of: Callable[[MetricStream, Attributes], tuple[Series, ...]]
    ) -> None:
        self._guard = guard
        self._series_of = series_of
        self._collection = 0
        self._size = 0
        self._entries: dict[Hashable, dict[int, CacheEntry]] = {}
        self._owners: dict[Series, CacheEntry | None] = {}
        """The only entry of each series; ``None`` if there are several."""

    def begin_collection(self) -> None:
        """Begin a collection; clear the cache first if it has grown too large."""
        self._collection += 1
        if self._size > _MAX_ENTRIES:
            self._size = 0
            self._entries.clear()
            self._owners.clear()

    def entries(self, stream: MetricStream, points: Sequence[sdk.DataPointT]) -> list[CacheEntry]:
        """Return the entries of a metric's points, in their order.

        ``own`` and ``shared`` are final only when this was called for all metrics of the collection.
        """
        known = self._entries.setdefault(stream.key, {})
        get = known.get
        entries = [get(id(each.attributes)) or self._new_entry(known, stream, each.attributes) for each in points]
        collection, epoch = self._collection, self._guard.epoch()
        for entry in entries:
            if entry.collection == collection:
                for series in entry.series:
                    self._share(entry, series)
            entry.collection = collection
            if entry.epoch != epoch:
                self._renew(entry, epoch)
        return entries

    def _new_entry(
        self, known: dict[int, CacheEntry], stream: MetricStream, attributes: Attributes | None
    ) -> CacheEntry:
        try:
            series = self._series_of(stream, attributes or {})
        except Exception:  # noqa: BLE001 - boundary to foreign attributes: reading the point reports what is wrong
            return CacheEntry(attributes, ())
        self._size += 1
        entry = known[id(attributes)] = CacheEntry(attributes, series)
        for each in series:
            owner = self._owners.setdefault(each, entry)
            if owner is not entry and owner is not None:
                self._share(owner, each)
        return entry

    def _share(self, owner: CacheEntry, series: Series) -> None:
        """Mark a series as shared by several entries."""
        self._owners[series] = None
        if series in owner.own:
            owner.own = tuple(each for each in owner.own if each != series)
            owner.shared += (series,)

    def _renew(self, entry: CacheEntry, epoch: int) -> None:
        """Mark the entry's series as used in the guard, and fill ``own`` and ``shared`` if all of them are active."""
        entry.own = entry.shared = ()
        if all(map(self._guard.renew, entry.series)):
            entry.epoch = epoch
            entry.own = tuple(each for each in entry.series if self._owners[each] is entry)
            entry.shared = tuple(each for each in entry.series if self._owners[each] is not entry)
