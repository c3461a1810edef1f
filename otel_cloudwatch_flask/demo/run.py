"""Run the shop, the emulator and the traffic, and compare the metrics with the expectations."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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
_FLUSHES_PER_SECOND: Final = {
    "background": 1 / DEFAULT_FLUSH_MIN_INTERVAL_SECONDS,
    "interval": 1 / DEFAULT_EXPORT_INTERVAL_SECONDS,
}
"""The rate of flushes with each flush policy, while requests arrive continuously."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a demo.

    :param responses: number of responses that the visitors received.
    :param failures: descriptions of the requests that got no response from the shop.
    :param api: numbers of requests, datums and bytes that CloudWatch received.
    :param refusals: the errors of the requests that CloudWatch refused.
    :param delivery: the shop's ``DeliveryStats``.
    :param document: the published series in the form that other commands read with ``--from``.
    :param output: how the shop's metrics reached CloudWatch: ``"api"`` or ``"emf"``.
    """

    seconds: float
    responses: int
    failures: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    api: Traffic
    refusals: tuple[str, ...]
    delivery: Mapping[str, Any]
    document: Mapping[str, Any]
    output: Output

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
        return {policy: self._cost(rate) for policy, rate in _FLUSHES_PER_SECOND.items()}

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
        # Stopping the shop flushes its last metrics, so the series are read afterwards.
        summary = shop.process.close()
        found = published_series(cloudwatch.client(), NAMESPACE, start=start, end=datetime.now(timezone.utc))
    expected = expected_series(summary.books, traffic.responses, found, visitors=VISITORS)
    return Outcome(
        seconds=traffic.elapsed_seconds,
        responses=len(traffic.responses),
        failures=tuple(traffic.failures),
        comparisons=tuple(compare(found, expected)),
        api=cloudwatch.traffic,
        refusals=tuple(map(str, cloudwatch.validation_errors)),
        delivery=summary.delivery,
        # A short demo's own rate would be too high, because neither the first nor the final flush is delayed.
        document={**observed(cloudwatch.published.requests), "requests_per_second": _FLUSHES_PER_SECOND["background"]},
        output=output,
    )


def observed(requests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarize ``requests``, which are in boto3's form, as a document that other commands read with ``--from``."""
    observation = Observation()
    for request in requests:
        observation.observe(Batch.from_body(json.dumps(request).encode()))
    return observation.document()


def _title(comparison: Comparison) -> str:
    series = comparison.series
    return f"{series.name} {{{', '.join(f'{name}={value}' for name, value in series.dimensions)}}} in {series.unit}"
