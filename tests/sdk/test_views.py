"""On a provider that a reporter makes, the SDK keeps only what the rules publish."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View

from otel_cloudwatch_flask.model.rules import MetricRule
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, FacadeMetric
from otel_cloudwatch_flask.sdk.views import remember_rules, views_of

RULES = [MetricRule(match="Orders", dimensions=["payment"]), MetricRule(match="http.*", exclude=["user"])]
ATTRIBUTES: dict[str, str | bool] = {"payment": "card", "user": "u1", "http.host": "evil.example", NEGATIVE_KEY: True}


@pytest.mark.parametrize(
    ("scope", "instrument", "kept"),
    [
        ("shop", "http.requests", {"payment", "http.host", NEGATIVE_KEY}),
        ("shop", "orders", {"payment", "user", NEGATIVE_KEY}),
        (FacadeMetric("Orders", "Shop"), "orders", {"payment", NEGATIVE_KEY}),
        (FacadeMetric("Orders", "Cafe"), "orders", {"payment", "user", NEGATIVE_KEY}),
        (FacadeMetric("Orders", "Bar"), "orders", set(ATTRIBUTES)),
        (FacadeMetric("Orders", "Unknown"), "orders", set(ATTRIBUTES)),
    ],
)
def test_each_instrument_keeps_what_the_first_rule_keeps(
    scope: str | FacadeMetric, instrument: str, kept: set[str]
) -> None:
    """One stream for each instrument, with what its reporter's rule keeps; all if the provider's has no such rule."""
    remember_rules("Shop", RULES)
    remember_rules("Cafe", [])
    remember_rules("Bar", [MetricRule(match="Orders", dimensions=["user"])])
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], views=views_of("Shop"), shutdown_on_exit=False)
    if isinstance(scope, FacadeMetric):
        meter = provider.get_meter(scope.scope_name, attributes=scope.scope_attributes())
    else:
        meter = provider.get_meter(scope)
    meter.create_counter(instrument).add(1, ATTRIBUTES)
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.data.data_points
    assert set(point.attributes or ()) == kept


def test_an_sdk_that_matches_otherwise_gets_no_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that all match would publish every metric once for each rule; then rather none."""
    monkeypatch.delattr(View, "_match")
    assert views_of("Shop") == []
