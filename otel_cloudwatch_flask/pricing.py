"""CloudWatch's prices for metrics, requests and logs in us-east-1.

The free tier (10 metrics, 1,000,000 requests and 5 GB of logs a month) is not deducted. Source:
https://aws.amazon.com/cloudwatch/pricing/
"""

import math
from dataclasses import asdict, dataclass
from typing import Final

PRICES_URL: Final = "https://aws.amazon.com/cloudwatch/pricing/"
SECONDS_PER_MONTH: Final = 30 * 24 * 3600
IDLE_SECONDS: Final = 3600.0
"""Time without a datum after which CloudWatch no longer bills a metric. It bills each hour in which there is data."""

DOLLARS_PER_METRIC_MONTH: Final = (
    (10_000, 0.30),
    (250_000, 0.10),
    (1_000_000, 0.05),
    (math.inf, 0.02),
)
"""Price tiers, as pairs of the highest number of metrics to which a price applies and the monthly price of one metric.
AWS bills metrics by the hour.
"""

DOLLARS_PER_REQUEST: Final = 0.01 / 1000
DOLLARS_PER_LOG_GIGABYTE: Final = 0.50
"""The price of ingesting a gigabyte of logs into a log group of the Standard class."""
EMF_BYTES_PER_METRIC: Final = 250
"""The typical size of a metric in EMF lines, including its share of the dimensions."""


@dataclass(frozen=True, slots=True)
class MonthlyCost:
    """The quantities that CloudWatch bills for in a month, and their costs in US dollars.

    :param metrics: number of distinct metrics.
    :param requests: number of PutMetricData requests.
    :param metrics_dollars: cost of the metrics.
    :param requests_dollars: cost of the requests.
    :param log_gigabytes: size of the EMF lines, in gigabytes.
    :param logs_dollars: cost of the EMF lines.
    """

    metrics: int
    requests: float
    metrics_dollars: float
    requests_dollars: float
    log_gigabytes: float
    logs_dollars: float

    @property
    def dollars(self) -> float:
        """The total cost of metrics, requests and logs."""
        return self.metrics_dollars + self.requests_dollars + self.logs_dollars

    def document(self) -> dict[str, float]:
        """Return all fields and the total as a JSON-serializable dictionary."""
        return {**asdict(self), "dollars": self.dollars}


def monthly_cost(*, metrics: int, requests_per_second: float = 0.0, log_bytes_per_second: float = 0.0) -> MonthlyCost:
    """Return the cost of publishing metrics for 30 days, at constant rates of requests or logs.

    :param metrics: number of distinct metrics.
    :param requests_per_second: number of PutMetricData requests per second.
    :param log_bytes_per_second: size of the EMF lines per second, in bytes.

    >>> cost = monthly_cost(metrics=50, requests_per_second=1)
    >>> f"${cost.metrics_dollars:.2f} + ${cost.requests_dollars:.2f} = ${cost.dollars:.2f}"
    '$15.00 + $25.92 = $40.92'
    """
    requests = requests_per_second * SECONDS_PER_MONTH
    log_gigabytes = log_bytes_per_second * SECONDS_PER_MONTH / 1e9
    return MonthlyCost(
        metrics=metrics,
        requests=requests,
        metrics_dollars=metrics_dollars(metrics),
        requests_dollars=requests * DOLLARS_PER_REQUEST,
        log_gigabytes=log_gigabytes,
        logs_dollars=log_gigabytes * DOLLARS_PER_LOG_GIGABYTE,
    )


def metrics_dollars(metrics: int) -> float:
    """Return the monthly cost of ``metrics`` distinct metrics.

    >>> metrics_dollars(10_000), metrics_dollars(12_000)
    (3000.0, 3200.0)
    """
    dollars, billed = 0.0, 0.0
    for up_to, price in DOLLARS_PER_METRIC_MONTH:
        # A price applies only to the metrics within its tier, not to all metrics.
        in_tier = max(min(metrics, up_to) - billed, 0.0)
        dollars += in_tier * price
        billed += in_tier
    return dollars
