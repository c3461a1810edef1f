"""The public names, and what importing them loads."""

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable

import pytest

import otel_cloudwatch_flask
from otel_cloudwatch_flask import (
    CloudWatchMetricExporter,
    CloudWatchMetricReader,
    CloudWatchMetricsReporter,
    MetricRule,
    decorator,
    errors,
    testing,
)

PUBLIC_NAMES = {
    "CloudWatchMetricExporter",
    "CloudWatchMetricReader",
    "CloudWatchMetricsReporter",
    "DeliveryStats",
    "MetricRule",
    "get_metrics",
    "initialize_metrics",
}


def test_public_names() -> None:
    """The package exports these names and no others."""
    assert set(otel_cloudwatch_flask.__all__) == PUBLIC_NAMES
    assert all(hasattr(otel_cloudwatch_flask, name) for name in PUBLIC_NAMES)
    assert set(decorator.__all__) == {"fault_failure_error", "request_count"}
    assert "FakeCloudWatch" in testing.__all__
    assert set(errors.__all__) == {"CloudWatchMetricsError", "ConfigurationError", "InvalidMetricError"}
    assert issubclass(errors.ConfigurationError, errors.CloudWatchMetricsError)
    assert issubclass(errors.InvalidMetricError, errors.CloudWatchMetricsError)


REPORTER_SIGNATURES = {
    "__init__": "self app namespace cloudwatch_client * region_name meter_provider flush flush_min_interval_seconds "
    "export_interval_seconds default_dimensions rules output stream instrument strict",
    "init_app": "self app namespace options",
    "new_reporter": "app namespace aws_region_name aws_access_key_id aws_secret_access_key",
    "add_metric": "metric_name value unit dimensions",
    "timer": "self metric_name dimensions",
    "label": "self dimensions",
    "flush": "self timeout_seconds",
    "stats": "self",
    "shutdown": "self timeout_seconds",
}


@pytest.mark.parametrize(("method", "parameters"), REPORTER_SIGNATURES.items())
def test_reporter_signatures(method: str, parameters: str) -> None:
    """The reporter's methods have these parameters, in this order."""
    signature = inspect.signature(getattr(CloudWatchMetricsReporter, method))
    positional = [name for name, each in signature.parameters.items() if each.kind is not each.KEYWORD_ONLY]
    keywords = [name for name, each in signature.parameters.items() if each.kind is each.KEYWORD_ONLY]
    assert " ".join([*positional, *(["*", *keywords] if keywords else [])]) == parameters


@pytest.mark.parametrize(
    ("function", "defaults"),
    [
        (CloudWatchMetricExporter, {"max_metrics": 1000, "max_backlog_bytes": 64 * 2**20}),
        (CloudWatchMetricReader, {"export_interval_seconds": 60.0, "flush_min_interval_seconds": 10.0}),
        (CloudWatchMetricsReporter, {"export_interval_seconds": 60.0, "flush_min_interval_seconds": None}),
    ],
)
def test_signatures_show_the_default_settings(function: Callable[..., object], defaults: dict[str, float]) -> None:
    """Signatures show numbers as defaults, although an omitted argument can also be set in the environment."""
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in defaults} == defaults


def test_rule_signature() -> None:
    """The pattern of a rule can be passed by position, as in ``MetricRule("http.*", drop=True)``."""
    match, *others = inspect.signature(MetricRule).parameters.values()
    assert (match.name, match.kind) == ("match", match.POSITIONAL_OR_KEYWORD)
    assert {each.kind for each in others} == {match.KEYWORD_ONLY}
    assert MetricRule("http.*", drop=True) == MetricRule(match="http.*", drop=True)


def test_the_reporter_has_no_other_public_methods() -> None:
    """Methods that the table does not list are private."""
    public = {name for name in vars(CloudWatchMetricsReporter) if not name.startswith("_")}
    assert public == set(REPORTER_SIGNATURES) - {"__init__"}


def test_import_is_light() -> None:
    """Importing the package does not import boto3 or the instrumentation, which are loaded on first use."""
    heavy = ["boto3", "botocore", "opentelemetry.instrumentation.flask"]
    assert imported_of(heavy, "from otel_cloudwatch_flask import *") == []


LIVE_PAGE = ["otel_cloudwatch_flask.live_page", "otel_cloudwatch_flask.observation.record"]


def test_import_is_without_the_live_page() -> None:
    """Importing all public names does not import the live page or the modules it uses."""
    assert imported_of(LIVE_PAGE, "from otel_cloudwatch_flask import *") == []


@pytest.mark.parametrize(
    ("debug", "setting", "expected"), [(True, False, []), (False, None, []), (True, None, LIVE_PAGE)]
)
def test_who_has_no_live_page_imports_none(debug: bool, setting: bool | None, expected: list[str]) -> None:  # noqa: FBT001
    """An app without the live page never imports it, even if instrumented; other apps import it at setup."""
    program = f"""if True:
        import flask
        from otel_cloudwatch_flask import CloudWatchMetricsReporter
        app = flask.Flask("shop")
        app.debug = {debug}
        app.config.update(CLOUDWATCH_LIVE_PAGE={setting}, CLOUDWATCH_DRY_RUN=True)
        CloudWatchMetricsReporter(app, "Shop", instrument=True)
    """
    assert imported_of(LIVE_PAGE, program) == expected


def imported_of(names: list[str], program: str) -> list[str]:
    """Return those of these modules that a program imports."""
    program = f"{program}\nimport sys; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found: list[str] = ast.literal_eval(done.stdout)
    return found
