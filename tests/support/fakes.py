"""A fake clock and event, scripted clients, and waiting with a timeout."""

import copy
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from otel_cloudwatch_flask.testing.fake import FakeCloudWatch

PATIENCE_SECONDS = 30.0
"""Timeout in seconds for conditions that become true soon; only a failing test waits this long."""


class FakeClock:
    """A clock that moves only when it is advanced."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the clock's time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self.now += seconds


class PassingWaits(threading.Event):
    """An event whose waits are recorded, and advance a fake clock instead of blocking."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Advance the clock by the timeout, unless the event is set."""
        if self.is_set():
            return True
        assert timeout is not None
        self.waits.append(timeout)
        self._clock.advance(timeout)
        return False


class ScriptedClient:
    """A strict fake CloudWatch with a script: each call raises the next error, or succeeds if it is ``None``."""

    def __init__(
        self,
        *script: Exception | None,
        before_each: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.cloudwatch = FakeCloudWatch(clock=clock)
        self.calls: list[dict[str, Any]] = []
        self._script = list(script)
        self._before_each = before_each

    def put_metric_data(self, **request: Any) -> Any:
        """Raise the next error of the script, or store the request."""
        self._before_each()
        self.calls.append(copy.deepcopy(request))
        error = self._script.pop(0) if self._script else None
        if error is not None:
            raise error
        return self.cloudwatch.put_metric_data(**request)

    def names(self) -> list[list[str]]:
        """Return the names of the metrics in each call."""
        return [[datum["MetricName"] for datum in call["MetricData"]] for call in self.calls]


class BlockedClient:
    """A fake CloudWatch that blocks every call until it is released."""

    def __init__(self) -> None:
        self.cloudwatch = FakeCloudWatch()
        self.entered = threading.Event()
        self.released = threading.Event()

    def put_metric_data(self, **request: Any) -> Any:
        """Block, and then store the request."""
        self.entered.set()
        self.released.wait(PATIENCE_SECONDS)
        return self.cloudwatch.put_metric_data(**request)


def eventually(condition: Callable[[], object], *, within_seconds: float = PATIENCE_SECONDS) -> bool:
    """Wait for a condition, and return whether it became true in time."""
    deadline = time.monotonic() + within_seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() >= deadline:
            return False
        pause.wait(0.002)
    return True


def in_threads(*targets: Callable[[], object]) -> list[threading.Thread]:
    """Start each function in its own thread."""
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    return threads


def join_all(threads: Iterable[threading.Thread]) -> None:
    """Join the threads, and assert that each of them has ended."""
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
