"""Calls that may hang are made by somebody else."""

import gc
import threading

import pytest

from otel_cloudwatch_flask.courier import THREAD_NAME, Courier
from tests.fakes import PATIENCE_SECONDS, eventually


def test_errands_are_run_in_order_by_another_thread() -> None:
    """The one who asks gets each result, and never runs a call himself."""
    runs: list[tuple[int, str]] = []

    def call(item: int) -> int:
        runs.append((item, threading.current_thread().name))
        return item * 10

    courier = Courier(call)
    errands = [courier.send(item) for item in (1, 2, 3)]
    assert all(errand.wait(PATIENCE_SECONDS) for errand in errands)
    assert [errand.result() for errand in errands] == [10, 20, 30]
    assert runs == [(1, THREAD_NAME), (2, THREAD_NAME), (3, THREAD_NAME)]


def test_waiting_is_bounded_and_the_call_goes_on() -> None:
    """Whoever does not want to wait any longer may come back."""
    released = threading.Event()
    courier: Courier[None, bool] = Courier(lambda _: released.wait(PATIENCE_SECONDS))
    errand = courier.send(None)
    assert not errand.wait(0.01)
    released.set()
    assert errand.wait(PATIENCE_SECONDS)
    assert errand.result()


def test_an_interrupted_wait_ends_at_once() -> None:
    """An interruption ends the waiting, not the call."""
    released = threading.Event()
    courier: Courier[None, bool] = Courier(lambda _: released.wait(PATIENCE_SECONDS))
    errand = courier.send(None)
    errand.interrupt()
    assert not errand.wait(PATIENCE_SECONDS)
    released.set()
    errand.forget_interruption()
    assert errand.wait(PATIENCE_SECONDS)


def test_what_a_call_raises_is_raised_where_its_result_is_asked_for() -> None:
    """An error is no result, and does not end the thread."""

    def call(item: int) -> float:
        return 1 / item

    courier = Courier(call)
    bad, good = courier.send(0), courier.send(2)
    assert bad.wait(PATIENCE_SECONDS)
    assert good.wait(PATIENCE_SECONDS)
    with pytest.raises(ZeroDivisionError):
        bad.result()
    assert good.result() == 0.5


def test_no_thread_outlives_its_courier() -> None:
    """A courier that is stopped, or that nobody knows any more, takes its thread with it."""
    others = set(threading.enumerate())

    def own_threads() -> int:
        gc.collect()
        return sum(thread.name == THREAD_NAME for thread in set(threading.enumerate()) - others)

    couriers = [Courier(str) for _ in range(20)]
    assert all(courier.send(1).wait(PATIENCE_SECONDS) for courier in couriers)
    assert own_threads() == 20
    for courier in couriers[:10]:
        courier.stop()
    assert eventually(lambda: own_threads() == 10)
    del courier
    couriers.clear()
    assert eventually(lambda: own_threads() == 0)


def test_after_the_end_errands_are_run_by_the_one_who_asks() -> None:
    """Nothing is lost because somebody came late."""
    courier: Courier[int, str] = Courier(str)
    courier.stop()
    assert courier.send(7).result() == "7"
