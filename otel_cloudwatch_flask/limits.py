"""The numbers that CloudWatch sets, each with its unit.

Sources:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html.
"""

from typing import Final

# A request.
MAX_DATUMS_PER_REQUEST: Final = 1000
MAX_REQUEST_BYTES: Final = 1_000_000
"""Bytes of the JSON body before compression. The service says "1 MB"; this is the smaller reading of it."""

# A datum.
MAX_VALUES_PER_DATUM: Final = 150
MAX_MAGNITUDE: Final = 2.0**360
"""The largest magnitude of a value; NaN and the infinities are refused too."""
MIN_MAGNITUDE: Final = 2.0**-360
"""The smallest magnitude of a value that is not 0."""
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
"""Of PutMetricData, where AWS has not raised it:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html.
"""
