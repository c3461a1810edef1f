"""A WSGI application that stores metrics and answers queries like CloudWatch, and is as strict."""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Request, Response

from otel_cloudwatch_flask.testing.emf_lines import EmfStream
from otel_cloudwatch_flask.testing.local.json_protocol import (
    error_response,
    operation_of,
    parameters_of,
    response_of,
    uncompressed,
)
from otel_cloudwatch_flask.testing.local.queries import list_metrics, metric_data, metric_statistics
from otel_cloudwatch_flask.testing.published import PublishedMetrics
from otel_cloudwatch_flask.testing.request_rules import ValidationError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_MAX_ERRORS_KEPT: Final = 100
_QUERIES: Final = {
    "GetMetricData": metric_data,
    "GetMetricStatistics": metric_statistics,
    "ListMetrics": list_metrics,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """An error response to PutMetricData.

    :param code: CloudWatch's error code.
    :param status: HTTP status. ``None`` closes the connection without a response.
    :param after_storing: if true, the datums are stored first, as if the response were lost on its way to the client.
    """

    code: str = "InternalServiceError"
    status: int | None = 500
    after_storing: bool = False


@dataclass(frozen=True, slots=True)
class Traffic:
    """The numbers of requests, bytes and datums that LocalCloudWatch has received.

    :param put_requests: PutMetricData requests, and EMF lines that are equivalent to one.
    :param refused: refused requests of all kinds, and refused EMF lines.
    :param faulted: PutMetricData requests that were answered with a :class:`Fault`.
    :param bytes_received: bytes in the bodies of PutMetricData requests, as received.
    :param bytes_uncompressed: bytes in the bodies of PutMetricData requests, after decompression.
    :param datums: accepted datums.
    """

    put_requests: int = 0
    refused: int = 0
    faulted: int = 0
    bytes_received: int = 0
    bytes_uncompressed: int = 0
    datums: int = 0


class CloudWatchApplication:
    """A WSGI application that validates, counts and stores PutMetricData requests, and answers queries.

    The arguments are those of :class:`~otel_cloudwatch_flask.testing.local.server.LocalCloudWatch`.
    """

    def __init__(
        self,
        *,
        latency_seconds: float = 0,
        answer_with: Callable[[Mapping[str, Any]], Fault | None] | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.published = PublishedMetrics()
        self.dashboards: dict[str, str] = {}
        """The body of each dashboard that was created, by name. Bodies are not validated."""
        self.latency_seconds = latency_seconds
        self.answer_with = answer_with
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self.traffic = Traffic()
        """The traffic since this object was created."""
        self._validation_errors: deque[ValidationError] = deque(maxlen=_MAX_ERRORS_KEPT)
        self._faults: deque[Fault] = deque()
        self.stream = EmfStream(self._put_line, refuse=self._refuse)
        """A text stream that publishes the EMF lines written to it, such as the output of a child process."""

    @property
    def validation_errors(self) -> list[ValidationError]:
        """The errors of the last 100 refused requests and EMF lines, oldest first."""
        with self._lock:
            return list(self._validation_errors)

    def fail_next(self, fault: Fault, *, times: int = 1) -> None:
        """Answer the next ``times`` PutMetricData requests with ``fault``, after any faults from earlier calls.

        :param fault: the error response.
        :param times: number of requests that fail.
        """
        with self._lock:
            self._faults.extend([fault] * times)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request, as a WSGI application."""
        request = Request(environ)
        try:
            response = self._answer(request)
        except ValidationError as error:
            self._refuse(error)
            response = error_response(error)
        except ClientDisconnected as error:  # in the middle of the body
            return error(environ, start_response)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        received = request.get_data()
        operation = operation_of(request)
        body = uncompressed(received, request.headers.get("Content-Encoding", ""))
        parameters = parameters_of(body)
        if operation == "PutMetricData":
            self._count(put_requests=1, bytes_received=len(received), bytes_uncompressed=len(body))
            return self._put_metric_data(parameters, len(body), request)
        if operation in _QUERIES:
            return response_of(_QUERIES[operation](self.published.accepted, parameters))
        if operation == "PutDashboard":
            self.dashboards[parameters["DashboardName"]] = parameters["DashboardBody"]
            return response_of({"DashboardValidationMessages": []})
        raise ValidationError("UnknownOperationException", f"LocalCloudWatch does not support {operation}.")

    def _put_metric_data(self, parameters: Mapping[str, Any], size_bytes: int, request: Request) -> Response:
        if self.latency_seconds:
            self._sleep(self.latency_seconds)
        fault = self._next_fault(parameters)
        if fault is None or fault.after_storing:
            self._store(parameters, size_bytes)
        return response_of({}) if fault is None else _failure(fault, request)

    def _store(self, parameters: Mapping[str, Any], size_bytes: int | None) -> None:
        self._count(datums=self.published.store(parameters, size_bytes=size_bytes, now=self._clock()))

    def _put_line(self, parameters: Mapping[str, Any]) -> None:
        self._count(put_requests=1)
        self._store(parameters, None)

    def _next_fault(self, parameters: Mapping[str, Any]) -> Fault | None:
        with self._lock:
            fault = self._faults.popleft() if self._faults else None
        # Called without the lock, because the function may use this object.
        if fault is None and self.answer_with is not None:
            fault = self.answer_with(parameters)
        if fault is not None:
            self._count(faulted=1)
        return fault

    def _refuse(self, error: ValidationError) -> None:
        with self._lock:
            self._validation_errors.append(error)
        self._count(refused=1)

    def _count(self, **more: int) -> None:
        with self._lock:
            figures = {name: getattr(self.traffic, name) + number for name, number in more.items()}
            self.traffic = replace(self.traffic, **figures)


def _failure(fault: Fault, request: Request) -> Response:
    if fault.status is None:
        connection: socket.socket = request.environ["werkzeug.socket"]
        connection.shutdown(socket.SHUT_RDWR)
        # werkzeug's server treats this exception as a client that has disconnected, and does not log it.
        raise ConnectionResetError("The connection was closed by a Fault.")
    return error_response(ValidationError(fault.code, "Fault injected by a test.", fault.status))
