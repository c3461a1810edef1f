"""Fixtures of the reliability tests: a CloudWatch emulator that fails, a scale, and figures to print.

``RELIABILITY_SCALE=5`` makes everything five times as long: an outage of 60 s, a soak of 2 minutes, 5,000 requests to
each of 8 servers, 250 forks. The default is 1, and any positive number is valid: 10 means 10,000 requests to each.
"""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.reliability.cloudwatch import FailingCloudWatch

_FIGURES = "figures"


@pytest.fixture(scope="session")
def scale() -> float:
    """The factor that scales all durations and numbers; 1 by default."""
    return float(os.environ.get("RELIABILITY_SCALE", "1"))


@pytest.fixture
def cloudwatch() -> Iterator[FailingCloudWatch]:
    """A running CloudWatch emulator that can fail."""
    with FailingCloudWatch() as failing:
        yield failing


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
