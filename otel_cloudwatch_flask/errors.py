"""What can go wrong before anything is recorded: two errors, one base.

Nothing else is raised into a program that uses this package. Whatever happens later, between a recorded measurement
and CloudWatch, is counted in ``DeliveryStats`` and logged.
"""


class CloudWatchMetricsError(Exception):
    """The base of this package's errors."""


class ConfigurationError(CloudWatchMetricsError, ValueError):
    """A setting cannot be used; the message names it, what it was, and what it may be.

    ``key`` is where the setting came from (an argument's name, ``app.config["CLOUDWATCH_..."]`` or an environment
    variable), ``value`` what was found there.
    """

    def __init__(self, message: str, *, key: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.key = key
        self.value = value


class InvalidMetricError(CloudWatchMetricsError, ValueError):
    """A metric that CloudWatch cannot store; the message says what to write instead.

    ``metric_name`` is the name the caller gave, ``value`` the argument at fault.
    """

    def __init__(self, message: str, *, metric_name: object = None, value: object = None) -> None:
        super().__init__(message)
        self.metric_name = metric_name
        self.value = value
