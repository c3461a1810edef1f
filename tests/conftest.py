"""Settings for all tests: Hypothesis runs the same examples each time, without deadlines."""

import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=500,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Restore the default SIGINT handler, because shells make background jobs and their children ignore SIGINT."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def pytest_runtest_setup() -> None:
    """Reset the rate-limited logs, so that each test sees messages that are logged only once or once a minute."""
    ours = [module for name, module in tuple(sys.modules.items()) if name.startswith("otel_cloudwatch_flask")]
    for each in [each for module in ours for each in vars(module).values() if isinstance(each, RateLimitedLog)]:
        each._last_logged.clear()
