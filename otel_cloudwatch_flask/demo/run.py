"""The demo from its beginning to its end."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from otel_cloudwatch_flask.demo.comparison import Comparison, compare
from otel_cloudwatch_flask.demo.expectations import expected_series
from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.demo.readback import published_series, utc_now
from otel_cloudwatch_flask.demo.shop_process import Account, ShopProcess
from otel_cloudwatch_flask.demo.traffic import Traffic, visits
from otel_cloudwatch_flask.observation.record import Observation, datum_of
from otel_cloudwatch_flask.pricing import MonthlyCost, monthly_cost
from otel_cloudwatch_flask.testing.request_rules import datums_of

if TYPE_CHECKING:
    from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
    from otel_cloudwatch_flask.testing.local.validating_proxy import Traffic as ApiTraffic

NAMESPACE: Final = "Shop"
VISITORS: Final = 8
INTERVAL_SECONDS: Final = 60.0
"""Between the flushes of the policy ``interval``, unless set otherwise."""

_SEED: Final = 7
_TICK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the demo is: seconds of traffic, the visits answered, the requests that CloudWatch got."""

    seconds: float
    answers: int
    put_requests: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    ``api`` is what CloudWatch got, ``api_requests_per_second`` how often, while there was traffic; ``document`` is that
    as the commands ``cost``, ``dashboard`` and ``alarms`` read it.
    """

    seconds: float
    answers: int
    failures: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    api: "ApiTraffic"
    api_requests_per_second: float
    refusals: tuple[str, ...]
    delivery: Mapping[str, Any]
    document: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> int:
        """How many metrics CloudWatch bills: it does not tell units apart."""
        found = [each.series for each in self.comparisons if each.found is not None]
        return len({(series.name, series.dimensions) for series in found})

    @property
    def problems(self) -> list[str]:
        """Everything that should not be, in sentences."""
        lost = {**self.delivery["datums_lost"], "pending": self.delivery["datums_pending"]}
        return [
            *(f"{_title(each)}: {text}" for each in self.comparisons for text in each.differences),
            *map("CloudWatch refused a request: {}".format, self.refusals),
            *(f"{count} datums did not arrive: {reason}." for reason, count in lost.items() if count),
            *map("A visitor got no answer: {}".format, self.failures),
            *([] if self.comparisons else ["Nothing was measured."]),
        ]

    @property
    def costs(self) -> dict[str, MonthlyCost]:
        """A month of this, by flush policy: as it ran, and as it would be with ``interval``."""
        return {
            "background": monthly_cost(metrics=self.metrics, requests_per_second=self.api_requests_per_second),
            "interval": monthly_cost(metrics=self.metrics, requests_per_second=1 / INTERVAL_SECONDS),
        }


def run_demo(*, seconds: float, rate: float, on_progress: Callable[[Progress], None]) -> Outcome:
    """Open a shop and a CloudWatch, send visitors for some seconds, close, and compare.

    Raises :class:`ShopError` if the shop does not open or close. Everything that was started is gone afterwards,
    whatever happens meanwhile.
    """
    from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch  # noqa: PLC0415 - an optional extra

    with isolated_environment(), LocalCloudWatch() as cloudwatch:
        start = utc_now()
        with ShopProcess(cloudwatch.environment()) as shop:
            traffic = Traffic(shop.url, visits(_SEED), seconds=seconds, rate=rate, visitors=VISITORS)
            _send(traffic, cloudwatch, on_progress)
            arrivals = sorted({datum.arrived_unix_time for datum in cloudwatch.published.accepted})
            account = shop.close()
        found = published_series(cloudwatch.client(), NAMESPACE, start=start, end=utc_now())
        expected = expected_series(account.books, traffic.answers, found, visitors=VISITORS)
        return _outcome(traffic, cloudwatch, account, tuple(compare(found, expected)), arrivals)


def _send(traffic: Traffic, cloudwatch: "LocalCloudWatch", on_progress: Callable[[Progress], None]) -> None:
    """Let the visitors come and go; they are not left behind when this is interrupted."""
    traffic.start()
    try:
        while not traffic.wait(_TICK_SECONDS):
            on_progress(Progress(traffic.elapsed_seconds, len(traffic.answers), cloudwatch.traffic.put_requests))
    finally:
        traffic.stop()
    on_progress(Progress(traffic.seconds, len(traffic.answers), cloudwatch.traffic.put_requests))


def _outcome(
    traffic: Traffic,
    cloudwatch: "LocalCloudWatch",
    account: Account,
    comparisons: tuple[Comparison, ...],
    arrivals: Sequence[float],
) -> Outcome:
    rate = steady_rate(arrivals, traffic.elapsed_seconds)
    return Outcome(
        seconds=traffic.elapsed_seconds,
        answers=len(traffic.answers),
        failures=tuple(traffic.failures),
        comparisons=comparisons,
        api=cloudwatch.traffic,
        api_requests_per_second=rate,
        refusals=tuple(f"{error.code}: {error.message}" for error in cloudwatch.validation_errors),
        delivery=account.delivery,
        document={**observed(cloudwatch.published.requests), "requests_per_second": rate},
    )


def observed(requests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What was published, as somebody who watches an exporter has it."""
    observation = Observation()
    for request in requests:
        datums = list(map(datum_of, datums_of(request)))
        observation.note(request["Namespace"], datums, size_bytes=len(json.dumps(request)))
    return observation.document()


def steady_rate(arrivals: Sequence[float], elapsed_seconds: float) -> float:
    """How many arrive a second, once that is under way.

    The first does not count if there are enough others: it was late, because its client had to be made.

    >>> steady_rate([10.25, 11.0, 12.0, 13.0], elapsed_seconds=4.0)
    1.0
    """
    if len(arrivals) < 3:
        return len(arrivals) / elapsed_seconds
    return (len(arrivals) - 2) / (arrivals[-1] - arrivals[1])


def _title(comparison: Comparison) -> str:
    series = comparison.series
    return f"{series.name} {{{', '.join(f'{name}={value}' for name, value in series.dimensions)}}} in {series.unit}"
