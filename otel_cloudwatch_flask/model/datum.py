"""Datums, the units of data that are sent to CloudWatch, and the series that they belong to."""

import json
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from otel_cloudwatch_flask.histograms.values_counts import Distribution

Dimensions = tuple[tuple[str, str], ...]
"""``(name, value)`` pairs, sorted by name."""

OVERFLOW_KEY: Final = "otel.metric.overflow"
"""The attribute of overflow series: https://opentelemetry.io/docs/specs/otel/metrics/sdk/#overflow-attribute."""

OVERFLOW_DIMENSIONS: Final[Dimensions] = ((OVERFLOW_KEY, "true"),)
"""Dimensions of an overflow series, which replaces the series that would exceed ``max_metrics``."""


class _SeriesFields(NamedTuple):
    name: str
    dimensions: Dimensions
    unit: str
    storage_resolution: int = 60


class Series(_SeriesFields):
    """A CloudWatch metric with its dimensions, unit, and storage resolution in seconds."""

    # A named tuple rather than a dataclass: series are dictionary keys, and tuples are hashed in C.

    properties: Dimensions = ()
    """Attributes that EMF documents contain in addition to the dimensions. They do not identify the series."""

    # Not a cached property, whose lock a forked child could inherit locked before Python 3.12.
    prefix: str = ""
    """The JSON text that every datum of this series begins with, up to the value of ``Timestamp``.

    It is empty until :meth:`encode_prefix` is called.
    """

    def members(self) -> dict[str, Any]:
        """Return the members of a ``MetricDatum`` structure that identify the series."""
        members: dict[str, Any] = {
            "MetricName": self.name,
            "Dimensions": [{"Name": name, "Value": value} for name, value in self.dimensions],
            "Unit": self.unit,
        }
        if self.storage_resolution != 60:
            members["StorageResolution"] = self.storage_resolution
        return members

    def encode_prefix(self) -> str:
        """Store and return :attr:`prefix`."""
        self.prefix = f'{json.dumps(self.members(), separators=(",", ":"))[:-1]},"Timestamp":'
        return self.prefix


@dataclass(frozen=True, slots=True)
class Statistics:
    """A statistic set that summarizes samples. It yields no percentiles, unless its minimum equals its maximum."""

    count: int
    sum: float
    minimum: float
    maximum: float


Content: TypeAlias = float | Distribution | Statistics
"""What a datum contains: a number, a distribution or a statistic set."""


class Datum(NamedTuple):
    """A number, distribution or statistic set that belongs to one series, with a Unix timestamp in whole seconds."""

    series: Series
    unix_seconds: int
    content: Content


def statistics_of(content: Content) -> Statistics:
    """Return the count, sum, minimum and maximum of a datum's samples."""
    if isinstance(content, Statistics):
        return content
    if isinstance(content, Distribution):
        return Statistics(content.samples, content.total, content.values[0], content.values[-1])
    return Statistics(1, content, content, content)


def values_of(content: Content) -> Distribution | None:
    """Return the values and counts of a datum's samples, or ``None`` if the values are unknown.

    The values of a statistic set are known if all its samples are equal. CloudWatch then has percentiles too.
    """
    if isinstance(content, Statistics):
        return Distribution([content.minimum], [content.count]) if content.minimum == content.maximum else None
    return content if isinstance(content, Distribution) else Distribution([content], [1])
