"""A registry of objects that does not keep them alive."""

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")


class LiveObjects(Generic[_T]):
    """The objects that were added, except those discarded or garbage collected, in the order of addition. Thread-safe.

    Objects are told apart by identity, not by equality.
    """

    def __init__(self) -> None:
        self._objects: weakref.WeakValueDictionary[int, _T] = weakref.WeakValueDictionary()

    def __iter__(self) -> Iterator[_T]:
        # valuerefs() copies atomically. Any other iteration fails if another thread adds an object meanwhile.
        return (found for reference in self._objects.valuerefs() if (found := reference()) is not None)

    def add(self, item: _T) -> None:
        """Add an object at the end. If it is already in the registry, move it to the end."""
        self.discard(item)
        self._objects[id(item)] = item

    def discard(self, item: _T) -> None:
        """Remove an object. Does nothing if it is not in the registry."""
        self._objects.pop(id(item), None)
