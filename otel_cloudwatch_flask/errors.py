"""The exceptions of this package.

They are raised only for invalid settings and metrics. Whatever goes wrong later, between a recorded measurement and
CloudWatch, is counted in ``DeliveryStats`` and logged.
"""


class CloudWatchMetricsError(Exception):
    """Base class of this package's exceptions."""


class ConfigurationError(CloudWatchMetricsError, ValueError):
    """A setting is invalid. The message names the setting, its value, and what is allowed.

    ``key`` is the source of the setting (an argument's name, ``app.config["CLOUDWATCH_..."]`` or an environment
    variable), ``value`` its value.
    """

    def __init__(self, message: str, *, key: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.key = key
        self.value = value


class InvalidMetricError(CloudWatchMetricsError, ValueError):
    """A metric is invalid. The message says what to write instead.

    ``metric_name`` is the name that the caller passed, ``value`` the invalid argument.
    """

    def __init__(self, message: str, *, metric_name: object = None, value: object = None) -> None:
        super().__init__(message)
        self.metric_name = metric_name
        self.value = value
