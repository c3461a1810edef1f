"""OpenTelemetry metrics about the delivery to CloudWatch, enabled by the setting ``SELF_METRICS``.

All instruments are observable, so they cost nothing between collections.
"""

from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from otel_cloudwatch_flask.delivery.stats import DeliveryStats
from otel_cloudwatch_flask.version import __version__

METER_NAME: Final = "otel_cloudwatch_flask.delivery"


def observe_delivery(provider: MeterProvider, stats: Callable[[], Iterable[DeliveryStats]]) -> None:
    """Create the instruments. They observe what ``stats`` returns, with losses broken down by reason."""
    meter = provider.get_meter(METER_NAME, __version__)

    def observing(field: str) -> list[Callable[[CallbackOptions], Iterable[Observation]]]:
        return [lambda _options: [Observation(getattr(each, field)) for each in stats()]]

    def losses(field: str) -> list[Callable[[CallbackOptions], Iterable[Observation]]]:
        return [
            lambda _options: [
                Observation(lost, {"reason": reason})
                for each in stats()
                for reason, lost in getattr(each, field).items()
            ]
        ]

    name = METER_NAME
    meter.create_observable_counter(f"{name}.datums_sent", observing("datums_sent"), "{datum}")
    meter.create_observable_up_down_counter(f"{name}.datums_pending", observing("datums_pending"), "{datum}")
    meter.create_observable_counter(f"{name}.datums_lost", losses("datums_lost"), "{datum}")
    meter.create_observable_counter(f"{name}.measurements_lost", losses("measurements_lost"), "{measurement}")
    meter.create_observable_counter(f"{name}.requests_sent", observing("requests_sent"), "{request}")
    meter.create_observable_counter(f"{name}.requests_failed", observing("requests_failed"), "{request}")
    meter.create_observable_counter(f"{name}.requests_time", observing("requests_seconds"), "s")
