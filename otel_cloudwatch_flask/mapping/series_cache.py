"""Cache the series of each attribute set, because most attribute sets occur in every collection.

The cache also determines which series receive several data points in a collection, and therefore require merging. That
must be known before the first data point is published, or a series could get more than one datum.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Final

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.metric_streams import Attributes, MetricStream
from otel_cloudwatch_flask.model.datum import Series

_MAX_ENTRIES: Final = 20_000
_SCALARS: Final = frozenset({str, int, float, bool, bytes, type(None)})


class CacheEntry:
    """The series of the data points that have the same attributes.

    Where the SDK passes the same attributes object in every collection, its ``id()`` finds the entry fastest. The entry
    holds a reference to the object so that the ``id()`` is not reused. Since 1.45.2, the SDK passes a new object in
    every collection of deltas, and the entry is found by the content of the attributes.
    """

    __slots__ = ("attributes", "collection", "epoch", "own", "series", "shared")

    def __init__(self, attributes: Attributes | None, series: tuple[Series, ...]) -> None:
        self.attributes = attributes
        self.series = series
        """All series that the data points are published as, or an empty tuple if the attributes could not be read."""
        self.own: tuple[Series, ...] = ()
        """The series that receive data points only through this entry."""
        self.shared: tuple[Series, ...] = ()
        """The series that also receive data points through other entries, or several data points through this entry."""
        self.epoch = -1
        """The epoch in which all series were last renewed. If renewing them fails, ``own`` and ``shared`` are empty."""
        self.collection = 0
        """The number of the last collection that contained a data point of this entry."""


class SeriesCache:
    """Caches the result of ``series_of``, which returns the series of a data point. Not thread-safe."""

    def __init__(
        self, guard: CardinalityGuard, series_of: Callable[[MetricStream, Attributes], tuple[Series, ...]]
    ) -> None:
        self._guard = guard
        self._series_of = series_of
        self._collection = 0
        self._entries: dict[Hashable, dict[int, CacheEntry]] = {}
        self._entries_by_content: dict[Hashable, CacheEntry] = {}
        self._owners: dict[Series, CacheEntry | None] = {}
        """The entry of each series, or ``None`` if the series is shared."""

    def begin_collection(self) -> None:
        """Begin a collection, and clear the cache if it has become too large."""
        self._collection += 1
        # Clearing costs one slow collection, but evicting single entries would require bookkeeping in every collection.
        if sum(map(len, self._entries.values())) > _MAX_ENTRIES:
            self._entries.clear()
            self._entries_by_content.clear()
            self._owners.clear()

    def entries(self, stream: MetricStream, points: Sequence[sdk.DataPointT]) -> list[CacheEntry]:
        """Return the entry of each data point in ``points``.

        Each call may move series from ``own`` to ``shared`` in any entry, so the entries must not be used
        before this method has been called for all metrics of the collection.
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
            content = _content_of(attributes or {})
            equal = self._entries_by_content.get((stream.key, content)) if content is not None else None
            if equal is not None:
                del known[id(equal.attributes)]
                equal.attributes = attributes
                known[id(attributes)] = equal
                return equal
            series = self._series_of(stream, attributes or {})
        except Exception:  # noqa: BLE001 - attributes from other code: reading the data point reports the problem
            return CacheEntry(attributes, ())
        entry = known[id(attributes)] = CacheEntry(attributes, series)
        if content is not None:
            self._entries_by_content[stream.key, content] = entry
        for each in series:
            owner = self._owners.setdefault(each, entry)
            if owner is not entry and owner is not None:
                self._share(owner, each)
        return entry

    def _share(self, owner: CacheEntry, series: Series) -> None:
        """Move ``series`` from ``owner.own`` to ``owner.shared``.

        No other entry needs to be updated, because a series is in the ``own`` of at most one entry.
        """
        self._owners[series] = None
        if series in owner.own:
            owner.own = tuple(each for each in owner.own if each != series)
            owner.shared += (series,)

    def _renew(self, entry: CacheEntry, epoch: int) -> None:
        """Renew an entry's series in the guard, and set the entry's ``own`` and ``shared`` series.

        If the guard has not admitted one of the series, or has removed it, ``own`` and ``shared`` are left empty.
        """
        entry.own = entry.shared = ()
        if all(map(self._guard.renew, entry.series)):
            entry.epoch = epoch
            entry.own = tuple(each for each in entry.series if self._owners[each] is entry)
            entry.shared = tuple(each for each in entry.series if self._owners[each] is not entry)


def _content_of(attributes: Attributes) -> tuple[object, ...] | None:
    """Return a key that is equal for equal attributes, or ``None`` if a value is not a scalar.

    Includes the types, because ``1``, ``1.0`` and ``True`` are equal.
    """
    types = [*map(type, attributes.values())]
    return (*attributes, *attributes.values(), *types) if _SCALARS.issuperset(types) else None
