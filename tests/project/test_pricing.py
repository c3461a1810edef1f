import pytest

from otel_cloudwatch_flask.pricing import SECONDS_PER_MONTH, metrics_dollars, monthly_cost


@pytest.mark.parametrize(
    ("metrics", "dollars"),
    [
        (0, 0),
        (1, 0.30),
        (10_000, 3_000),
        (10_001, 3_000.10),
        (250_000, 3_000 + 24_000),
        (250_001, 27_000.05),
        (1_000_000, 27_000 + 37_500),
        (1_000_001, 64_500.02),
        (2_000_000, 64_500 + 20_000),
    ],
)
def test_each_tier_has_its_price(metrics: int, dollars: float) -> None:
    """The price of a tier applies only to the metrics in that tier."""
    assert metrics_dollars(metrics) == pytest.approx(dollars, rel=1e-12)


@pytest.mark.parametrize("requests", [1000, 10**9])
def test_requests_cost_a_cent_a_thousand(requests: int) -> None:
    """A thousand requests cost a cent, at any volume."""
    cost = monthly_cost(metrics=0, requests_per_second=requests / SECONDS_PER_MONTH)
    assert cost.requests_dollars == cost.dollars == pytest.approx(requests * 0.01 / 1000)


def test_a_month_has_30_days() -> None:
    """One request per second is 2,592,000 per month."""
    cost = monthly_cost(metrics=10, requests_per_second=1)
    assert (cost.requests, cost.metrics) == (2_592_000, 10)
    assert cost.dollars == pytest.approx(3.00 + 25.92)


def test_logs_are_billed_by_size() -> None:
    """One kilobyte of logs per second is 2.592 GB per month."""
    cost = monthly_cost(metrics=0, log_bytes_per_second=1000)
    assert cost.requests == 0
    assert cost.log_gigabytes == pytest.approx(2.592)
    assert cost.document()["logs_dollars"] == cost.dollars
    assert cost.dollars == pytest.approx(1.296)


def test_nothing_is_for_free() -> None:
    """No metrics and no requests cost nothing."""
    assert monthly_cost(metrics=0, requests_per_second=0).dollars == 0
