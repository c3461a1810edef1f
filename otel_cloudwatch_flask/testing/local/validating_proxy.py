"""A WSGI proxy that is as strict as CloudWatch, in front of moto, which is not.

moto stores requests that CloudWatch would refuse. The proxy validates each PutMetricData request, counts the traffic,
answers the operations in which moto differs from CloudWatch, and forwards all others (alarms, dashboards, metric math).
"""

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Request, Response

from otel_cloudwatch_flask.observation.tally import content_of, summary
from otel_cloudwatch_flask.testing.local.protocols import (
    JSON_TYPE,
    TARGET_PREFIX,
    Call,
    UnreadableCallError,
    read_call,
    uncompressed,
)
from otel_cloudwatch_flask.testing.local.queries import list_metrics, metric_data, metric_statistics
from otel_cloudwatch_flask.testing.published import PublishedMetrics
from otel_cloudwatch_flask.testing.request_rules import ValidationError, datums_of, validation_error

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_MAX_ERRORS_KEPT: Final = 100
_MAX_SAMPLES_FOR_MOTO: Final = 1000
_STATISTICS: Final = ("SampleCount", "Sum", "Minimum", "Maximum")
_MOTOS_PUT: Final = {"CONTENT_TYPE": JSON_TYPE, "HTTP_X_AMZ_TARGET": f"{TARGET_PREFIX}.PutMetricData"}
_UNREADABLE: Final = Call("", {})


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
    """The numbers of requests, bytes and datums that the proxy has processed.

    :param put_requests: PutMetricData requests.
    :param refused: unreadable requests, invalid PutMetricData requests, and invalid EMF lines.
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


class ValidatingProxy:
    """A WSGI application that validates and counts PutMetricData requests before it forwards them to moto.

    The attributes ``latency_seconds`` and ``answer_with`` may be changed at any time.

    :param backend: moto's WSGI application.
    :param latency_seconds: delay before the response to each PutMetricData request.
    :param answer_with: function that receives the parameters of each PutMetricData request, and may return a fault.
    :param clock: function that returns the current time in Unix seconds.
    :param sleep: function that waits for a number of seconds.
    """

    def __init__(
        self,
        backend: "WSGIApplication",
        *,
        latency_seconds: float = 0,
        answer_with: Callable[[Mapping[str, Any]], Fault | None] | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.published = PublishedMetrics()
        self.latency_seconds = latency_seconds
        self.answer_with = answer_with
        self._backend = backend
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._traffic = Traffic()
        self._validation_errors: deque[ValidationError] = deque(maxlen=_MAX_ERRORS_KEPT)
        self._faults: deque[Fault] = deque()

    @property
    def traffic(self) -> Traffic:
        """The traffic since the proxy was created."""
        with self._lock:
            return self._traffic

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
            received = request.get_data()
            body = uncompressed(received, request.headers.get("Content-Encoding", ""))
            call = read_call(request, body)
        except UnreadableCallError as error:
            response = _UNREADABLE.answer(self._rejected(error.response))
        except ClientDisconnected as error:  # in the middle of the body
            return error(environ, start_response)
        else:
            if call is not None and call.operation == "PutMetricData":
                self._count(put_requests=1, bytes_received=len(received), bytes_uncompressed=len(body))
                response = self._put_metric_data(call, len(body), environ)
            else:
                response = self._answer(call) or self._forward(body, environ)
        return response(environ, start_response)

    def _answer(self, call: Call | None) -> Response | None:
        """Answer a request for an operation in which moto differs from CloudWatch.

        Returns ``None`` for all other operations, and for GetMetricData with a math expression.
        """
        answer_of = {"GetMetricStatistics": metric_statistics, "GetMetricData": metric_data}
        if call is not None and call.operation == "ListMetrics":
            return call.answer(list_metrics(self.published.metrics(), call.parameters))
        if call is not None and call.operation in answer_of:
            answer = answer_of[call.operation](self.published.accepted, call.parameters)
            return None if answer is None else call.answer(answer)
        return None

    def _put_metric_data(self, call: Call, size_bytes: int, environ: "WSGIEnvironment") -> Response:
        if self.latency_seconds:
            self._sleep(self.latency_seconds)
        fault = self._next_fault(call.parameters)
        if fault is not None and not fault.after_storing:
            return _failure(fault, call, environ)
        now = self._clock()
        invalid = validation_error(call.parameters, size_bytes=size_bytes, now=now)
        if invalid is not None:
            return call.answer(self._rejected(invalid))
        response = self._stored(call, environ, now)
        return response if fault is None else _failure(fault, call, environ)

    def _stored(self, call: Call, environ: "WSGIEnvironment", now: float) -> Response:
        response = self._forward(_for_moto(call.parameters), {**environ, **_MOTOS_PUT})
        # Only stored here if moto has stored it too, so that both give consistent answers.
        if response.status_code != 200:
            return response
        self._count(datums=self.published.store(call.parameters, now=now))
        return call.answer({})

    def _next_fault(self, parameters: Mapping[str, Any]) -> Fault | None:
        with self._lock:
            fault = self._faults.popleft() if self._faults else None
        # Called without the lock, because the function may use the proxy.
        if fault is None and self.answer_with is not None:
            fault = self.answer_with(parameters)
        if fault is not None:
            self._count(faulted=1)
        return fault

    def _forward(self, body: bytes, environ: "WSGIEnvironment") -> Response:
        environ = {**environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        # The body has been read and decompressed, so the headers that describe its encoding no longer apply.
        for name in ("HTTP_CONTENT_ENCODING", "HTTP_TRANSFER_ENCODING", "wsgi.input_terminated", "werkzeug.request"):
            environ.pop(name, None)
        return Response.from_app(self._backend, environ, buffered=True)

    def _rejected(self, error: ValidationError) -> ValidationError:
        with self._lock:
            self._validation_errors.append(error)
        self._count(refused=1)
        return error

    def _count(self, **more: int) -> None:
        with self._lock:
            figures = {name: getattr(self._traffic, name) + number for name, number in more.items()}
            self._traffic = replace(self._traffic, **figures)


def _for_moto(parameters: Mapping[str, Any]) -> bytes:
    """Encode a request in a form that moto can store.

    moto does not support entities, so datums are sent without their entities. moto also creates an object for each
    sample, so large distributions are sent as statistic sets.
    """
    datums = list(map(_summarized, datums_of(parameters)))
    return json.dumps({"Namespace": parameters["Namespace"], "MetricData": datums}).encode()


def _summarized(datum: Mapping[str, Any]) -> Mapping[str, Any]:
    if sum(datum.get("Counts") or ()) <= _MAX_SAMPLES_FOR_MOTO:
        return datum
    content = summary(content_of(datum))
    statistics = dict(zip(_STATISTICS, content[:4], strict=True))
    return {**{name: datum[name] for name in datum if name not in ("Values", "Counts")}, "StatisticValues": statistics}


def _failure(fault: Fault, call: Call, environ: "WSGIEnvironment") -> Response:
    if fault.status is None:
        connection: socket.socket = environ["werkzeug.socket"]
        connection.shutdown(socket.SHUT_RDWR)
        # werkzeug's server treats this exception as a client that has disconnected, and does not log it.
        raise ConnectionResetError("The connection was closed by a Fault.")
    return call.answer(ValidationError(fault.code, "Fault injected by a test.", fault.status))
