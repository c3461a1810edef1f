"""Rejected datums, and lost responses."""

import math
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from otel_cloudwatch_flask.testing.local.server import Fault
from otel_cloudwatch_flask.testing.request_rules import datums_of
from tests.reliability.cloudwatch import STORED_AND_DROPPED, FailingCloudWatch
from tests.reliability.processes import Program

DATUMS = 1000


def test_one_refused_datum_in_a_thousand(
    cloudwatch: FailingCloudWatch, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """The other datums are delivered in few calls; the rejected one is counted and logged with CloudWatch's reason."""
    names = [f"Metric {number}" for number in range(DATUMS)]
    bad = random.Random(7).choice(names)

    def refuse(parameters: Mapping[str, Any]) -> Fault | None:
        is_bad = any(datum["MetricName"] == bad for datum in datums_of(parameters))
        return Fault("InvalidParameterValue", 400) if is_bad else None

    cloudwatch.fault = refuse
    with Program(cloudwatch, tmp_path / "log", OTEL_EXPORTER_CLOUDWATCH_MAX_METRICS="2000") as program:
        program.do("add_names", names)
        assert program.do("flush", 60) is False, "one is lost"
        stats = program.do("stats")
        assert program.end() == 0
        said = program.said()
    assert {metric.name for metric in cloudwatch.published.metrics()} == set(names) - {bad}
    assert cloudwatch.published.count(names[0]) == 1
    assert (stats["datums_sent"], stats["datums_lost"], stats["datums_pending"]) == (DATUMS - 1, {"refused": 1}, 0)
    assert said.count(f"Lost a data point of {bad}: CloudWatch refused it") == 1
    assert "InvalidParameterValue" in said
    calls, at_most = cloudwatch.traffic.put_requests, 2 * math.log2(DATUMS) + 2
    assert calls <= at_most
    figures(delivered=stats["datums_sent"], lost=1, calls=calls, at_most=round(at_most, 1))


def test_a_thousand_refused_datums(
    cloudwatch: FailingCloudWatch, tmp_path: Path, scale: float, figures: Callable[..., None]
) -> None:
    """Each flush makes few calls, other datums are delivered meanwhile, and one line per minute is logged.

    Isolating all of them takes 7 minutes, so the test does this only if the scale is larger than 1.
    """
    names = [f"Bad {number}" for number in range(DATUMS)]

    def refuse(parameters: Mapping[str, Any]) -> Fault | None:
        is_bad = any(datum["MetricName"].startswith("Bad") for datum in datums_of(parameters))
        return Fault("InvalidParameterValue", 400) if is_bad else None

    cloudwatch.fault = refuse
    calls, begun = [0], time.monotonic()
    with Program(cloudwatch, tmp_path / "log", OTEL_EXPORTER_CLOUDWATCH_MAX_METRICS="2000") as program:
        program.do("add_names", names)
        while len(calls) < 4 or (scale > 1 and program.do("stats")["datums_pending"]):
            before = cloudwatch.traffic.put_requests
            program.do("add", 10)
            assert program.do("flush", 30) is False, "one is lost or pending"
            calls.append(cloudwatch.traffic.put_requests - before)
            assert cloudwatch.published.sum("Orders") == 10 * (len(calls) - 1)
            time.sleep(1 if scale > 1 else 0)
        stats, minutes = program.do("stats"), (time.monotonic() - begun) / 60
        lines = program.said().count("CloudWatch refused it")
    assert max(calls) <= 60
    assert stats["datums_lost"]["refused"] + stats["datums_pending"] == DATUMS
    assert 1 <= lines <= 1 + minutes
    figures(most_calls=max(calls), flushes=len(calls) - 1, refused=stats["datums_lost"], lines=lines, minutes=minutes)


def test_an_answer_that_is_lost(cloudwatch: FailingCloudWatch, tmp_path: Path, figures: Callable[..., None]) -> None:
    """A request stored without a response is sent again: nothing is missing, and only that request is duplicated."""
    with Program(cloudwatch, tmp_path / "log") as program:
        program.do("add", 10)
        assert program.do("flush", 30)
        cloudwatch.fail_next(STORED_AND_DROPPED)
        program.do("add", 20)
        assert program.do("flush", 30)
        program.do("add", 40)
        assert program.do("flush", 30)
        stats = program.do("stats")
    assert cloudwatch.published.sum("Orders") == 70 + 20
    assert (stats["datums_lost"], stats["requests_failed"]) == ({}, 1)
    figures(counted=70, published=cloudwatch.published.sum("Orders"), twice=20)
