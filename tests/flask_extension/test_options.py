"""The options of a reporter, which both its constructor and ``init_app`` accept."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask import CloudWatchMetricsReporter, MetricRule
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch


@pytest.fixture
def reporter() -> Iterator[CloudWatchMetricsReporter]:
    """A reporter without an app, on its own provider."""
    reporter = CloudWatchMetricsReporter(meter_provider=MeterProvider(), export_interval_seconds=3600)
    yield reporter
    reporter.shutdown(timeout_seconds=1)


def settings_of(app: Flask) -> Any:
    """Return the settings with which the app's reporter publishes."""
    return app.extensions["cloudwatch_metrics"].registration.settings


def test_init_app_takes_what_the_constructor_takes(reporter: CloudWatchMetricsReporter) -> None:
    """``init_app`` accepts the namespace, a client and every other option, and they take effect."""
    app, cloudwatch = Flask("shop"), FakeCloudWatch()
    reporter.init_app(
        app, "Shop", cloudwatch_client=cloudwatch, instrument=True, flush="interval", default_dimensions={"Stage": "a"}
    )
    reporter.add_metric("Orders", 1, "Count")
    assert app.test_client().get("/", buffered=True).status_code == 404
    assert reporter.flush()
    assert cloudwatch.sum("Orders", namespace="Shop", Stage="a") == 1
    assert cloudwatch.count("http.server.duration", namespace="Shop") == 1
    assert settings_of(app).flush == "interval"


def test_options_of_init_app_are_for_that_app_only(reporter: CloudWatchMetricsReporter) -> None:
    """Options of ``init_app`` take precedence over the constructor's, and apply only to that app."""
    first, second = Flask("first"), Flask("second")
    reporter.init_app(first, "First", export_interval_seconds=7, region_name="eu-west-1")
    reporter.init_app(second)
    assert (settings_of(first).namespace, settings_of(first).export_interval_seconds) == ("First", 7)
    assert settings_of(first).region_name == "eu-west-1"
    assert (settings_of(second).namespace, settings_of(second).export_interval_seconds) == (None, 3600)


def test_rules_of_init_app_may_be_empty() -> None:
    """An empty list of rules that is passed to ``init_app`` takes precedence over the constructor's rules."""
    rule = MetricRule(match="Orders", drop=True)
    reporter = CloudWatchMetricsReporter(rules=iter([rule]), meter_provider=MeterProvider())
    first, second, third = Flask("first"), Flask("second"), Flask("third")
    reporter.init_app(first)
    reporter.init_app(second, rules=[])
    reporter.init_app(third)
    assert [settings_of(app).rules for app in (first, second, third)] == [(rule,), (), (rule,)]
    reporter.shutdown(timeout_seconds=1)


@pytest.mark.parametrize("misspelt", ["flsh", "rules_", "client", "app"])
def test_an_unknown_option(reporter: CloudWatchMetricsReporter, misspelt: str) -> None:
    """An option that does not exist raises ``TypeError``, as it does in the constructor."""
    options: Any = {misspelt: None}
    with pytest.raises(TypeError, match=misspelt):
        reporter.init_app(Flask("shop"), "Shop", **options)


def test_the_region_is_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """``region_name`` of the constructor takes precedence over ``app.config`` and the environment."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    app = Flask("shop")
    app.config["CLOUDWATCH_REGION"] = "eu-west-2"
    reporter = CloudWatchMetricsReporter(app, "Shop", region_name="eu-west-3", meter_provider=MeterProvider())
    assert settings_of(app).region_name == "eu-west-3"
    reporter.shutdown(timeout_seconds=1)


def test_short_names_in_the_environment(reporter: CloudWatchMetricsReporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """``CLOUDWATCH_<KEY>`` is read from the environment if its long form is not set, and errors name it."""
    monkeypatch.setenv("CLOUDWATCH_FLUSH", "interval")
    monkeypatch.setenv("CLOUDWATCH_NAMESPACE", "Short")
    monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_NAMESPACE", "Long")
    app = Flask("shop")
    reporter.init_app(app)
    assert (settings_of(app).flush, settings_of(app).namespace) == ("interval", "Long")
    monkeypatch.setenv("CLOUDWATCH_FLUSH", "often")
    with pytest.raises(ConfigurationError, match=r"^CLOUDWATCH_FLUSH='often' is not a flush policy"):
        reporter.init_app(Flask("cafe"))


def test_a_misspelt_short_name(
    reporter: CloudWatchMetricsReporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names the setting that a misspelt variable probably means."""
    monkeypatch.setenv("CLOUDWATCH_NAMESPCE", "Shop")
    with caplog.at_level(logging.WARNING):
        reporter.init_app(Flask("shop"))
    assert "Unknown setting CLOUDWATCH_NAMESPCE is ignored; did you mean CLOUDWATCH_NAMESPACE?" in caplog.text
