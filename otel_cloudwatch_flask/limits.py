"""CloudWatch's limits, and which numbers it accepts.

Sources:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html.
"""

import math
from collections.abc import Sequence
from typing import Final

# A request.
MAX_DATUMS_PER_REQUEST: Final = 1000
MAX_REQUEST_BYTES: Final = 1_000_000
"""Bytes of the JSON body before compression. The documentation says "1 MB"; this is the smaller reading."""

# A datum.
MAX_VALUES_PER_DATUM: Final = 150
MAX_MAGNITUDE: Final = 2.0**360
"""Largest magnitude of a value. NaN and infinity are refused, too."""
MIN_MAGNITUDE: Final = 2.0**-360
"""Smallest magnitude of a nonzero value."""
STORAGE_RESOLUTIONS: Final = (1, 60)
"""Seconds."""

# Names.
MAX_DIMENSIONS: Final = 30
MAX_DIMENSION_NAME_LENGTH: Final = 255
MAX_DIMENSION_VALUE_LENGTH: Final = 1024
MAX_METRIC_NAME_LENGTH: Final = 255
MAX_NAMESPACE_LENGTH: Final = 255
RESERVED_NAMESPACE_PREFIX: Final = "AWS/"

# Time.
MAX_AGE_SECONDS: Final = 14 * 24 * 3600
MAX_AHEAD_SECONDS: Final = 2 * 3600

# An account in a Region.
QUOTA_REQUESTS_PER_SECOND: Final = 500
"""The default for PutMetricData:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html.
"""

# Which numbers CloudWatch accepts.
NUMBERS: Final = frozenset({float, int})
_EXACT: Final = 10**15
"""Every int below it can be represented as a float."""


def sendable(value: float) -> float | None:
    """Return the number as CloudWatch accepts it, or ``None`` if it cannot be sent.

    NaN, infinity and magnitudes above 2^360 cannot. A nonzero magnitude below 2^-360, which CloudWatch refuses as well,
    becomes 0; so does negative zero.

    >>> sendable(float("nan")) is None
    True
    >>> sendable(1e-200)
    0.0
    """
    try:
        number = float(value)
    except OverflowError:  # an int beyond the largest float
        return None
    if not abs(number) <= MAX_MAGNITUDE:  # NaN fails every comparison
        return None
    return number if abs(number) >= MIN_MAGNITUDE else 0.0


def is_finite(value: float) -> bool:
    """Whether a number is neither NaN nor infinite; it may be larger than any float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return True


def are_plain(values: Sequence[float]) -> bool:
    """Whether CloudWatch accepts all of these ints and floats unchanged."""
    return (
        {*map(type, values)} <= NUMBERS
        and all(map(math.isfinite, values))
        and min(values) > -_EXACT
        and max(values) < _EXACT
        and not any(0 < abs(value) < MIN_MAGNITUDE for value in values if type(value) is float)
    )
