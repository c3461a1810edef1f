"""The series of each attribute set, remembered from one collection to the next: most of them are the same.

An attribute set that has a series for itself needs no merging. Where the points of several meet in one series, an
:class:`Accumulator` puts them together. Which of the two it is has to be known of all points of a collection before the
first one is published.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Final

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.metric_streams import Attributes, MetricStream
from otel_cloudwatch_flask.model.datum import Series

_MAX_ENTRIES: Final = 20_000


class CacheEntry:
    """What the points with one attributes object are published as.

    The SDK hands over the same object for a series in every collection, so its identity finds the entry. The entry
    keeps the object alive, so that no other can have its identity.
    """

    __slots__ = ("attributes", "collection", "epoch", "own", "series", "shared")

    def __init__(self, attributes: Attributes | None, series: tuple[Series, ...]) -> None:
        self.attributes = attributes
        self.series = series
        """All series that such a point is published as; empty if the attributes could not be read."""
        self.own: tuple[Series, ...] = ()
        """Those that belong to this entry alone."""
        self.shared: tuple[Series, ...] = ()
        """Those that have points of other entries, too."""
        self.epoch = -1
        """The guard's epoch in which it admitted all of these; if it did not, ``own`` and ``shared`` are empty."""
        self.collection = 0
        """The number of the last collection with such a point."""


class SeriesCache:
    """Find the entries of points; ``series_of`` says what a point is published as. For one thread at a time."""

    def __init__(
        self, guard: CardinalityGuard, series_of: Callable[[MetricStream, Attributes], tuple[Series, ...]]
    ) -> None:
        self._guard = guard
        self._series_of = series_of
        self._collection = 0
        self._size = 0
        self._entries: dict[Hashable, dict[int, CacheEntry]] = {}
        self._owners: dict[Series, CacheEntry | None] = {}
        """The entry that has a series for itself; ``None`` where there are several."""

    def begin_collection(self) -> None:
        """Treat what comes from now on as parts of one collection; where too much is remembered, forget it."""
        self._collection += 1
        if self._size > _MAX_ENTRIES:
            self._size = 0
            self._entries.clear()
            self._owners.clear()

    def entries(self, stream: MetricStream, points: Sequence[sdk.DataPointT]) -> list[CacheEntry]:
        """The entries of a metric's points, in their order.

        Only when those of all metrics of a collection are found is it known which series are shared.
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
        except Exception:  # noqa: BLE001 - the boundary to anybody's attributes: reading the point reports what is wrong
            return CacheEntry(attributes, ())
        self._size += 1
        entry = known[id(attributes)] = CacheEntry(attributes, series)
        for each in series:
            owner = self._owners.setdefault(each, entry)
            if owner is not entry and owner is not None:
                self._share(owner, each)
        return entry

    def _share(self, owner: CacheEntry, series: Series) -> None:
        """Note that a series has points of other entries than the one that had it for itself."""
        self._owners[series] = None
        if series in owner.own:
            owner.own = tuple(each for each in owner.own if each != series)
            owner.shared += (series,)

    def _renew(self, entry: CacheEntry, epoch: int) -> None:
        """Keep the entry's series among those that the guard admits, if it admits all of them."""
        entry.own = entry.shared = ()
        if all(map(self._guard.renew, entry.series)):
            entry.epoch = epoch
            entry.own = tuple(each for each in entry.series if self._owners[each] is entry)
            entry.shared = tuple(each for each in entry.series if self._owners[each] is not entry)
