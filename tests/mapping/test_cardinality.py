import pytest

from otel_cloudwatch_flask.mapping.cardinality import IDLE_SECONDS, MAX_OVERFLOW_SERIES, OVERFLOW_NAME, CardinalityGuard
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
    """The first series have a place and keep it; each further one becomes its metric's overflow series."""
    guard = CardinalityGuard(2, clock)
    first, second = series(1), series(2)
    assert guard.admit(first) is first
    assert guard.admit(second) is second
    assert guard.admit(series(3)) == overflow()
    assert guard.admit(series(4, "errors")) == overflow("errors")
    assert guard.admit(first) is first
    assert guard.admit(series(2)) == second
    assert (guard.active(), guard.overflowed) == (2, 2)


def test_overflow_series_take_no_place(clock: FakeClock) -> None:
    """Overflow series are not counted, however many metrics have one."""
    guard = CardinalityGuard(1, clock)
    guard.admit(series(1))
    admitted = {guard.admit(series(i, f"metric{i % 7}")) for i in range(2, 1000)}
    assert admitted == {overflow(f"metric{i}") for i in range(7)}
    assert (guard.active(), guard.overflowed) == (1, 998)


def test_overflow_series_are_bounded(clock: FakeClock) -> None:
    """However many metrics there are, so many have an overflow series and keep it; one takes the rest of the others."""
    guard = CardinalityGuard(1, clock)
    guard.admit(series(1))
    admitted = [guard.admit(series(2, f"metric{i}")) for i in [*range(2000), 0, MAX_OVERFLOW_SERIES - 1]]
    assert admitted[:MAX_OVERFLOW_SERIES] == [overflow(f"metric{i}") for i in range(MAX_OVERFLOW_SERIES)]
    assert set(admitted[MAX_OVERFLOW_SERIES:2000]) == {overflow(OVERFLOW_NAME)}
    assert admitted[2000:] == [overflow("metric0"), overflow(f"metric{MAX_OVERFLOW_SERIES - 1}")]
    assert (guard.active(), guard.overflowed) == (1, 2002)


def test_overflow_series_of_others_are_bounded(clock: FakeClock) -> None:
    """One that comes as such, from add_metric or an SDK, takes a place among them, and is not counted as one."""
    guard = CardinalityGuard(1, clock)
    first, *others, last = (overflow(f"metric{i}") for i in range(MAX_OVERFLOW_SERIES + 1))
    assert guard.admit(first) is first
    assert all(guard.admit(each) is each for each in others)
    assert guard.admit(last) == overflow(OVERFLOW_NAME)
    assert guard.admit(first) is first
    assert (guard.active(), guard.overflowed) == (0, 0)
    assert guard.renew(first) is False


def test_places_of_overflow_series_are_free_again(clock: FakeClock) -> None:
    """One that was idle for an hour gives its place to that of another metric."""
    guard = CardinalityGuard(1, clock)
    for i in range(MAX_OVERFLOW_SERIES):
        guard.admit(overflow(f"metric{i}"))
    assert guard.admit(overflow("new")) == overflow(OVERFLOW_NAME)
    clock.advance(IDLE_SECONDS)
    assert guard.admit(overflow("new")) == overflow("new")


def test_overflow_keeps_unit_and_resolution(clock: FakeClock) -> None:
    """What overflows differs from its metric in the dimensions only."""
    guard = CardinalityGuard(1, clock)
    guard.admit(series(1))
    admitted = guard.admit(Series("orders", (("user", "2"),), "Seconds", 1))
    assert admitted == Series("orders", OVERFLOW_DIMENSIONS, "Seconds", 1)
    for i in range(MAX_OVERFLOW_SERIES):
        admitted = guard.admit(Series(f"metric{i}", (), "Seconds", 1))
    assert admitted == Series(OVERFLOW_NAME, OVERFLOW_DIMENSIONS, "Seconds", 1)


def test_idle_places_are_free_again(clock: FakeClock) -> None:
    """A series that was idle for an hour gives its place back; one that was used meanwhile keeps it."""
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


def test_renewed_places_are_kept(clock: FakeClock) -> None:
    """Whose place is renewed was used, and keeps it for another hour."""
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
    guard = CardinalityGuard(5, clock)
    published: dict[Series, float] = {}
    for i in range(3000):
        clock.advance(7)
        admitted = guard.admit(series(i % 900))
        if admitted != overflow():
            published[admitted] = clock.now
        assert sum(at > clock.now - IDLE_SECONDS for at in published.values()) <= 5
    assert len(published) > 5
