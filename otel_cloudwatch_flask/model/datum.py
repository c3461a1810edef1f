"""What travels to CloudWatch: a datum, and the series it belongs to."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from otel_cloudwatch_flask.histograms.values_counts import Distribution

Dimensions = tuple[tuple[str, str], ...]
"""Names and values, acceptable to CloudWatch, sorted by name."""

OVERFLOW_KEY: Final = "otel.metric.overflow"
"""https://opentelemetry.io/docs/specs/otel/metrics/sdk/#overflow-attribute"""

OVERFLOW_DIMENSIONS: Final[Dimensions] = ((OVERFLOW_KEY, "true"),)
"""Dimensions of the series that stands for all that exceed ``max_metrics``."""


class _SeriesFields(NamedTuple):
    name: str
    dimensions: Dimensions
    unit: str
    storage_resolution: int = 60


class Series(_SeriesFields):
    """One CloudWatch metric: what CloudWatch stores, shows and bills apart from others.

    The unit and the resolution (in seconds) are part of it because a datum has exactly one of each.
    """

    # A named tuple, because series are keys of dictionaries, and the hash of a tuple is made in C.

    @cached_property
    def prefix(self) -> str:
        """The beginning of each of its datums as JSON, up to where the time is written."""
        members: dict[str, object] = {
            "MetricName": self.name,
            "Dimensions": [{"Name": name, "Value": value} for name, value in self.dimensions],
            "Unit": self.unit,
        }
        if self.storage_resolution != 60:
            members["StorageResolution"] = self.storage_resolution
        return f'{json.dumps(members, separators=(",", ":"))[:-1]},"Timestamp":'


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
