"""Delivery, measured as OpenTelemetry metrics: for whoever wants to see it where the rest is seen.

Off unless asked for. The instruments are observable ones: they cost nothing but when somebody collects.
"""

from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from otel_cloudwatch_flask.ledger import DeliveryStats
from otel_cloudwatch_flask.version import __version__

METER_NAME: Final = "otel_cloudwatch_flask.delivery"

Stats = Callable[[], DeliveryStats]


def observe_delivery(provider: MeterProvider, stats: Stats) -> None:
    """Make instruments of what ``stats`` says: datums sent, pending and lost by reason, requests and their time."""
    meter = provider.get_meter(METER_NAME, __version__)

    def observing(value: Callable[[DeliveryStats], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _options: [Observation(value(stats()))]

    def observing_losses(_options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(datums, {"reason": reason}) for reason, datums in stats().datums_lost.items()]

    name = METER_NAME
    meter.create_observable_counter(f"{name}.datums_sent", [observing(lambda now: now.datums_sent)], "{datum}")
    meter.create_observable_up_down_counter(
        f"{name}.datums_pending", [observing(lambda now: now.datums_pending)], "{datum}"
    )
    meter.create_observable_counter(f"{name}.datums_lost", [observing_losses], "{datum}")
    meter.create_observable_counter(f"{name}.requests_sent", [observing(lambda now: now.requests_sent)], "{request}")
    meter.create_observable_counter(
        f"{name}.requests_failed", [observing(lambda now: now.requests_failed)], "{request}"
    )
    meter.create_observable_counter(f"{name}.requests_time", [observing(lambda now: now.requests_seconds)], "s")
