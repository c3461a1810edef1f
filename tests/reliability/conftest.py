"""Fixtures of the reliability tests: a CloudWatch emulator that fails, and a scale.

``RELIABILITY_SCALE=5`` makes everything five times as long: an outage of 60 s, a soak of 2 minutes, 5,000 requests to
each of 8 servers, 250 forks. The default is 1, and any positive number is valid: 10 means 10,000 requests to each.
"""

import os
from collections.abc import Iterator

import pytest

from tests.reliability.cloudwatch import FailingCloudWatch


@pytest.fixture(scope="session")
def scale() -> float:
    """The factor that scales all durations and numbers; 1 by default."""
    return float(os.environ.get("RELIABILITY_SCALE", "1"))


@pytest.fixture
def cloudwatch() -> Iterator[FailingCloudWatch]:
    """A running CloudWatch emulator that can fail."""
    with FailingCloudWatch() as failing:
        yield failing
