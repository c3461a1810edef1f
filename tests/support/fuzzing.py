"""The number of examples for property tests and fuzzing, and data points that can be identified by their value."""

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
    """Return settings for this many examples in a normal run, and for more (``fuzzed``) in the profile ``fuzz``."""
    factor = settings.default.max_examples / _EXAMPLES_OF_DEFAULT if settings.default else 1
    searched = fuzzed if fuzzed and factor > 1 else int(examples * factor)
    return settings(max_examples=max(searched, 1), stateful_step_count=steps)


@pytest.fixture(autouse=True, scope="module")
def repeatable_jitter() -> Iterator[None]:
    """Draw the backoff jitter from the random generator that Hypothesis seeds. State machines import this fixture."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sender, "_random", random)
        patched.setattr(reader, "_random", random)
        yield


def datum_of(metric_name: str, value: float, *, unix_seconds: int = 0) -> Datum:
    """Return a data point with this value."""
    return Datum(Series(metric_name, (), "Count"), unix_seconds, value)


def numbers(datum: Datum) -> list[int]:
    """Return the values of the samples in a data point, which identify them."""
    assert not isinstance(datum.content, Statistics)
    values = datum.content.values if isinstance(datum.content, Distribution) else [datum.content]
    return [int(value) for value in values]
