"""Fixtures of the reliability tests: a CloudWatch emulator that fails, a scale, and figures to print.

Slow scenarios run in the background from the first test on, and the last tests check them: see ``background.py``.

``RELIABILITY_SCALE=5`` makes everything five times as long: an outage of 60 s, a soak of 2 minutes, 5,000 requests to
each of 8 servers, 250 forks. The default is 1, and any positive number is valid: 10 means 10,000 requests to each.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.reliability.cloudwatch import FailingCloudWatch
from tests.support.background import scenario_of

_figures = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def scale() -> float:
    """The factor that scales all durations and numbers; 1 by default."""
    return float(os.environ.get("RELIABILITY_SCALE", "1"))


@pytest.fixture(scope="session", autouse=True)
def scenarios(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, scale: float
) -> "Iterator[dict[str, Future[Any]]]":
    """The running background scenarios, by the node ID of their test."""
    of_tests = {item.nodeid: scenario_of(item) for item in request.session.items}
    with ThreadPoolExecutor(max_workers=len(of_tests)) as pool:
        yield {
            nodeid: pool.submit(scenario, tmp_path_factory.mktemp("scenario"), scale)
            for nodeid, scenario in of_tests.items()
            if scenario is not None
        }


@pytest.fixture
def result(request: pytest.FixtureRequest, scenarios: "dict[str, Future[Any]]") -> Any:
    """The result of the test's background scenario."""
    return scenarios[request.node.nodeid].result()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests with a background scenario last."""
    items.sort(key=lambda item: scenario_of(item) is not None)


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
        request.config.stash.setdefault(_figures, []).append(f"{request.node.name}: {line}")

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the recorded figures."""
    lines = config.stash.get(_figures, [])
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.line(line)
