import pytest

from otel_cloudwatch_flask.mapping.cardinality import IDLE_SECONDS, MAX_OVERFLOW_SERIES, OVERFLOW_NAME, CardinalityGuard
from otel_cloudwatch_flask.model.datum import OVERFLOW_DIMENSIONS, Series
from tests.support.fakes import FakeClock


def series(user: object, name: str = "orders") -> Series:
    """One of arbitrarily many series, such as one for each user."""
    return Series(name, (("user", str(user)),), "Count")


def overflow(name: str = "orders") -> Series:
    """The overflow series of a metric."""
    return Series(name, OVERFLOW_DIMENSIONS, "Count")


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test advances."""
    return FakeClock()


def test_limit(clock: FakeClock) -> None:
    """The first series are admitted and stay; each further one becomes its metric's overflow series."""
    guard = CardinalityGuard(2, clock)
    first, second = series(1), series(2)
    assert guard.admit(first) is first
    assert guard.admit(second) is second
    assert guard.admit(series(3)) == overflow()
    assert guard.admit(series(4, "errors")) == overflow("errors")
    assert guard.admit(first) is first
    assert guard.admit(series(2)) == second
    assert (guard.active(), guard.overflowed) == (2, 2)


def test_overflow_series_do_not_count(clock: FakeClock) -> None:
    """Overflow series do not count against max_metrics, however many metrics have one."""
    guard = CardinalityGuard(1, clock)
    guard.admit(series(1))
    admitted = {guard.admit(series(i, f"metric{i % 7}")) for i in range(2, 1000)}
    assert admitted == {overflow(f"metric{i}") for i in range(7)}
    assert (guard.active(), guard.overflowed) == (1, 998)


def test_overflow_series_are_bounded(clock: FakeClock) -> None:
    """A limited number of metrics get an overflow series and keep it; further ones share a common one."""
    guard = CardinalityGuard(1, clock)
    guard.admit(series(1))
    admitted = [guard.admit(series(2, f"metric{i}")) for i in [*range(2000), 0, MAX_OVERFLOW_SERIES - 1]]
    assert admitted[:MAX_OVERFLOW_SERIES] == [overflow(f"metric{i}") for i in range(MAX_OVERFLOW_SERIES)]
    assert set(admitted[MAX_OVERFLOW_SERIES:2000]) == {overflow(OVERFLOW_NAME)}
    assert admitted[2000:] == [overflow("metric0"), overflow(f"metric{MAX_OVERFLOW_SERIES - 1}")]
    assert (guard.active(), guard.overflowed) == (1, 2002)


def test_overflow_series_of_others_are_bounded(clock: FakeClock) -> None:
    """A series that arrives as an overflow series is admitted as one, and not counted as overflow."""
    guard = CardinalityGuard(1, clock)
    first, *others, last = (overflow(f"metric{i}") for i in range(MAX_OVERFLOW_SERIES + 1))
    assert guard.admit(first) is first
    assert all(guard.admit(each) is each for each in others)
    assert guard.admit(last) == overflow(OVERFLOW_NAME)
    assert guard.admit(first) is first
    assert (guard.active(), guard.overflowed) == (0, 0)
    assert guard.renew(first) is False


def test_idle_overflow_series_make_room(clock: FakeClock) -> None:
    """An overflow series that was idle for an hour makes room for that of another metric."""
    guard = CardinalityGuard(1, clock)
    for i in range(MAX_OVERFLOW_SERIES):
        guard.admit(overflow(f"metric{i}"))
    assert guard.admit(overflow("new")) == overflow(OVERFLOW_NAME)
    clock.advance(IDLE_SECONDS)
    assert guard.admit(overflow("new")) == overflow("new")


def test_overflow_keeps_unit_and_resolution(clock: FakeClock) -> None:
    """An overflow series differs from its metric in the dimensions only."""
    guard = CardinalityGuard(1, clock)
    guard.admit(series(1))
    admitted = guard.admit(Series("orders", (("user", "2"),), "Seconds", 1))
    assert admitted == Series("orders", OVERFLOW_DIMENSIONS, "Seconds", 1)
    for i in range(MAX_OVERFLOW_SERIES):
        admitted = guard.admit(Series(f"metric{i}", (), "Seconds", 1))
    assert admitted == Series(OVERFLOW_NAME, OVERFLOW_DIMENSIONS, "Seconds", 1)


def test_idle_series_make_room(clock: FakeClock) -> None:
    """A series that was idle for an hour makes room for another one; a series that was used in the meantime stays."""
    guard = CardinalityGuard(2, clock)
    guard.admit(series("idle"))
    guard.admit(series("busy"))
    clock.advance(IDLE_SECONDS - 1)
    guard.admit(series("busy"))
    assert guard.admit(series("new")) == overflow()
    clock.advance(11)  # and a little more, since it is not looked for in every call
    assert guard.admit(series("new")) == series("new")
    assert guard.admit(series("busy")) == series("busy")
    assert guard.admit(series("idle")) == overflow()


def test_renewed_series_stay(clock: FakeClock) -> None:
    """A renewed series counts as used, and stays for another hour."""
    guard = CardinalityGuard(1, clock)
    guard.admit(series(1))
    clock.advance(IDLE_SECONDS - 1)
    assert guard.renew(series(1))
    clock.advance(IDLE_SECONDS - 1)
    assert guard.active() == 1
    assert guard.admit(series(2)) == overflow()
    clock.advance(11)
    assert guard.admit(series(2)) == series(2)


def test_active_counts_the_last_hour(clock: FakeClock) -> None:
    """A series that was last published more than an hour ago is not active, whether or not its room was needed."""
    guard = CardinalityGuard(10, clock)
    guard.admit(series(1))
    clock.advance(IDLE_SECONDS / 2)
    guard.admit(series(2))
    assert guard.active() == 2
    clock.advance(IDLE_SECONDS / 2 + 1)
    assert guard.active() == 1


def test_never_more_than_the_limit(clock: FakeClock) -> None:
    """However many series arrive over any length of time, no hour has more of them than the limit."""
    guard = CardinalityGuard(5, clock)
    published: dict[Series, float] = {}
    for i in range(3000):
        clock.advance(7)
        admitted = guard.admit(series(i % 900))
        if admitted != overflow():
            published[admitted] = clock.now
        assert sum(at > clock.now - IDLE_SECONDS for at in published.values()) <= 5
    assert len(published) > 5
