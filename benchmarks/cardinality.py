"""The cost of attribute values that clients invent: billed metrics, and memory in the process.

Requests have forged Host headers, and each measurement has a new value of a user dimension. Each scenario runs in its
own process, whose memory is read before and after. The last scenario measures the SDK alone.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, Final

from flask import Flask
from opentelemetry import metrics
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from werkzeug.test import EnvironBuilder

from benchmarks.harness import Remote, rss_bytes
from benchmarks.measured_apps import answer
from benchmarks.report import Report, table
from otel_cloudwatch_flask import (
    CloudWatchMetricExporter,
    CloudWatchMetricReader,
    CloudWatchMetricsReporter,
    MetricRule,
)
from otel_cloudwatch_flask.model.datum import OVERFLOW_DIMENSIONS, statistics_of
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch, PublishedMetric

FLUSHES: Final = 20
"""Number of flushes. The SDK keeps every attribute set, so each new one makes all later collections slower."""

_FLUSH_TIMEOUT_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a scenario. ``recorded`` and ``published`` are the same total, counted at either end."""

    recorded: float
    published: float
    metrics: int
    overflow_series: int
    seconds: float
    rss_growth_bytes: int


@dataclass(frozen=True, slots=True)
class Total:
    """The number of samples and their sum."""

    samples: float = 0.0
    amount: float = 0.0

    def plus(self, other: "Total") -> "Total":
        """Return the sum of both totals."""
        return Total(self.samples + other.samples, self.amount + other.amount)


class Tally:
    """A strict fake CloudWatch that keeps only totals, so that the client itself needs little memory."""

    def __init__(self) -> None:
        self._judge = FakeCloudWatch()
        self.totals: dict[PublishedMetric, Total] = {}

    def put_metric_data(self, **request: Any) -> Any:
        """Validate the request, and add it to the totals."""
        answer = self._judge.put_metric_data(**request)
        for accepted in self._judge.accepted:
            said = statistics_of(accepted.content)
            more = Total(said.count, said.sum)
            self.totals[accepted.metric] = self.totals.get(accepted.metric, Total()).plus(more)
        self._judge.clear()
        return answer

    def of(self, name: str) -> Total:
        """Return the total of all series with this name."""
        return reduce(Total.plus, (total for metric, total in self.totals.items() if metric.name == name), Total())

    def overflow_series(self) -> int:
        """Return the number of overflow series."""
        return sum(metric.dimensions == OVERFLOW_DIMENSIONS for metric in self.totals)


Scenario = Callable[[Tally, int], tuple[float, float]]


def hosts(tally: Tally, number: int) -> tuple[float, float]:
    """Send requests, each with a unique Host header, to an instrumented app."""
    app = Flask("shop")
    app.add_url_rule("/items/<int:item>", view_func=lambda item: f"item {item}", endpoint="item")
    reporter = CloudWatchMetricsReporter(app, "Shop", tally, instrument=True, flush="interval")
    source = random.Random(1)
    for chunk in _chunks(range(number)):
        for item in chunk:
            forged = f"{source.getrandbits(64):x}.example"
            answer(app, EnvironBuilder(path=f"/items/{item % 100}", base_url=f"http://{forged}").get_environ())
        reporter.flush(_FLUSH_TIMEOUT_SECONDS)
    reporter.shutdown()
    return number, tally.of("http.server.duration").samples


def users_through_add_metric(tally: Tally, number: int) -> tuple[float, float]:
    """Call ``add_metric`` with the user's ID as a dimension."""
    reporter = CloudWatchMetricsReporter(Flask("shop"), "Shop", tally, flush="interval")
    for chunk in _chunks(range(number)):
        for user in chunk:
            reporter.add_metric("Orders", user % 7, "Count", {"User": f"user{user}"})
        reporter.flush(_FLUSH_TIMEOUT_SECONDS)
    reporter.shutdown()
    return sum(user % 7 for user in range(number)), tally.of("Orders").amount


def users_through_a_counter(tally: Tally, number: int) -> tuple[float, float]:
    """Count with an OpenTelemetry counter and the user's ID as an attribute."""
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=tally))
    counter = MeterProvider([reader], shutdown_on_exit=False).get_meter("shop").create_counter("orders")
    for chunk in _chunks(range(number)):
        for user in chunk:
            counter.add(user % 7, {"user.id": f"user{user}"})
        reader.flush(_FLUSH_TIMEOUT_SECONDS)
    reader.shutdown()
    return sum(user % 7 for user in range(number)), tally.of("orders").amount


def users_left_out_by_a_rule(tally: Tally, number: int) -> tuple[float, float]:
    """Count with the same counter on a reporter's provider; a rule drops the attribute before the SDK stores it."""
    rule = MetricRule(match="orders", exclude=["user.*"])
    reporter = CloudWatchMetricsReporter(Flask("shop"), "Shop", tally, flush="interval", rules=[rule])
    counter = metrics.get_meter("shop").create_counter("orders")
    for chunk in _chunks(range(number)):
        for user in chunk:
            counter.add(user % 7, {"user.id": f"user{user}", "payment": "card"})
        reporter.flush(_FLUSH_TIMEOUT_SECONDS)
    reporter.shutdown()
    return sum(user % 7 for user in range(number)), tally.of("orders").amount


def users_of_the_sdk_alone(_tally: Tally, number: int) -> tuple[float, float]:
    """Count with the same counter and a reader that collects as often, but publishes nothing."""
    reader = InMemoryMetricReader(preferred_temporality={Counter: AggregationTemporality.DELTA})
    counter = MeterProvider([reader], shutdown_on_exit=False).get_meter("shop").create_counter("orders")
    for chunk in _chunks(range(number)):
        for user in chunk:
            counter.add(user % 7, {"user.id": f"user{user}"})
        reader.get_metrics_data()
    return sum(user % 7 for user in range(number)), 0


SCENARIOS: Final[dict[str, Scenario]] = {
    "requests with random Host headers": hosts,
    "users, through add_metric": users_through_add_metric,
    "users, through a counter": users_through_a_counter,
    "users, through a counter, a rule leaves them out": users_left_out_by_a_rule,
    "users, the SDK's counter alone": users_of_the_sdk_alone,
}


def run(*, short: bool) -> Report:
    """Run every scenario, and return the table of outcomes."""
    number = 8_000 if short else 100_000
    title = f"{number:,} forged attribute values, {FLUSHES} flushes, max_metrics=1000"
    headings = ("", "metrics", "overflow series", "recorded", "published", "seconds", "RSS growth, MiB")
    return Report([table(title, headings, (_row(scenario, number) for scenario in SCENARIOS))])


def _row(title: str, number: int) -> tuple[str, ...]:
    with Remote(partial, outcome_of, title) as scenario:
        outcome: Outcome = scenario(number)
    return (
        title,
        str(outcome.metrics),
        str(outcome.overflow_series),
        f"{outcome.recorded:,.0f}",
        f"{outcome.published:,.0f}",
        f"{outcome.seconds:.1f}",
        f"{outcome.rss_growth_bytes / 2**20:.0f}",
    )


def outcome_of(title: str, number: int) -> Outcome:
    """Run one scenario in this process, and return its outcome."""
    tally = Tally()
    SCENARIOS[title](Tally(), FLUSHES)  # imports modules and fills caches that any use needs
    rss = rss_bytes()
    begun = time.perf_counter()
    recorded, published = SCENARIOS[title](tally, number)
    seconds = time.perf_counter() - begun
    return Outcome(
        recorded=recorded,
        published=published,
        metrics=len(tally.totals),
        overflow_series=tally.overflow_series(),
        seconds=seconds,
        rss_growth_bytes=rss_bytes() - rss,
    )


def _chunks(numbers: range) -> Iterator[range]:
    """Split the numbers into as many parts as there are flushes."""
    size = max(1, len(numbers) // FLUSHES)
    return (numbers[start : start + size] for start in range(0, len(numbers), size))
