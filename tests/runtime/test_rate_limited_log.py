import logging
from math import inf

import pytest

from otel_cloudwatch_flask.runtime.rate_limited_log import _MAX_KEYS, RateLimitedLog
from tests.support.fakes import FakeClock

logger = logging.getLogger("otel_cloudwatch_flask.test_rate_limited_log")


def test_once(caplog: pytest.LogCaptureFixture) -> None:
    """By default a key is logged once per process."""
    clock = FakeClock()
    limited = RateLimitedLog(logger, clock=clock)
    for _ in range(3):
        limited.warning("unit", "no unit %s", "furlong")
        clock.advance(1e9)
    limited.warning("other", "another %d", 1)
    assert caplog.messages == ["no unit furlong", "another 1"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_each_interval(caplog: pytest.LogCaptureFixture) -> None:
    """After the interval a key is logged again, and reports how many messages were suppressed."""
    clock = FakeClock()
    limited = RateLimitedLog(logger, interval_seconds=60, clock=clock)
    for _ in range(5):
        limited.warning("key", "lost %d", 7)
        clock.advance(20)
    limited.warning("key", "lost %d", 7)
    clock.advance(60)
    limited.warning("key", "lost %d", 7)
    assert caplog.messages == [
        "lost 7",
        "lost 7 (2 similar messages suppressed)",
        "lost 7 (2 similar messages suppressed)",
    ]


def test_keys_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Keys may come from clients: above a limit, new keys are neither logged nor stored."""
    limited = RateLimitedLog(logger, interval_seconds=inf)
    for i in range(_MAX_KEYS + 5):
        limited.warning(i, "%d", i)
    assert len(caplog.messages) == _MAX_KEYS


def test_level_and_exception(caplog: pytest.LogCaptureFixture) -> None:
    """The log record has the given level and exception."""
    try:
        int("why")
    except ValueError:
        RateLimitedLog(logger).error("key", "failed", exc_info=True)
    assert caplog.records[0].levelno == logging.ERROR
    assert "ValueError: invalid literal" in caplog.text
