"""How long the tests search that have no end of their own, and datums that can be told apart wherever they are."""

import json
from typing import Any

from hypothesis import settings

from otel_cloudwatch_flask.wire import Batch, EncodedDatum

_EXAMPLES_OF_DEFAULT = 100


def effort(examples: int, steps: int = 50) -> settings:
    """Search through so many examples in a usual run, and through more in the longer ones of the profile ``fuzz``."""
    factor = settings.default.max_examples / _EXAMPLES_OF_DEFAULT if settings.default else 1
    return settings(max_examples=max(int(examples * factor), 1), stateful_step_count=steps)


def encoded(metric_name: str, value: float, *, unix_seconds: int = 0) -> EncodedDatum:
    """A datum as it waits to be sent."""
    datum = {"MetricName": metric_name, "Dimensions": [], "Unit": "Count", "Timestamp": unix_seconds, "Value": value}
    (made,) = Batch.from_body(json.dumps({"Namespace": "Shop", "MetricData": [datum]}).encode()).datums
    return made


def numbers(datum: EncodedDatum) -> list[int]:
    """The numbers of the samples in a datum."""
    content: dict[str, Any] = json.loads(datum)
    return [int(value) for value in content.get("Values", [content.get("Value")])]
