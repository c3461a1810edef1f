"""A fake CloudWatch client for unit tests: in memory, but as strict as the service."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from otel_cloudwatch_flask.delivery.stats import DeliveryStats
from otel_cloudwatch_flask.testing.alarm_state import State, resolved, state_of
from otel_cloudwatch_flask.testing.emf_lines import EmfStream
from otel_cloudwatch_flask.testing.published import PublishedMetric, PublishedMetrics
from otel_cloudwatch_flask.testing.request_rules import ValidationError, unix_time

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

__all__ = ["FakeCloudWatch", "PublishedMetric", "client_error"]


class Publisher(Protocol):
    """A reporter or an exporter, or anything else with delivery statistics."""

    def stats(self) -> DeliveryStats:
        """Return the delivery statistics."""


class FakeCloudWatch(PublishedMetrics):
    """A fake of boto3's CloudWatch client that stores the published metrics, for lookups and assertions.

    Pass it as ``cloudwatch_client=`` to a reporter, or as ``client=`` to an exporter.

    If CloudWatch would refuse a request, the fake raises ``ClientError`` and stores none of the datums.

    >>> cloudwatch = FakeCloudWatch()
    >>> response = cloudwatch.put_metric_data(
    ...     Namespace="Shop",
    ...     MetricData=[
    ...         {"MetricName": "Orders", "Value": 2, "Dimensions": [{"Name": "Page", "Value": "Index"}]},
    ...         {"MetricName": "Latency", "Values": [12, 350], "Counts": [99, 1], "Unit": "Milliseconds"},
    ...     ],
    ... )
    >>> cloudwatch.sum("Orders", Page="Index")
    2.0
    >>> cloudwatch.count("Latency"), cloudwatch.percentile("Latency", 99), cloudwatch.maximum("Latency")
    (100.0, 12, 350)
    >>> [metric.name for metric in cloudwatch.metrics()]
    ['Orders', 'Latency']
    >>> cloudwatch.put_metric_data(
    ...     Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": float("inf")}]
    ... )  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    botocore.exceptions.ClientError: ... The value Infinity for parameter MetricData.member.1.Value is invalid.

    :param latency_seconds: duration of each request. The attribute of the same name may be changed at any time.
    :param clock: function that returns the current time in Unix seconds.
    :param sleep: function that waits for a number of seconds.
    """

    def __init__(
        self,
        *,
        latency_seconds: float = 0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__()
        self.latency_seconds = latency_seconds
        self._clock = clock
        self._sleep = sleep
        self._error_lock = threading.Lock()
        self._errors: deque[BaseException] = deque()
        self._validation_errors: list[ValidationError] = []
        self.stream = EmfStream(self._put, refuse=self._validation_errors.append)
        """A text stream for ``output="emf"``. The errors of invalid lines are added to ``validation_errors``."""

    @property
    def validation_errors(self) -> list[ValidationError]:
        """The errors of all invalid requests and EMF lines, oldest first."""
        self._refresh()
        return list(self._validation_errors)

    def fail_next(self, error: BaseException, *, times: int = 1) -> None:
        """Make the next ``times`` requests raise ``error`` and store nothing.

        If this is called again before those requests are made, the new errors come after the earlier errors.

        :param error: the exception. :func:`client_error` creates those of boto3:
            ``fake.fail_next(client_error("ThrottlingException"))``.
        :param times: number of requests that fail.
        """
        with self._error_lock:
            self._errors.extend([error] * times)

    def heal(self) -> None:
        """Cancel the errors queued by :meth:`fail_next`, and set ``latency_seconds`` to 0."""
        with self._error_lock:
            self._errors.clear()
        self.latency_seconds = 0

    def assert_no_losses(self, *publishers: Publisher) -> None:
        """Raise an ``AssertionError`` if any request was invalid, or any publisher's data is lost or pending.

        :param publishers: reporters or exporters.
        """
        self._refresh()
        problems = self._problems(*(publisher.stats() for publisher in publishers))
        if problems:
            raise AssertionError("Metrics did not arrive:\n  " + "\n  ".join(problems))

    def alarm(
        self, template: Mapping[str, Any], name: str, /, state: State = "INSUFFICIENT_DATA", **parameters: object
    ) -> State:
        """Return the state that an alarm of a CloudFormation template has now: OK, ALARM or INSUFFICIENT_DATA.

        Follows CloudWatch's rules, except that the current period is included, even though it has not ended. Raises
        ``NotImplementedError`` for anomaly detection, for statistics such as trimmed means, and for metric math other
        than arithmetic, comparisons, ``FILL`` and ``IF``.

        :param template: output of ``flask cloudwatch alarms``, loaded with ``json.loads``.
        :param name: the alarm's logical ID in the template. Raises ``LookupError`` if there is no such alarm.
        :param state: the alarm's previous state, which is returned if CloudWatch would not change it.
        :param parameters: values for the template's parameters instead of their defaults.
        """
        resources = template["Resources"]
        if name not in resources:
            raise LookupError(f"The template has no alarm {name}, only {', '.join(resources)}.")
        defaults = {key: each.get("Default") for key, each in template.get("Parameters", {}).items()}
        alarm = resolved(resources[name]["Properties"], {**defaults, **parameters})
        return state_of(alarm, self.accepted, now=self._clock(), state=state)

    def report(self) -> str:
        """Describe the published metrics, at most 50, and the errors of invalid requests."""
        return "\n".join([self._listing(), *(f"  {problem}" for problem in self._problems())])

    def _problems(self, *stats: DeliveryStats) -> list[str]:
        """Describe the error of each invalid request, and the problems in each of ``stats``."""
        rejected = [f"rejected with {error}" for error in self._validation_errors]
        return [*rejected, *filter(None, map(problem_of, stats))]

    def put_metric_data(self, **request: Any) -> dict[str, Any]:
        """Store a request, or raise botocore's ``ClientError`` if CloudWatch would refuse it.

        Errors queued by :meth:`fail_next` are raised first.

        :param request: the parameters of the request, such as ``Namespace`` and ``MetricData``.
        """
        try:
            self._put(request)
        except ValidationError as error:
            self._validation_errors.append(error)
            raise client_error(error.code, error.message, status=error.status) from None
        metadata = {"RequestId": "fake", "HTTPStatusCode": 200, "HTTPHeaders": {}, "RetryAttempts": 0}
        return {"ResponseMetadata": metadata}

    def _put(self, request: Mapping[str, Any]) -> None:
        """Store a request. Raises the errors of :meth:`fail_next`, and ``ValidationError`` for an invalid request."""
        if self.latency_seconds:
            self._sleep(self.latency_seconds)
        with self._error_lock:
            # Before the validation, because throttling and network errors affect valid and invalid requests alike.
            queued = self._errors.popleft() if self._errors else None
        if queued is not None:
            raise queued
        self.store(request, size_bytes=_size_bytes(request), now=self._clock())


def problem_of(stats: DeliveryStats) -> str:
    """Describe the lost and pending data in ``stats``, or return an empty string if there is none.

    >>> problem_of(DeliveryStats(datums_lost={"invalid": 2}, datums_pending=1, last_error="No Region"))
    '2 data point(s) lost: invalid; 1 data point(s) not sent yet (last error: No Region)'
    """
    problems = [f"{datums} data point(s) lost: {reason}" for reason, datums in stats.datums_lost.items()]
    problems += [f"{number} measurement(s) lost: {reason}" for reason, number in stats.measurements_lost.items()]
    if stats.datums_pending:
        problems.append(f"{stats.datums_pending} data point(s) not sent yet (last error: {stats.last_error})")
    return "; ".join(problems)


def client_error(code: str, message: str = "", *, status: int = 400) -> "ClientError":
    """Create the exception that boto3 raises for an error response.

    :param code: CloudWatch's error code, such as ``"ThrottlingException"``.
    :param message: CloudWatch's error message.
    :param status: HTTP status of the response.
    """
    from botocore.exceptions import ClientError  # noqa: PLC0415 - slow to import, and only needed here

    response: Any = {
        "Error": {"Code": code, "Message": message, "Type": "Sender" if status < 500 else "Receiver"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0},
    }
    return ClientError(response, "PutMetricData")


def _size_bytes(request: Mapping[str, Any]) -> int:
    """Return the length of the request in JSON, with datetimes as whole seconds, as botocore encodes them."""

    def epoch_seconds(value: object) -> int | str:
        moment = unix_time(value)
        return str(value) if moment is None else int(moment)

    return len(json.dumps(request, default=epoch_seconds))
