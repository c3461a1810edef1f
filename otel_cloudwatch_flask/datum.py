"""What travels to CloudWatch: a datum, and the series it belongs to."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_cloudwatch_flask.distribution import Distribution

Dimensions = tuple[tuple[str, str], ...]
"""Names and values, acceptable to CloudWatch, sorted by name."""

OVERFLOW_KEY: Final = "otel.metric.overflow"
"""https://opentelemetry.io/docs/specs/otel/metrics/sdk/#overflow-attribute"""

OVERFLOW_DIMENSIONS: Final[Dimensions] = ((OVERFLOW_KEY, "true"),)
"""Those of the series that takes what found no place among ``max_metrics``."""


class Series(NamedTuple):
    """One CloudWatch metric: what CloudWatch stores, shows and bills apart from others.

    The unit and the resolution (in seconds) are kept with it because a datum has exactly one of each.
    """

    # A tuple, because series are looked up several times for each point, and a tuple's hash is made in C.
    name: str
    dimensions: Dimensions
    unit: str
    storage_resolution: int = 60


@dataclass(frozen=True, slots=True)
class Statistics:
    """Several samples without their values: CloudWatch has no percentiles of them."""

    count: int
    sum: float
    minimum: float
    maximum: float


class Datum(NamedTuple):
    """One number, distribution or set of statistics of one series at one time, in whole seconds of Unix time."""

    series: Series
    unix_seconds: int
    content: float | Distribution | Statistics
