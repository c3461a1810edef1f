"""The architecture as a table: imports point downwards only, and what is outside is known in few places."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import otel_cloudwatch_flask

PACKAGE = Path(otel_cloudwatch_flask.__file__).parent

# From the bottom up, and inside a layer too: a module may import those that stand before it, and no other.
LAYERS = {
    "what can go wrong, and the service's numbers": ["version", "errors", "limits", "pricing"],
    "pure tables and arithmetic": [
        "units",
        "magnitudes",
        "histogram",
        "density",
        "distribution",
        "value_counts",
        "temporality",
        "foreign_text",
        "failures",
        "facade_dimensions",
        "entry",
    ],
    "what travels, and what is published of it": ["datum", "dimensions", "entity", "cardinality", "rules"],
    "the tools of whoever waits, counts or speaks": [
        "quiet_log",
        "ledger",
        "group_commit",
        "courier",
        "process_lifecycle",
    ],
    "settings": ["config"],
    "what the SDK gives and takes": ["sdk_internals", "facade_scope", "collection_hook", "aggregation", "views"],
    "OpenTelemetry's data as datums, and datums as bytes": [
        "points",
        "sources",
        "wire",
        "merging",
        "slots",
        "mapping",
        "compaction",
    ],
    "what waits, and how it is sent": ["spool", "backlog", "boto_client", "delivery"],
    "OpenTelemetry's plugs": ["exporter", "reader"],
    "what was sent, to look at": ["observation"],
    "the facade without Flask": [
        "timer",
        "known_series",
        "deferral",
        "recorder",
        "request_end",
        "owned_meters",
        "self_metrics",
        "reporter_reader",
        "attachment",
        "registration",
    ],
    "the facade in Flask": ["decorator", "live_page", "extension"],
    "a CloudWatch for tests and demonstrations": [
        "validation",
        "dashboard_validation",
        "aws_protocols",
        "accepted_datum",
        "published_listing",
        "published",
        "published_queries",
        "testing",
        "interception",
        "pytest_plugin",
        "cloudwatch_gate",
        "local_cloudwatch",
    ],
    "programs": ["demo", "commands", "cli", "__main__"],
    "the public names": ["__init__"],
}
ORDER = [module for modules in LAYERS.values() for module in modules]

PURE = {
    *LAYERS["what can go wrong, and the service's numbers"],
    *LAYERS["pure tables and arithmetic"],
    *LAYERS["what travels, and what is published of it"],
    *LAYERS["OpenTelemetry's data as datums, and datums as bytes"],
    "validation",
    "dashboard_validation",
    "aws_protocols",
    "facade_scope",
}
KNOW_OPENTELEMETRYS_DATA = {"points", "sources", "slots", "mapping", "facade_scope"}
KNOW_BOTO3 = {"boto_client", "testing", "local_cloudwatch", "demo", "commands"}
KNOW_FLASK = {"extension", "decorator", "live_page", "demo", "commands"}
KNOW_WERKZEUG = {*KNOW_FLASK, "cloudwatch_gate", "local_cloudwatch"}
START_THREADS = {"courier", "reader", "local_cloudwatch", "demo"}

OUTSIDE = {
    "threading",
    "queue",
    "time",
    "os",
    "socket",
    "subprocess",
    "random",
    "boto3",
    "botocore",
    "flask",
    "werkzeug",
}


def unit(path: Path) -> str:
    """The name in the table: that of the module, or of the folder it is in."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def trees() -> tuple[tuple[str, ast.Module], ...]:
    """The name and the syntax of every module."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return tuple((unit(path), ast.parse(path.read_text("utf-8"), str(path))) for path in paths)


def imports(tree: ast.Module) -> Iterator[str]:
    """Everything a module imports, wherever in it that is written; of this package, the module's name after a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "otel_cloudwatch_flask":
            yield from (f"otel_cloudwatch_flask.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def importers_of(*roots: str) -> set[str]:
    """The modules that import one of these packages, or anything in them."""
    return {name for name, tree in trees() if any(each.split(".")[0] in roots for each in imports(tree))}


def test_every_module_has_its_place() -> None:
    """A new module gets a line in the table above, one that is gone loses it, and nothing stands twice."""
    assert {name for name, _ in trees()} == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_downwards(module: str) -> None:
    """A module imports only those below it in the table."""
    prefix = "otel_cloudwatch_flask."
    imported = {
        each.removeprefix(prefix).split(".")[0]
        for name, tree in trees()
        if name == module
        for each in imports(tree)
        if each.startswith(prefix)
    }
    below = set(ORDER[: ORDER.index(module)])
    assert imported - below - ({module} if (PACKAGE / module).is_dir() else set()) == set()


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_know_nothing_outside(module: str) -> None:
    """Tables and arithmetic have no clock, no thread, no environment, no network and no framework."""
    (tree,) = [tree for name, tree in trees() if name == module]
    roots = {each.split(".")[0] for each in imports(tree)}
    assert roots & OUTSIDE == set()
    assert "opentelemetry" not in roots or module in KNOW_OPENTELEMETRYS_DATA


def test_few_know_boto3() -> None:
    """boto3 and botocore are known to the maker of clients and to what stands in for CloudWatch."""
    assert importers_of("boto3", "botocore") <= KNOW_BOTO3


def test_few_know_flask() -> None:
    """Flask is known to the extension only; werkzeug, beside it, to the decorators and the CloudWatch on loopback."""
    assert importers_of("flask") <= KNOW_FLASK
    assert importers_of("werkzeug") <= KNOW_WERKZEUG


def test_few_start_threads() -> None:
    """Threads are started in few places."""
    starters = {
        name
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"threading.Thread", "Thread"}
    }
    assert starters <= START_THREADS


def test_nothing_internal_is_imported() -> None:
    """Nothing is imported from what other packages call internal."""
    internal = {
        (name, each)
        for name, tree in trees()
        for each in imports(tree)
        if not each.startswith("otel_cloudwatch_flask") and any(part.startswith("_") for part in each.split("."))
    }
    assert {(name, each) for name, each in internal if each != "_typeshed.wsgi"} == set()
