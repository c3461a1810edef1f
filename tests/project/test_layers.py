"""The architecture as a table: imports point only downward, and few modules depend on external packages."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import opentelemetry.sdk.metrics
import pytest

import otel_cloudwatch_flask

PACKAGE = Path(otel_cloudwatch_flask.__file__).parent

# Folders and root modules from the bottom up, and the modules of each folder in the same order. A module may import
# only modules listed before it.
LAYERS: list[tuple[str, list[str]]] = [
    ("", ["version", "errors", "limits", "pricing"]),
    ("runtime", ["process", "safe_text", "rate_limited_log", "live_objects"]),
    ("histograms", ["buckets", "interpolation", "values_counts"]),
    ("model", ["datum", "dimension_arguments", "http_metrics", "scope", "units", "dimensions", "rules", "entity"]),
    ("", ["config"]),
    ("delivery", ["batch", "compaction", "error_codes", "emf", "stats", "boto_client", "spool", "backlog", "sender"]),
    (
        "mapping",
        ["cardinality", "metric_streams", "temporality", "data_points", "series_cache", "merging", "mapper"],
    ),
    ("observation", ["tally", "record"]),
    ("sdk", ["internals", "self_metrics", "exporter", "reader", "entry_points"]),
    ("facade", ["call_cache", "arguments", "timer", "recorder", "wsgi"]),
    ("live_page", ["access", "remedies", "page_data", "messages", "observations", "blueprint"]),
    ("flask_extension", ["reporter_reader", "provider_setup", "registration", "reporter"]),
    ("", ["__init__", "decorator"]),
    ("testing", ["request_rules", "emf_lines", "published", "alarm_state", "fake", "intercept"]),
    ("testing/local", ["json_protocol", "queries", "application", "server"]),
    ("", ["pytest_plugin", "terminal"]),
    (
        "demo",
        [
            *("comparison", "isolation", "server", "shop_process", "load_generator", "comparison_table"),
            *("expectations", "running_shop", "readback", "run", "report"),
        ],
    ),
    ("commands/shared", ["command", "user_app", "document", "aws", "series_source", "request_file"]),
    (
        "commands/doctor_checks",
        ["check", "aws", "audit", "auto_instrumentation", "instrumentation", "server", "settings"],
    ),
    (
        "commands/reports",
        [
            *("cost_estimate", "cost_gate", "request_series", "template_formats"),
            *("alarm_template", "scaling_template", "dashboard_body"),
        ],
    ),
    ("commands", ["alarms", "cost", "dashboard", "demo", "doctor", "policy", "preview", "scaling"]),
    ("", ["cli", "__main__"]),
]
ORDER = [f"{folder}/{module}".lstrip("/") for folder, modules in LAYERS for module in modules]

PURE = {"histograms", "model", "mapping"}
KNOW_OPENTELEMETRYS_DATA = {"mapping", "model/scope"}
KNOW_BOTO3 = {"delivery/boto_client", "testing", "demo", "commands"}
KNOW_FLASK = {"flask_extension/reporter", "live_page", "demo", "commands"}
KNOW_WERKZEUG = {*KNOW_FLASK, "decorator", "testing/local"}
START_THREADS = {"sdk/reader", "testing/local/server", "demo"}
USE_PRIVATE_NAMES_OF_THE_SDK = {"sdk/internals"}

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
MOST_MODULES_IN_A_FOLDER = 14


@cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of every module, by its path below the package, without the extension."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(PACKAGE).with_suffix("").as_posix(): ast.parse(path.read_text("utf-8")) for path in paths}


def is_in(module: str, places: set[str]) -> bool:
    """Return whether a module is among these, or in a folder that is."""
    return any(module == place or module.startswith(f"{place}/") for place in places)


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield all imports of a module, at any depth; those of this package's modules have a leading slash."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            below = (node.module or "").split(".")[1:]
            yield from ("/" + _module("/".join([*below, alias.name])) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def _module(path: str) -> str:
    """Return the module for a path: the module itself, its package, or the module that defines the last part."""
    candidates = (path, f"{path}/__init__", path.rpartition("/")[0], f"{path.rpartition('/')[0]}/__init__".lstrip("/"))
    return next(each for each in candidates if each in trees())


def importers_of(*roots: str) -> set[str]:
    """Return the modules that import these packages or anything inside them."""
    return {name for name, tree in trees().items() if any(each.split(".")[0] in roots for each in imports(tree))}


def test_every_module_has_its_place() -> None:
    """The table lists every module, and each listed module exists."""
    in_folders = {name for name in trees() if "/" not in name or not name.endswith("/__init__")}
    assert in_folders == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


def test_no_folder_is_crowded() -> None:
    """No folder has more modules than the limit."""
    folders = [path.parent for path in PACKAGE.rglob("*.py")]
    assert max(map(folders.count, folders)) <= MOST_MODULES_IN_A_FOLDER


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_downwards(module: str) -> None:
    """A module imports only modules listed before it in the table."""
    imported = {each.removeprefix("/") for each in imports(trees()[module]) if each.startswith("/")}
    below = {*ORDER[: ORDER.index(module)], *(f"{folder}/__init__" for folder, _ in LAYERS)}
    assert imported - below - {module} == set()


@pytest.mark.parametrize("module", [name for name in ORDER if is_in(name, PURE)])
def test_pure_modules_know_nothing_outside(module: str) -> None:
    """Pure modules use no clock, thread, environment, network or framework."""
    roots = {each.split(".")[0] for each in imports(trees()[module])}
    assert roots & OUTSIDE == set()
    assert "opentelemetry" not in roots or is_in(module, KNOW_OPENTELEMETRYS_DATA)


@pytest.mark.parametrize(
    ("packages", "places"),
    [(("boto3", "botocore"), KNOW_BOTO3), (("flask",), KNOW_FLASK), (("werkzeug",), KNOW_WERKZEUG)],
)
def test_few_know_a_framework(packages: tuple[str, ...], places: set[str]) -> None:
    """A framework is imported only by the modules listed here, so few modules change with it."""
    assert {name for name in importers_of(*packages) if not is_in(name, places)} == set()


def test_few_start_threads() -> None:
    """Threads are started only by the modules listed here."""
    starters = {
        name
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"threading.Thread", "Thread"}
    }
    assert {name for name in starters if not is_in(name, START_THREADS)} == set()


def private_names_of_the_sdk() -> set[str]:
    """Return the private attributes and functions in the source of the SDK's metrics."""
    sources = Path(opentelemetry.sdk.metrics.__file__).parent.rglob("*.py")
    return {name for path in sources for name in re.findall(r"(?:\.|def )(_[a-z]\w*)", path.read_text("utf-8"))}


def names_used(tree: ast.Module) -> set[str]:
    """Return the attributes that a module uses, except those of ``self`` that the module itself defines."""
    nodes = list(ast.walk(tree))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    own |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
    by_name = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("attr")]
    return {
        *(node.attr for node in attributes if not _is_self(node.value) or node.attr not in own),
        *(str(each.value) for node in by_name for each in node.args if isinstance(each, ast.Constant)),
    }


def _is_self(node: ast.expr) -> bool:
    return ast.unparse(node) in {"self", "cls", "super()"}


def test_one_module_uses_private_names_of_the_sdk() -> None:
    """Private names of the SDK are used only by the modules listed here, which handle their absence."""
    private = private_names_of_the_sdk()
    assert {name for name, tree in trees().items() if names_used(tree) & private} == USE_PRIVATE_NAMES_OF_THE_SDK


def test_nothing_internal_is_imported() -> None:
    """No internal modules of other packages are imported. ``_thread`` is a documented module in spite of its name."""
    internal = {
        (name, each)
        for name, tree in trees().items()
        for each in imports(tree)
        if not each.startswith("/") and any(part.startswith("_") for part in each.split("."))
    }
    assert {(name, each) for name, each in internal if each not in {"_typeshed.wsgi", "_thread"}} == set()
