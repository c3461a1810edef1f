import pytest

from otel_cloudwatch_flask.mapping.cardinality import (
    OVERFLOW_NAME,
    CardinalityGuard,
    overflow_capacity,
)
from otel_cloudwatch_flask.model.datum import OVERFLOW_DIMENSIONS, Series
from otel_cloudwatch_flask.pricing import IDLE_SECONDS
from tests.support.fakes import FakeClock


def series(user: object, name: str = "orders") -> Series:
    """Return a series with an unbounded dimension value, such as a user ID."""
    return Series(name, (("user", str(user)),), "Count")


def overflow(name: str = "orders") -> Series:
    """Return the overflow series of a metric."""
    return Series(name, OVERFLOW_DIMENSIONS, "Count")


@pytest.fixture
def clock() -> FakeClock:
    """A fake clock."""
    return FakeClock()


def test_limit(clock: FakeClock) -> None:
    """The first series are admitted and stay admitted; all further ones become an overflow series."""
    guard = CardinalityGuard(4, clock)
    first, second = series(1), series(2)
    assert guard.admit(first) is first
    assert guard.admit(second) is second
    assert guard.admit(series(3)) == overflow()
    assert guard.admit(series(4, "errors")) == overflow(OVERFLOW_NAME)
    assert guard.admit(first) is first
    assert guard.admit(series(2)) == second
    assert (guard.active(), guard.overflowed) == (4, 2)


@pytest.mark.parametrize("max_metrics", [1, 2, 3, 4, 10, 11, 50, 1000])
def test_one_bound(clock: FakeClock, max_metrics: int) -> None:
    """Unbounded values and names create at most ``max_metrics`` metrics, including overflow series."""
    guard = CardinalityGuard(max_metrics, clock)
    admitted = {guard.admit(series(user, f"metric{user % 1500}")) for user in range(6000)}
    assert len(admitted) == guard.active() == max_metrics
    overflow = [each for each in admitted if each.dimensions == OVERFLOW_DIMENSIONS]
    assert len(overflow) == overflow_capacity(max_metrics)


def test_overflow_series_are_bounded(clock: FakeClock) -> None:
    """The first metrics have their own overflow series; all others share one."""
    guard = CardinalityGuard(1000, clock)
    own = overflow_capacity(1000) - 1
    for user in range(1000 - own - 1):
        guard.admit(series(user))
    admitted = [guard.admit(series(2, f"metric{i}")) for i in [*range(2000), 0, own - 1]]
    assert admitted[:own] == [overflow(f"metric{i}") for i in range(own)]
    assert set(admitted[own:2000]) == {overflow(OVERFLOW_NAME)}
    assert admitted[2000:] == [overflow("metric0"), overflow(f"metric{own - 1}")]
    assert (guard.active(), guard.overflowed) == (1000, 2002)


def test_overflow_series_of_others_are_bounded(clock: FakeClock) -> None:
    """Overflow series made by add_metric or an SDK count toward the limit, but not as overflowed."""
    guard = CardinalityGuard(300, clock)
    first, second, third = (overflow(f"metric{i}") for i in range(3))
    assert guard.admit(first) is first
    assert guard.admit(second) is second
    assert guard.admit(third) == overflow(OVERFLOW_NAME)
    assert guard.admit(first) is first
    assert (guard.active(), guard.overflowed) == (3, 0)
    assert guard.renew(first) is False


def test_idle_overflow_series_are_replaced(clock: FakeClock) -> None:
    """The overflow series of a metric can replace one that has been idle for an hour."""
    guard = CardinalityGuard(4, clock)
    guard.admit(overflow("old"))
    assert guard.admit(overflow("new")) == overflow(OVERFLOW_NAME)
    clock.advance(IDLE_SECONDS)
    assert guard.admit(overflow("new")) == overflow("new")


def test_overflow_keeps_unit_and_resolution(clock: FakeClock) -> None:
    """An overflow series keeps the unit and resolution of its metric."""
    guard = CardinalityGuard(4, clock)
    guard.admit(series(0))
    guard.admit(series(1))
    admitted = guard.admit(Series("orders", (("user", "2"),), "Seconds", 1))
    assert admitted == Series("orders", OVERFLOW_DIMENSIONS, "Seconds", 1)
    admitted = guard.admit(Series("errors", (), "Seconds", 1))
    assert admitted == Series(OVERFLOW_NAME, OVERFLOW_DIMENSIONS, "Seconds", 1)


def test_idle_places_are_free_again(clock: FakeClock) -> None:
    """A series that has been idle for an hour makes room for another; a series used in the meantime stays."""
    guard = CardinalityGuard(4, clock)
    guard.admit(series("idle"))
    guard.admit(series("busy"))
    clock.advance(IDLE_SECONDS - 1)
    guard.admit(series("busy"))
    assert guard.admit(series("new")) == overflow()
    clock.advance(11)  # with a margin, because the guard does not look for idle series in every call
    assert guard.admit(series("new")) == series("new")
    assert guard.admit(series("busy")) == series("busy")
    assert guard.admit(series("idle")) == overflow()


def test_renewed_places_are_kept(clock: FakeClock) -> None:
    """A renewed series stays admitted for another hour."""
    guard = CardinalityGuard(2, clock)
    guard.admit(series(1))
    clock.advance(IDLE_SECONDS - 1)
    assert guard.renew(series(1))
    clock.advance(IDLE_SECONDS - 1)
    assert guard.active() == 1
    assert guard.admit(series(2)) == overflow(OVERFLOW_NAME)
    clock.advance(60 + 11)  # the renewal lasts until the minute ends
    assert guard.admit(series(2)) == series(2)


def test_a_use_does_not_shorten_a_renewal(clock: FakeClock) -> None:
    """A renewal lasts until the minute ends, even if the series is also used without the cache in that minute."""
    guard = CardinalityGuard(2, clock)
    clock.now = 0
    assert guard.admit(series(1)) == series(1)
    assert guard.renew(series(1))
    assert guard.use(series(1))
    clock.now = 59 + IDLE_SECONDS - 1
    assert guard.admit(series(2)) == overflow(OVERFLOW_NAME)


def test_active_counts_the_last_hour(clock: FakeClock) -> None:
    """Series last used more than an hour ago are not active, even if they have not been replaced."""
    guard = CardinalityGuard(10, clock)
    guard.admit(series(1))
    clock.advance(IDLE_SECONDS / 2)
    guard.admit(series(2))
    assert guard.active() == 2
    clock.advance(IDLE_SECONDS / 2 + 1)
    assert guard.active() == 1


def test_never_more_than_the_limit(clock: FakeClock) -> None:
    """Within any hour, no more series than the limit are published."""
    guard = CardinalityGuard(7, clock)
    published: dict[Series, float] = {}
    for i in range(3000):
        clock.advance(7)
        admitted = guard.admit(series(i % 900))
        if admitted != overflow():
            published[admitted] = clock.now
        assert sum(at > clock.now - IDLE_SECONDS for at in published.values()) <= 5
    assert len(published) > 5
