"""Examples in docstrings are correct, and docstrings of public names describe every parameter."""

import doctest
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
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
    """Every example has the documented result."""
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.attempted
    assert not outcome.failed


API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"
NOT_CALLED = {"LossReason", "CloudWatchMetricsError"}  # an enumeration and a base class


def public_functions() -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield the name and object of each class, function and method on the API page."""
    page = re.sub(r"(:members:.*)\n +:inherited-members:", r"\1 *", API_PAGE.read_text("utf-8"))
    module = ""
    for kind, name, members in re.findall(r"\.\. (currentmodule|auto[a-z]+):: (\S+)(?:\n +:members:(.*))?", page):
        if kind == "currentmodule":
            module = name
        elif kind in {"autoclass", "autofunction", "autoexception"} and name.rpartition(".")[2] not in NOT_CALLED:
            value = getattr(importlib.import_module(module), name)
            yield name, value
            yield from ((f"{name}.{each}", getattr(value, each)) for each in methods_of(value, members))


def methods_of(value: type, members: str) -> list[str]:
    """Return the names of the listed methods of a class; ``*`` means all public methods."""
    listed = re.findall(r"\w+", members)
    methods = [name for name, _ in inspect.getmembers(value, inspect.isfunction) if not name.startswith("_")]
    return methods if "*" in members else [name for name in methods if name in listed]


PUBLIC = dict(public_functions())


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_is_described(name: str) -> None:
    """The docstring of each public class, function or method describes all parameters."""
    described = re.findall(r":param (\w+):", inspect.getdoc(PUBLIC[name]) or "")
    parameters = inspect.signature(PUBLIC[name]).parameters
    assert [each for each in parameters if not each.startswith("_") and each not in {"self", *described}] == []
