"""The effects of a CloudWatch outage on a server under load: calls, memory and lost counts.

In one third of the outage, connections are refused; in the next, all requests fail; in the last, 60 % are throttled.
"""

import random
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import Report, table
from tests.reliability.cloudwatch import SERVER_ERROR, THROTTLED, FailingCloudWatch
from tests.reliability.processes import GUNICORN, Load, Server, rss_bytes, serving

REQUESTS_A_SECOND = 50
SLACK_CALLS = 12
"""Number of extra calls that jitter may cause at first: half of the delays are shorter than half their maximum."""


@dataclass
class Outage:
    """An outage of this many seconds, and its effects."""

    seconds: float
    answered: int = 0
    counted: float = 0.0
    calls: int = 0
    growth_bytes: int = 0
    recovery_seconds: float = 0.0
    lost: dict[str, int] = field(default_factory=dict)

    def run(self, cloudwatch: FailingCloudWatch, log: Path) -> "Outage":
        """Run the outage against a server under load, which flushes once more when it ends. Return this object."""
        command = [*GUNICORN, "--workers", "1", "--threads", "4", "--worker-class", "gthread"]
        with serving(cloudwatch, log, command, ["tests.reliability.app:create_app()"]) as server:
            load = Load(server.url, clients=4, rate=REQUESTS_A_SECOND).start()
            load.wait_for(2 * REQUESTS_A_SECOND)
            pid = server.get("/stats")["pid"]
            _await_sent(server)
            before = rss_bytes(pid)
            self._fail(cloudwatch, server)
            self.growth_bytes = rss_bytes(pid) - before
            recovering = time.monotonic()
            _await_sent(server)
            self.recovery_seconds = time.monotonic() - recovering
            load.stop()
            self.lost = server.get("/stats")["datums_lost"]
            server.terminate()
        self.answered = len(load.answered)
        self.counted = cloudwatch.published.sum("Requests")
        return self

    @property
    def most_calls(self) -> float:
        """The maximum number of calls. With one flush per second, each success while throttled resets the backoff."""
        return SLACK_CALLS + 2.5 * self.seconds / 3

    def figures(self) -> dict[str, object]:
        """Return the figures for printing."""
        return {
            "seconds": round(self.seconds, 1),
            "answered": self.answered,
            "counted": int(self.counted),
            "lost": self.lost,
            "calls in the outage": self.calls,
            "calls a second": round(self.calls / self.seconds, 2),
            "RSS growth": f"{self.growth_bytes / 2**20:.1f} MB",
            "recovery": f"{self.recovery_seconds:.1f} s",
        }

    def _fail(self, cloudwatch: FailingCloudWatch, server: Server) -> None:
        source, third = random.Random(60), self.seconds / 3
        pause = threading.Event()
        calls_before = _calls(server)
        cloudwatch.refuse_connections()
        pause.wait(third)
        cloudwatch.always(SERVER_ERROR)
        cloudwatch.accept_connections()
        pause.wait(third)

        def throttle(_: Mapping[str, Any]) -> Any:
            return THROTTLED if source.random() < 0.6 else None

        cloudwatch.fault = throttle
        pause.wait(third)
        self.calls = _calls(server) - calls_before
        cloudwatch.always(None)


def _calls(server: Server) -> int:
    """Return the number of calls that the server has attempted, including refused connections."""
    stats = server.get("/stats")
    return int(stats["requests_sent"] + stats["requests_failed"])


def _await_sent(server: Server) -> None:
    """Wait until CloudWatch accepts data again and the backlog is empty."""
    sent = server.get("/stats")["datums_sent"]
    deadline = time.monotonic() + 120
    while server.get("/stats")["datums_sent"] == sent and time.monotonic() < deadline:
        time.sleep(0.05)


def run(*, short: bool) -> Report:
    """Run an outage of one minute or of a few seconds, and return the table of its effects."""
    with FailingCloudWatch() as cloudwatch, tempfile.TemporaryDirectory() as directory:
        outage = Outage(seconds=6.0 if short else 60.0).run(cloudwatch, Path(directory) / "log")
    rows = ((name, str(figure)) for name, figure in outage.figures().items())
    return Report([table(f"An outage of CloudWatch under {REQUESTS_A_SECOND} requests a second", ("", "effect"), rows)])
