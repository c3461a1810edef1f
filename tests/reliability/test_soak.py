"""Four processes, and every kind of fault in a seeded schedule: all counts are exact in the end."""

import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otel_cloudwatch_flask.testing.local.server import Fault
from tests.reliability.cloudwatch import (
    DROPPED,
    SERVER_ERROR,
    STORED_AND_DROPPED,
    THROTTLED,
    FailingCloudWatch,
)
from tests.reliability.processes import Program

SECONDS = 24.0
PROCESSES = 4
REQUESTS_A_SECOND = 25.0

FAULTS: dict[str, Fault | None] = {
    "calm": None,
    "slow": None,
    "refused": None,
    "errors": SERVER_ERROR,
    "throttled": THROTTLED,
    "dropped": DROPPED,
    "stored and dropped": STORED_AND_DROPPED,
}


@dataclass(frozen=True)
class Soaked:
    """The counts of the processes, whether they were delivered, and the processes' statistics."""

    cloudwatch: FailingCloudWatch
    orders: int
    stats: list[dict[str, Any]]
    seconds: float
    phases: int


def soak(directory: Path, scale: float) -> Soaked:
    """Serve requests in all processes while CloudWatch fails; then flush."""
    source = random.Random(4)
    with ExitStack() as stack:
        cloudwatch = stack.enter_context(FailingCloudWatch())
        programs = [
            stack.enter_context(Program(cloudwatch, directory / f"log {number}")) for number in range(PROCESSES)
        ]
        for number, program in enumerate(programs):
            program.tell("serve", number, REQUESTS_A_SECOND)
        spent, phases = 0.0, 0
        while spent < SECONDS * scale:
            seconds = source.uniform(0.3, 1.5)
            fail_for(cloudwatch, source.choice(list(FAULTS)), seconds, probability=source.uniform(0.3, 1.0))
            spent += seconds
            phases += 1
        for program in programs:
            program.tell("over")
        orders = sum(program.hear() for program in programs)
        for program in programs:
            program.tell("flush", 120)
        for program in programs:
            assert program.hear(), program.said()[-5000:]
        stats = [program.do("stats") for program in programs]
    return Soaked(cloudwatch, orders, stats, spent, phases)


def test_random_faults(tmp_path: Path, scale: float, figures: Callable[..., None]) -> None:
    """No measurement is missing, and only requests that were stored without a response are duplicated."""
    result = soak(tmp_path, scale)
    cloudwatch, orders, stats = result.cloudwatch, result.orders, result.stats
    assert cloudwatch.exactly_once("Orders") == orders
    assert cloudwatch.published.count("Size") == cloudwatch.published.sum("Orders")
    assert [each["datums_lost"] for each in stats] == [{}] * PROCESSES
    assert cloudwatch.validation_errors == []
    figures(
        seconds=round(result.seconds),
        phases=result.phases,
        counted=orders,
        published_once=cloudwatch.exactly_once("Orders"),
        stored_and_not_answered=cloudwatch.repeated["Orders"],
        calls=sum(each["requests_sent"] + each["requests_failed"] for each in stats),
        failed=sum(each["requests_failed"] for each in stats),
    )


def fail_for(cloudwatch: FailingCloudWatch, kind: str, seconds: float, *, probability: float) -> None:
    """Apply a kind of fault to requests with this probability, for this number of seconds."""
    dice = random.Random(kind)
    pause = threading.Event()
    if kind == "refused":
        cloudwatch.refuse_connections()
        pause.wait(seconds)
        cloudwatch.accept_connections()
        return
    cloudwatch.latency_seconds = 0.3 if kind == "slow" else 0.0
    cloudwatch.fault = lambda _: FAULTS[kind] if dice.random() < probability else None
    pause.wait(seconds)
    cloudwatch.always(None)
    cloudwatch.latency_seconds = 0.0
