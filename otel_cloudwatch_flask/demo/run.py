"""Run the shop, the emulator and the traffic, and compare the metrics with the expectations."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from otel_cloudwatch_flask.config import ENVIRONMENT_PREFIX, FLUSH_MIN_INTERVAL_SECONDS, Output
from otel_cloudwatch_flask.delivery.batch import Batch
from otel_cloudwatch_flask.demo.comparison import Comparison, compare
from otel_cloudwatch_flask.demo.expectations import expected_series
from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.demo.load_generator import LoadGenerator, shop_requests
from otel_cloudwatch_flask.demo.readback import published_series, utc_now
from otel_cloudwatch_flask.demo.shop_process import ShopProcess, ShopSummary
from otel_cloudwatch_flask.observation.record import Observation
from otel_cloudwatch_flask.pricing import MonthlyCost, monthly_cost
from otel_cloudwatch_flask.terminal import counted

if TYPE_CHECKING:
    from otel_cloudwatch_flask.testing.local.application import Traffic
    from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch

NAMESPACE: Final = "Shop"
VISITORS: Final = 8
INTERVAL_SECONDS: Final = 60.0
"""The default time between flushes with the policy ``interval``."""

_SEED: Final = 7
_TICK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """The duration of the traffic, and the numbers of responses and PutMetricData requests, so far."""

    seconds: float
    responses: int
    put_requests: int


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
    api: "Traffic"
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
        rates = {"background": self.api_requests_per_second, "interval": 1 / INTERVAL_SECONDS}
        return {policy: self._cost(rate) for policy, rate in rates.items()}

    def _cost(self, flushes_per_second: float) -> MonthlyCost:
        if self.output == "api":
            return monthly_cost(metrics=self.metrics, requests_per_second=flushes_per_second)
        bytes_per_flush = self.delivery["bytes_sent"] / max(self.delivery["requests_sent"], 1)
        return monthly_cost(metrics=self.metrics, log_bytes_per_second=flushes_per_second * bytes_per_flush)


def run_demo(
    *, seconds: float, rate: float, on_progress: Callable[[Progress], None], output: Output = "api"
) -> Outcome:
    """Run the shop and the emulator, send traffic for ``seconds``, stop the shop, and compare the metrics.

    The traffic, the shop and the emulator are stopped even if an exception is raised. Raises :class:`ShopProcessError`
    if the shop does not start or does not stop.
    """
    from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch  # noqa: PLC0415 - an optional extra

    with isolated_environment(), LocalCloudWatch() as cloudwatch:
        start = utc_now()
        environment = {**cloudwatch.environment(), f"{ENVIRONMENT_PREFIX}OUTPUT": output}
        with ShopProcess(environment, cloudwatch.stream) as shop:
            traffic = LoadGenerator(shop.url, shop_requests(_SEED), seconds=seconds, rate=rate, visitors=VISITORS)
            _send(traffic, cloudwatch, on_progress)
            # The arrivals are read before the shop's last flush, which would distort the rate.
            arrivals = sorted({datum.arrived_unix_time for datum in cloudwatch.published.accepted})
            # Stopping the shop flushes its last metrics, so the series are read afterwards.
            summary = shop.close()
        found = published_series(cloudwatch.client(), NAMESPACE, start=start, end=utc_now())
        expected = expected_series(summary.books, traffic.responses, found, visitors=VISITORS)
        return replace(_outcome(traffic, cloudwatch, summary, tuple(compare(found, expected)), arrivals), output=output)


def _send(traffic: LoadGenerator, cloudwatch: "LocalCloudWatch", on_progress: Callable[[Progress], None]) -> None:
    """Send all traffic while reporting progress. The threads are stopped even if an exception is raised."""
    traffic.start()
    try:
        while not traffic.wait(_TICK_SECONDS):
            on_progress(Progress(traffic.elapsed_seconds, len(traffic.responses), cloudwatch.traffic.put_requests))
    finally:
        traffic.stop()
    on_progress(Progress(traffic.seconds, len(traffic.responses), cloudwatch.traffic.put_requests))


def _outcome(
    traffic: LoadGenerator,
    cloudwatch: "LocalCloudWatch",
    summary: ShopSummary,
    comparisons: tuple[Comparison, ...],
    arrivals: Sequence[float],
) -> Outcome:
    # The first flush is not delayed, so the rate measured in a short demo can exceed the maximum rate of flushes.
    rate = min(steady_rate(arrivals, traffic.elapsed_seconds), 1 / FLUSH_MIN_INTERVAL_SECONDS)
    return Outcome(
        seconds=traffic.elapsed_seconds,
        responses=len(traffic.responses),
        failures=tuple(traffic.failures),
        comparisons=comparisons,
        api=cloudwatch.traffic,
        api_requests_per_second=rate,
        refusals=tuple(f"{error.code}: {error.message}" for error in cloudwatch.validation_errors),
        delivery=summary.delivery,
        document={**observed(cloudwatch.published.requests), "requests_per_second": rate},
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
