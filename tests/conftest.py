"""Settings for all tests: Hypothesis runs the same examples each time, without deadlines. Tests can print figures."""

import signal
import sys
from collections.abc import Callable, Iterator

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

_FIGURES = "figures"


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


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """A function that records figures, which are printed at the end of the test run."""

    def note(**numbers: object) -> None:
        line = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in numbers.items())
        request.node.user_properties.append((_FIGURES, f"{request.node.name}: {line}"))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the recorded figures."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [line for report in reports for name, line in report.user_properties if name == _FIGURES]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.line(line)
