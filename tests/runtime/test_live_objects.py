"""The registry of live objects."""

import gc

from otel_cloudwatch_flask.runtime.live_objects import LiveObjects


class Thing:
    """A class whose objects are all equal."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing)

    __hash__ = None  # type: ignore[assignment]


def test_order_and_removal() -> None:
    """Objects are iterated in the order of their latest addition, by identity, until they are discarded."""
    live, things = LiveObjects[Thing](), [Thing(), Thing(), Thing()]
    for each in (*things, things[0]):
        live.add(each)
    assert [*map(id, live)] == [id(things[index]) for index in (1, 2, 0)]
    live.discard(things[2])
    live.discard(Thing())
    assert [*map(id, live)] == [id(things[1]), id(things[0])]


def test_dead_objects_vanish() -> None:
    """The registry keeps no object alive, even if one dies during the iteration."""
    live, things = LiveObjects[Thing](), [Thing(), Thing()]
    for each in things:
        live.add(each)
    found = iter(live)
    assert next(found) is things[0]
    del each
    things.pop()
    gc.collect()
    assert list(found) == []
    assert len(list(live)) == 1
