"""Run slow scenarios in the background while other tests run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest

Scenario: TypeAlias = Callable[[Path, float], Any]
"""A function called with its own directory and the scale. Its return value becomes the fixture ``result``."""

_Test = TypeVar("_Test", bound=Callable[..., None])

_scenarios: dict[Callable[..., None], Scenario] = {}


def meanwhile(scenario: Scenario) -> Callable[[_Test], _Test]:
    """Return a decorator that starts the scenario before all tests, and runs the test after all others."""

    def decorate(test: _Test) -> _Test:
        _scenarios[test] = scenario
        return test

    return decorate


def scenario_of(item: pytest.Item) -> Scenario | None:
    """Return the scenario of a test, or ``None``."""
    return _scenarios.get(item.function) if isinstance(item, pytest.Function) else None
