import pytest

from otel_cloudwatch_flask.mapping.cardinality import (
    IDLE_SECONDS,
    OVERFLOW_NAME,
    CardinalityGuard,
    overflow_capacity,
)
from otel_cloudwatch_flask.model.datum import OVERFLOW_DIMENSIONS, Series
from tests.support.fakes import FakeClock


def series(user: object, name: str = "orders") -> Series:
    """A series that somebody can make as many of as there are users."""
    return Series(name, (("user", str(user)),), "Count")


def overflow(name: str = "orders") -> Series:
    """The series for those that found no place."""
    return Series(name, OVERFLOW_DIMENSIONS, "Count")


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


def test_limit(clock: FakeClock) -> None:
    """The first series are admitted and stay admitted; further ones become an overflow series."""
    guard = CardinalityGuard(3, clock)
    first, second = series(1), series(2)
    assert guard.admit(first) is first
    assert guard.admit(second) is second
    assert guard.admit(series(3)) == overflow()
    assert guard.admit(series(4, "errors")) == overflow(OVERFLOW_NAME)
    assert guard.admit(first) is first
    assert guard.admit(series(2)) == second
    assert (guard.active(), guard.overflowed) == (3, 2)


@pytest.mark.parametrize("max_metrics", [10, 11, 19, 20, 50, 1000])
def test_one_bound(clock: FakeClock, max_metrics: int) -> None:
    """Values and names that clients make up create ``max_metrics`` metrics, overflow series included, and no more."""
    guard = CardinalityGuard(max_metrics, clock)
    admitted = {guard.admit(series(user, f"metric{user % 1500}")) for user in range(6000)}
    assert len(admitted) == max_metrics
    assert len({each for each in admitted if each.dimensions == OVERFLOW_DIMENSIONS}) == overflow_capacity(max_metrics)


@pytest.mark.parametrize("max_metrics", [1, 2, 3, 9])
def test_very_small_bounds(clock: FakeClock, max_metrics: int) -> None:
    """They hold for one metric; the overflow of any others is one metric more."""
    guard = CardinalityGuard(max_metrics, clock)
    admitted = {guard.admit(series(user)) for user in range(100)}
    assert len(admitted) == max_metrics
    admitted |= {guard.admit(series(user, f"metric{user}")) for user in range(100)}
    assert len(admitted) == max_metrics + 1


def test_overflow_series_are_bounded(clock: FakeClock) -> None:
    """The first metrics keep their overflow series; one series replaces those of all others."""
    guard = CardinalityGuard(100, clock)
    own = overflow_capacity(100) - 1
    for user in range(100 - own - 1):
        guard.admit(series(user))
    admitted = [guard.admit(series(2, f"metric{i}")) for i in [*range(2000), 0, own - 1]]
    assert admitted[:own] == [overflow(f"metric{i}") for i in range(own)]
    assert set(admitted[own:2000]) == {overflow(OVERFLOW_NAME)}
    assert admitted[2000:] == [overflow("metric0"), overflow(f"metric{own - 1}")]
    assert (guard.active(), guard.overflowed) == (99, 2002)


def test_overflow_series_of_others_are_bounded(clock: FakeClock) -> None:
    """One that arrives as such, from add_metric or an SDK, is one of them, and is not counted as overflowed."""
    guard = CardinalityGuard(30, clock)
    first, second, third = (overflow(f"metric{i}") for i in range(3))
    assert guard.admit(first) is first
    assert guard.admit(second) is second
    assert guard.admit(third) == overflow(OVERFLOW_NAME)
    assert guard.admit(first) is first
    assert (guard.active(), guard.overflowed) == (2, 0)
    assert guard.renew(first) is False


def test_idle_overflow_series_are_replaced(clock: FakeClock) -> None:
    """One that was idle for an hour is replaced by that of another metric."""
    guard = CardinalityGuard(2, clock)
    guard.admit(overflow("old"))
    assert guard.admit(overflow("new")) == overflow(OVERFLOW_NAME)
    clock.advance(IDLE_SECONDS)
    assert guard.admit(overflow("new")) == overflow("new")


def test_overflow_keeps_unit_and_resolution(clock: FakeClock) -> None:
    """An overflow series differs from its metric in the dimensions only."""
    guard = CardinalityGuard(2, clock)
    guard.admit(series(1))
    admitted = guard.admit(Series("orders", (("user", "2"),), "Seconds", 1))
    assert admitted == Series("orders", OVERFLOW_DIMENSIONS, "Seconds", 1)
    admitted = guard.admit(Series("errors", (), "Seconds", 1))
    assert admitted == Series(OVERFLOW_NAME, OVERFLOW_DIMENSIONS, "Seconds", 1)


def test_idle_places_are_free_again(clock: FakeClock) -> None:
    """A series that was idle for an hour gives its place back; one that was used meanwhile keeps it."""
    guard = CardinalityGuard(3, clock)
    guard.admit(series("idle"))
    guard.admit(series("busy"))
    clock.advance(IDLE_SECONDS - 1)
    guard.admit(series("busy"))
    assert guard.admit(series("new")) == overflow()
    clock.advance(11)  # and a little more, since it is not looked for in every call
    assert guard.admit(series("new")) == series("new")
    assert guard.admit(series("busy")) == series("busy")
    assert guard.admit(series("idle")) == overflow()


def test_renewed_places_are_kept(clock: FakeClock) -> None:
    """Whose place is renewed was used, and keeps it for another hour."""
    guard = CardinalityGuard(2, clock)
    guard.admit(series(1))
    clock.advance(IDLE_SECONDS - 1)
    assert guard.renew(series(1))
    clock.advance(IDLE_SECONDS - 1)
    assert guard.active() == 1
    assert guard.admit(series(2)) == overflow()
    clock.advance(11)
    assert guard.admit(series(2)) == series(2)


def test_active_counts_the_last_hour(clock: FakeClock) -> None:
    """What was published longer than an hour ago is not active, whether its place was needed or not."""
    guard = CardinalityGuard(10, clock)
    guard.admit(series(1))
    clock.advance(IDLE_SECONDS / 2)
    guard.admit(series(2))
    assert guard.active() == 2
    clock.advance(IDLE_SECONDS / 2 + 1)
    assert guard.active() == 1


def test_never_more_than_the_limit(clock: FakeClock) -> None:
    """However many come and however long it takes, an hour never has more series than the limit."""
    guard = CardinalityGuard(6, clock)
    published: dict[Series, float] = {}
    for i in range(3000):
        clock.advance(7)
        admitted = guard.admit(series(i % 900))
        if admitted != overflow():
            published[admitted] = clock.now
        assert sum(at > clock.now - IDLE_SECONDS for at in published.values()) <= 5
    assert len(published) > 5
