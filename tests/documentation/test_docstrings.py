"""The examples in docstrings are correct."""

import doctest
import importlib
from pathlib import Path

import pytest

import otel_cloudwatch_flask

PACKAGE = Path(otel_cloudwatch_flask.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("module", MODULES)
def test_doctests(module: str) -> None:
    """Every example gives the documented result."""
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.attempted
    assert not outcome.failed
