"""Run scenarios that mostly wait in the background while other tests run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest

Scenario: TypeAlias = Callable[[Path, float], Any]
"""Called with its own directory and the scale; the return value becomes the test's fixture ``result``."""

_Test = TypeVar("_Test", bound=Callable[..., None])

_scenarios: dict[Callable[..., None], Scenario] = {}


def meanwhile(scenario: Scenario) -> Callable[[_Test], _Test]:
    """Start a test's scenario before all tests, and run the test after all others."""

    def decorate(test: _Test) -> _Test:
        _scenarios[test] = scenario
        return test

    return decorate


def scenario_of(item: pytest.Item) -> Scenario | None:
    """Return the scenario of a test, if any."""
    return _scenarios.get(item.function) if isinstance(item, pytest.Function) else None
