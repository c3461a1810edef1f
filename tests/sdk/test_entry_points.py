"""The entry points for ``OTEL_METRICS_EXPORTER`` and for OpenTelemetry's configuration file."""

import sys
from typing import Any

import pytest
from flask import Flask

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader
from otel_cloudwatch_flask import config as config_module
from otel_cloudwatch_flask.commands.doctor_checks.settings import settings_checks
from otel_cloudwatch_flask.commands.shared.user_app import UserApp
from otel_cloudwatch_flask.config import Settings
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.sdk.entry_points import CloudWatchComponent, pull_reader

component: Any = CloudWatchComponent
"""The component as the SDK uses it, which does not know the type of its result."""


@pytest.fixture(autouse=True)
def _without_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget all configuration files, before and after the test."""
    monkeypatch.setattr(config_module, "_file_fields", {})
    monkeypatch.delenv("OTEL_CONFIG_FILE", raising=False)
    monkeypatch.delitem(sys.modules, "opentelemetry.configuration", raising=False)


def test_the_environment_gets_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a configuration file, the SDK gets a reader, which reporters can share; with one, an exporter."""
    reader = component()
    assert isinstance(reader, CloudWatchMetricReader)
    reader.shutdown(timeout_millis=0)
    monkeypatch.setenv("OTEL_CONFIG_FILE", "otel.yaml")
    assert isinstance(component(), CloudWatchMetricExporter)


def test_fields_are_settings() -> None:
    """Fields take precedence over the environment; arguments and app.config take precedence over fields."""
    exporter = component(namespace="File", max_metrics=7)
    assert isinstance(exporter, CloudWatchMetricExporter)
    assert (exporter.settings.namespace, exporter.settings.max_metrics) == ("File", 7)
    environ = {"OTEL_EXPORTER_CLOUDWATCH_NAMESPACE": "Environment", "OTEL_EXPORTER_CLOUDWATCH_REGION": "eu-west-1"}
    settings = Settings.resolve(
        arguments={"max_metrics": 5}, app_config={"CLOUDWATCH_NAMESPACE": "App"}, environ=environ
    )
    assert (settings.namespace, settings.max_metrics, settings.region_name) == ("App", 5, "eu-west-1")
    settings = Settings.resolve(arguments={}, app_config={}, environ=environ)
    assert (settings.namespace, settings.max_metrics) == ("File", 7)


def test_a_reader_with_fields() -> None:
    """The reader of the pull form has the intervals and the exporter settings from the file."""
    reader = pull_reader(namespace="File", export_interval_seconds=20, rules=[{"match": "a", "drop": True}])
    settings = reader.settings
    reader.shutdown(timeout_millis=0)
    assert (settings.namespace, settings.export_interval_seconds, settings.rules[0].drop) == ("File", 20, True)


def test_the_last_file_counts() -> None:
    """A second file replaces all fields of the first."""
    component(max_metrics=7)
    component(namespace="Second")
    settings = Settings.resolve(arguments={}, app_config={}, environ={})
    assert (settings.namespace, settings.max_metrics) == ("Second", 1000)


@pytest.mark.parametrize(("field", "guess"), [("namspace", " Did you mean 'namespace'?"), ("xyz", "")])
def test_an_unknown_field(field: str, guess: str) -> None:
    """The error names the unknown field and lists the valid ones."""
    with pytest.raises(ConfigurationError) as caught:
        pull_reader(**{field: "Shop"})
    assert str(caught.value).startswith(
        f"The cloudwatch exporter has no field {field!r}.{guess} Its fields are namespace, region_name, flush, "
    )


def test_an_invalid_field() -> None:
    """The error names the source and the value, and says what is allowed."""
    with pytest.raises(ConfigurationError, match=r"^configuration file: max_metrics=-1 is not a positive integer"):
        component(max_metrics=-1)


def test_doctor_names_the_file() -> None:
    """Doctor names the configuration file as the source of a setting."""
    component(max_metrics=7)
    findings = [check.finding for check in settings_checks(UserApp(Flask("shop"), {}))]
    assert "MAX_METRICS: 7 (configuration file: max_metrics)" in findings
