"""Scenarios that mostly wait go on while other tests run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest

Scenario: TypeAlias = Callable[[Path, float], Any]
"""Called with a directory of its own and the scale; what it returns is the test's fixture ``result``."""

_Test = TypeVar("_Test", bound=Callable[..., None])

_scenarios: dict[Callable[..., None], Scenario] = {}


def meanwhile(scenario: Scenario) -> Callable[[_Test], _Test]:
    """Begin the scenario of a test before all tests, and run the test after all others."""

    def decorate(test: _Test) -> _Test:
        _scenarios[test] = scenario
        return test

    return decorate


def scenario_of(item: pytest.Item) -> Scenario | None:
    """The scenario of a test, if it has one."""
    return _scenarios.get(item.function) if isinstance(item, pytest.Function) else None
