"""A CloudWatch for unit tests: as strict as the real one, in memory, with look-ups for assertions."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from otel_cloudwatch_flask.delivery.stats import DeliveryStats
from otel_cloudwatch_flask.testing.published import PublishedMetric, PublishedMetrics
from otel_cloudwatch_flask.testing.request_rules import Refusal, refusal, unix_time

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

__all__ = ["FakeCloudWatch", "PublishedMetric", "client_error"]


class Publisher(Protocol):
    """A reporter or an exporter, as far as its losses go."""

    def stats(self) -> DeliveryStats:
        """What became of its datums."""


class FakeCloudWatch(PublishedMetrics):
    """Stand in for boto3's CloudWatch client: pass it as ``client=`` and ask it what was published.

    A request that CloudWatch would refuse raises the same ``ClientError`` here, and nothing of it is stored.

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

    ``latency_seconds`` is how long each request takes, and may be changed at any time. ``clock`` gives Unix seconds.
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
        self._fault_lock = threading.Lock()
        self._faults: deque[BaseException] = deque()
        self._refusals: list[Refusal] = []

    @property
    def refusals(self) -> list[Refusal]:
        """Why requests were refused, in order."""
        with self._fault_lock:
            return list(self._refusals)

    def fail_next(self, error: BaseException, *, times: int = 1) -> None:
        """Let the next ``times`` requests raise ``error`` and store nothing; several calls queue up.

        :func:`client_error` makes what boto3 raises: ``fake.fail_next(client_error("ThrottlingException"))``.
        """
        with self._fault_lock:
            self._faults.extend([error] * times)

    def heal(self) -> None:
        """Take back what :meth:`fail_next` and ``latency_seconds`` have asked for."""
        with self._fault_lock:
            self._faults.clear()
        self.latency_seconds = 0

    def assert_no_losses(self, *publishers: Publisher) -> None:
        """Raise an ``AssertionError`` if a request was refused, or if one of the ``publishers`` lost or kept anything.

        They are reporters or exporters; what they have not sent yet, for want of a flush or because of an error that
        lasts, has not arrived.
        """
        problems = self._problems(*(publisher.stats() for publisher in publishers))
        if problems:
            raise AssertionError("Metrics did not arrive:\n  " + "\n  ".join(problems))

    def report(self) -> str:
        """What was published and what was refused, a line each."""
        return "\n".join([self._listing(), *(f"  {problem}" for problem in self._problems())])

    def _problems(self, *stats: DeliveryStats) -> list[str]:
        """What was refused, and what is lost or not sent yet by these accounts, each in words."""
        refused = [f"refused with {refused.code}: {refused.message}" for refused in self.refusals]
        return [*refused, *filter(None, map(problem_of, stats))]

    def put_metric_data(self, **request: Any) -> dict[str, Any]:
        """Store a request, or raise botocore's ``ClientError`` as CloudWatch makes boto3 do."""
        if self.latency_seconds:
            self._sleep(self.latency_seconds)
        with self._fault_lock:
            fault = self._faults.popleft() if self._faults else None
        if fault is not None:
            raise fault
        now = self._clock()
        refused = refusal(request, size_bytes=_size_bytes(request), now=now)
        if refused is not None:
            with self._fault_lock:
                self._refusals.append(refused)
            raise client_error(refused.code, refused.message, status=refused.status)
        self.store(request, now=now)
        return {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}, "RetryAttempts": 0}}


def problem_of(stats: DeliveryStats) -> str:
    """What was lost or is not sent yet, in words; empty if it is nothing.

    >>> problem_of(DeliveryStats(datums_lost={"invalid": 2}, datums_pending=1, last_error="No Region"))
    '2 datum(s) lost: invalid; 1 datum(s) not sent yet, the last error was: No Region'
    """
    problems = [f"{datums} datum(s) lost: {reason}" for reason, datums in stats.datums_lost.items()]
    if stats.datums_pending:
        problems.append(f"{stats.datums_pending} datum(s) not sent yet, the last error was: {stats.last_error}")
    return "; ".join(problems)


def client_error(code: str, message: str = "", *, status: int = 400) -> "ClientError":
    """Make the error that boto3 raises when CloudWatch answers ``put_metric_data`` with this code and HTTP status."""
    from botocore.exceptions import ClientError  # noqa: PLC0415 - botocore is slow to import, and only needed here

    response: Any = {
        "Error": {"Code": code, "Message": message, "Type": "Sender" if status < 500 else "Receiver"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0},
    }
    return ClientError(response, "PutMetricData")


def _size_bytes(request: Mapping[str, Any]) -> int:
    """The length of the JSON that botocore writes, with whole seconds for timestamps."""

    def epoch_seconds(value: object) -> int | str:
        moment = unix_time(value)
        return str(value) if moment is None else int(moment)

    return len(json.dumps(request, default=epoch_seconds))
