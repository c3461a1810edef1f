"""The number of examples for open-ended searches, and data points that can be identified anywhere."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import settings

from otel_cloudwatch_flask.delivery import sender
from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.model.datum import Datum, Series, Statistics
from otel_cloudwatch_flask.sdk import reader

_EXAMPLES_OF_DEFAULT = 100


def effort(examples: int, steps: int = 50, *, fuzzed: int | None = None) -> settings:
    """Search this many examples in a normal run, and more in the profile ``fuzz``: ``fuzzed``, or in proportion."""
    factor = settings.default.max_examples / _EXAMPLES_OF_DEFAULT if settings.default else 1
    searched = fuzzed if fuzzed and factor > 1 else int(examples * factor)
    return settings(max_examples=max(searched, 1), stateful_step_count=steps)


@pytest.fixture(autouse=True, scope="module")
def repeatable_jitter() -> Iterator[None]:
    """Draw the jitter from the generator that Hypothesis seeds for each example. State machines import this fixture."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sender, "_random", random)
        patched.setattr(reader, "_random", random)
        yield


def datum_of(metric_name: str, value: float, *, unix_seconds: int = 0) -> Datum:
    """Make a pending data point."""
    return Datum(Series(metric_name, (), "Count"), unix_seconds, value)


def numbers(datum: Datum) -> list[int]:
    """Return the numbers of the samples in a data point."""
    assert not isinstance(datum.content, Statistics)
    values = datum.content.values if isinstance(datum.content, Distribution) else [datum.content]
    return [int(value) for value in values]
