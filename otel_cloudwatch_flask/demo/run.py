"""Run the shop, the emulator and the traffic, and compare the metrics with the expectations."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Final

from otel_cloudwatch_flask.config import DEFAULT_EXPORT_INTERVAL_SECONDS, DEFAULT_FLUSH_MIN_INTERVAL_SECONDS, Output
from otel_cloudwatch_flask.delivery.batch import Batch
from otel_cloudwatch_flask.demo.comparison import Comparison, compare
from otel_cloudwatch_flask.demo.expectations import expected_series
from otel_cloudwatch_flask.demo.readback import published_series
from otel_cloudwatch_flask.demo.running_shop import VISITORS, RunningShop, running_shop
from otel_cloudwatch_flask.observation.record import Observation
from otel_cloudwatch_flask.pricing import MonthlyCost, monthly_cost
from otel_cloudwatch_flask.terminal import counted
from otel_cloudwatch_flask.testing.local.application import Traffic

NAMESPACE: Final = "Shop"
_TICK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a demo.

    :param responses: The number of responses that the visitors received.
    :param failures: Descriptions of the requests that got no response from the shop.
    :param api: How many requests, datums and bytes CloudWatch received.
    :param api_requests_per_second: The steady rate of PutMetricData requests, or of flushes if ``output`` is ``"emf"``.
    :param refusals: The errors of the requests that CloudWatch refused.
    :param delivery: The shop's ``DeliveryStats``.
    :param document: The published series in the form that other commands read with ``--from``.
    :param output: How the shop's metrics reached CloudWatch: ``"api"`` or ``"emf"``.
    """

    seconds: float
    responses: int
    failures: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    api: Traffic
    api_requests_per_second: float
    refusals: tuple[str, ...]
    delivery: Mapping[str, Any]
    document: Mapping[str, Any] = field(default_factory=dict)
    output: Output = "api"

    @property
    def metrics(self) -> int:
        """The number of metrics that CloudWatch bills. Series that differ only in unit count as one."""
        found = [each.series for each in self.comparisons if each.found is not None]
        return len({(series.name, series.dimensions) for series in found})

    @property
    def problems(self) -> list[str]:
        """Sentences about mismatches, refused requests, missing datums and metrics, and failed requests to the shop."""
        lost = {**self.delivery["datums_lost"], "pending": self.delivery["datums_pending"]}
        return [
            *(f"{_title(each)}: {text}" for each in self.comparisons for text in each.differences),
            *map("CloudWatch rejected a request: {}".format, self.refusals),
            *(f"{counted(count, 'data point')} did not arrive: {reason}." for reason, count in lost.items() if count),
            *map("A request to the shop failed: {}".format, self.failures),
            *([] if self.comparisons else ["No metrics were published."]),
        ]

    @property
    def costs(self) -> dict[str, MonthlyCost]:
        """The monthly cost with each of two flush policies: ``background``, which the demo uses, and ``interval``."""
        rates = {"background": self.api_requests_per_second, "interval": 1 / DEFAULT_EXPORT_INTERVAL_SECONDS}
        return {policy: self._cost(rate) for policy, rate in rates.items()}

    def _cost(self, flushes_per_second: float) -> MonthlyCost:
        if self.output == "api":
            return monthly_cost(metrics=self.metrics, requests_per_second=flushes_per_second)
        bytes_per_flush = self.delivery["bytes_sent"] / max(self.delivery["requests_sent"], 1)
        return monthly_cost(metrics=self.metrics, log_bytes_per_second=flushes_per_second * bytes_per_flush)


def run_demo(*, seconds: float, rate: float, output: Output, on_progress: Callable[[RunningShop], None]) -> Outcome:
    """Run the shop and the emulator, send traffic for ``seconds``, stop the shop, and compare the metrics.

    The traffic, the shop and the emulator are stopped even if an exception is raised. Raises :class:`ShopProcessError`
    if the shop does not start or does not stop.
    """
    start = datetime.now(timezone.utc)
    with running_shop(seconds=seconds, rate=rate, output=output) as shop:
        cloudwatch, traffic = shop.cloudwatch, shop.traffic
        while not traffic.wait(_TICK_SECONDS):
            on_progress(shop)
        # The arrivals are read before the shop's final flush, which would distort the rate.
        arrivals = sorted({datum.arrived_unix_time for datum in cloudwatch.published.accepted})
        # Stopping the shop flushes its last metrics, so the series are read afterwards.
        summary = shop.process.close()
        found = published_series(cloudwatch.client(), NAMESPACE, start=start, end=datetime.now(timezone.utc))
    expected = expected_series(summary.books, traffic.responses, found, visitors=VISITORS)
    # The first flush is not delayed, so the rate measured in a short demo can exceed the maximum rate of flushes.
    per_second = min(steady_rate(arrivals, traffic.elapsed_seconds), 1 / DEFAULT_FLUSH_MIN_INTERVAL_SECONDS)
    return Outcome(
        seconds=traffic.elapsed_seconds,
        responses=len(traffic.responses),
        failures=tuple(traffic.failures),
        comparisons=tuple(compare(found, expected)),
        api=cloudwatch.traffic,
        api_requests_per_second=per_second,
        refusals=tuple(map(str, cloudwatch.validation_errors)),
        delivery=summary.delivery,
        document={**observed(cloudwatch.published.requests), "requests_per_second": per_second},
        output=output,
    )


def observed(requests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarize ``requests``, which are in boto3's form, as a document that other commands read with ``--from``."""
    observation = Observation()
    for request in requests:
        observation.observe(Batch.from_body(json.dumps(request).encode()))
    return observation.document()


def steady_rate(arrivals: Sequence[float], elapsed_seconds: float) -> float:
    """Return the number of arrivals per second in the steady state.

    If there are at least three arrivals, the first is ignored because creating the client delays it.

    >>> steady_rate([10.25, 11.0, 12.0, 13.0], elapsed_seconds=4.0)
    1.0
    """
    if len(arrivals) < 3:
        return len(arrivals) / elapsed_seconds
    return (len(arrivals) - 2) / (arrivals[-1] - arrivals[1])


def _title(comparison: Comparison) -> str:
    series = comparison.series
    return f"{series.name} {{{', '.join(f'{name}={value}' for name, value in series.dimensions)}}} in {series.unit}"
