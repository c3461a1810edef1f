import logging
from math import inf

import pytest

from otel_cloudwatch_flask.runtime.rate_limited_log import _MAX_KEYS, QuietLog
from tests.support.fakes import FakeClock

logger = logging.getLogger("otel_cloudwatch_flask.test_quiet_log")


def test_once(caplog: pytest.LogCaptureFixture) -> None:
    """By default a key speaks once in the life of the process."""
    clock = FakeClock()
    quiet = QuietLog(logger, clock=clock)
    for _ in range(3):
        quiet.warning("unit", "no unit %s", "furlong")
        clock.advance(1e9)
    quiet.warning("other", "another %d", 1)
    assert caplog.messages == ["no unit furlong", "another 1"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_each_interval(caplog: pytest.LogCaptureFixture) -> None:
    """After the interval a key speaks again, and says how often it was silent."""
    clock = FakeClock()
    quiet = QuietLog(logger, interval_seconds=60, clock=clock)
    for _ in range(5):
        quiet.warning("key", "lost %d", 7)
        clock.advance(20)
    quiet.warning("key", "lost %d", 7)
    clock.advance(60)
    quiet.warning("key", "lost %d", 7)
    assert caplog.messages == [
        "lost 7",
        "lost 7 (2 more like this since it was last said)",
        "lost 7 (2 more like this since it was last said)",
    ]


def test_keys_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Keys may come from clients: beyond a number of them nothing new is said, and nothing is kept."""
    quiet = QuietLog(logger, interval_seconds=inf)
    for i in range(_MAX_KEYS + 5):
        quiet.warning(i, "%d", i)
    assert len(caplog.messages) == _MAX_KEYS


def test_level_and_exception(caplog: pytest.LogCaptureFixture) -> None:
    """The level and the exception are those that were asked for."""
    try:
        int("why")
    except ValueError:
        QuietLog(logger).log(logging.ERROR, "key", "failed", exc_info=True)
    assert caplog.records[0].levelno == logging.ERROR
    assert "ValueError: invalid literal" in caplog.text
