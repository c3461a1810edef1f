"""CloudWatch's limits on requests, datums, names, times and numbers.

Sources:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html.
"""

import math
from collections.abc import Sequence
from typing import Final

# Limits of a request.
MAX_DATUMS_PER_REQUEST: Final = 1000
MAX_REQUEST_BYTES: Final = 1_000_000
"""Maximum size of the uncompressed JSON body. AWS documents "1 MB", and this is its stricter interpretation."""

# Limits of a datum.
MAX_VALUES_PER_DATUM: Final = 150
MAX_MAGNITUDE: Final = 2.0**360
"""Largest magnitude of a value. CloudWatch also refuses NaN and infinity."""
MIN_MAGNITUDE: Final = 2.0**-360
"""Smallest magnitude of a nonzero value."""
STORAGE_RESOLUTIONS: Final = (1, 60)
"""The storage resolutions that CloudWatch accepts, in seconds."""

# Limits of names and dimensions.
MAX_DIMENSIONS: Final = 30
MAX_DIMENSION_NAME_LENGTH: Final = 255
MAX_DIMENSION_VALUE_LENGTH: Final = 1024
MAX_METRIC_NAME_LENGTH: Final = 255
MAX_NAMESPACE_LENGTH: Final = 255
RESERVED_NAMESPACE_PREFIX: Final = "AWS/"

# Limits of a line in the embedded metric format (EMF):
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
MAX_METRICS_PER_LINE: Final = 100
MAX_VALUES_PER_LINE: Final = 100
"""Maximum number of values of one metric."""
MAX_EMF_DIMENSION_NAME_LENGTH: Final = 250
MAX_LINE_BYTES: Final = 256 * 1024
"""Maximum size of a log event. CloudWatch Logs also documents 1 MB; this is the stricter limit."""

# How far a timestamp may be from the current time.
MAX_AGE_SECONDS: Final = 14 * 24 * 3600
MAX_AHEAD_SECONDS: Final = 2 * 3600

# Limits of an account in one Region.
QUOTA_REQUESTS_PER_SECOND: Final = 500
"""The default quota for PutMetricData:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html.
"""

# The numbers that CloudWatch accepts.
NUMBERS: Final = frozenset({float, int})
_EXACT: Final = 10**15
"""Every int whose magnitude is below this limit can be represented exactly as a float."""


class InvalidPointError(ValueError):
    """Raised if CloudWatch does not accept the numbers of a data point, or if they contradict each other."""


def sendable(value: float) -> float:
    """Return ``value`` as a float that CloudWatch accepts.

    Nonzero magnitudes below 2^-360, which CloudWatch refuses, become 0, as does negative zero.

    :raises InvalidPointError: if there is no such float, as for NaN, infinity and magnitudes above 2^360.

    >>> sendable(1e-200)
    0.0
    """
    if not abs(value) <= MAX_MAGNITUDE:  # Not `>`: NaN fails every comparison.
        raise InvalidPointError("a value outside ±2^360")
    return float(value) if abs(value) >= MIN_MAGNITUDE else 0.0


def are_plain(values: Sequence[float]) -> bool:
    """Return whether all values are of type ``int`` or ``float``, not a subclass, and can be sent unchanged.

    Magnitudes of 10^15 or more are not examined further: for them, this returns ``False``. There must be at least one
    value.
    """
    return (
        {*map(type, values)} <= NUMBERS
        and min(values) > -_EXACT
        and max(values) < _EXACT
        and all(map(math.isfinite, values))
        and not any(0 < abs(value) < MIN_MAGNITUDE for value in values if type(value) is float)
    )
