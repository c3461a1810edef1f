"""The exceptions that this package raises for invalid settings and metrics.

A failure that occurs after a measurement is recorded does not raise an exception: it is logged, and losses are counted
in :class:`DeliveryStats`.
"""

__all__ = ["CloudWatchMetricsError", "ConfigurationError", "InvalidMetricError"]


class CloudWatchMetricsError(Exception):
    """Base class of this package's exceptions."""


class ConfigurationError(CloudWatchMetricsError, ValueError):
    """Raised for an invalid setting, or a reporter that is not set up correctly. The message says how to correct it.

    :param message: text of the exception.
    :param key: source of the setting, such as an argument's name, ``app.config["CLOUDWATCH_..."]`` or an environment
        variable.
    :param value: the invalid value.
    """

    def __init__(self, message: str, *, key: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.key = key
        self.value = value


class InvalidMetricError(CloudWatchMetricsError, ValueError):
    """Raised for an invalid metric. The message says how to correct it.

    :param message: text of the exception.
    :param metric_name: the name that the caller passed.
    :param value: the invalid argument.
    """

    def __init__(self, message: str, *, metric_name: object = None, value: object = None) -> None:
        super().__init__(message)
        self.metric_name = metric_name
        self.value = value
