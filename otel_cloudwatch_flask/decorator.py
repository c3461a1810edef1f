"""Decorators that count the calls and failures of a view, as flask-cloudwatch-metric's decorators do."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

__all__ = ["fault_failure_error", "request_count"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_OK: Final = 200
_INTERNAL_SERVER_ERROR: Final = 500


class AddsMetrics(Protocol):
    """Any object with the ``add_metric`` method of a reporter."""

    def add_metric(self, *, metric_name: str, value: float, unit: str, dimensions: list[dict[str, str]]) -> None:
        """Record one value of a metric."""


class _Outcome(Protocol):
    """A callback that receives the value that a view returned, or the exception that the view raised."""

    def __call__(self, returned: object, raised: Exception | None) -> None: ...


def request_count(metrics_reporter: AddsMetrics, resource_name: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a view to count its calls with the metric ``RequestCount``.

    The dimensions are ``ResourceName`` and ``StatusCode``. An exception other than an ``HTTPException`` counts as
    status 500, the status with which Flask responds unless an error handler returns another.

    :param metrics_reporter: reporter whose ``add_metric`` is called.
    :param resource_name: value of the dimension ``ResourceName``, such as the name of the view.
    """

    def count(returned: object, raised: Exception | None) -> None:
        status = status_of(returned) if raised is None else _status_of_exception(raised)
        dimensions = [_dimension("ResourceName", resource_name), _dimension("StatusCode", str(status))]
        metrics_reporter.add_metric(metric_name="RequestCount", value=1, unit="Count", dimensions=dimensions)

    return _call_with_outcome(count)


def fault_failure_error(
    metrics_reporter: AddsMetrics, resource_name: str
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a view to count its unsuccessful calls.

    A 4xx response counts as ``Error``, a 5xx response as ``Fault``, and an exception other than an ``HTTPException`` as
    ``Failure``. The dimension of these metrics is ``ResourceName``.

    :param metrics_reporter: reporter whose ``add_metric`` is called.
    :param resource_name: value of the dimension ``ResourceName``, such as the name of the view.
    """

    def count(returned: object, raised: Exception | None) -> None:
        if name := _failure_metric_name(returned, raised):
            dimensions = [_dimension("ResourceName", resource_name)]
            metrics_reporter.add_metric(metric_name=name, value=1, unit="Count", dimensions=dimensions)

    return _call_with_outcome(count)


def status_of(returned: object) -> int:
    """Return the status code of the response that Flask makes from a view's return value.

    Flask accepts neither ``None`` nor tuples whose length is not 2 or 3, so these count as 500. A body of any other
    type that Flask does not accept counts as 200, because another decorator may convert it.

    https://flask.palletsprojects.com/en/stable/api/#flask.Flask.make_response

    >>> status_of(({"error": "no such cart"}, "404 Not Found", {"X-Cart": "7"}))
    404
    """
    body, status = _body_and_status(returned)
    if body is None:
        return _INTERNAL_SERVER_ERROR  # Flask raises TypeError for such a return value
    return _status_of_body(body) if status is None else _status_code(status)


def _failure_metric_name(returned: object, raised: Exception | None) -> str | None:
    if raised is not None and not isinstance(raised, HTTPException):
        return "Failure"
    status = status_of(returned) if raised is None else _status_of_exception(raised)
    return {4: "Error", 5: "Fault"}.get(status // 100)


def _body_and_status(returned: object) -> tuple[object, Any]:
    """Split a view's return value into body and status. The status is ``None`` if the value does not include one.

    For a tuple of a length that Flask does not accept, both are ``None``.
    """
    if not isinstance(returned, tuple):
        return returned, None
    if len(returned) not in (2, 3):
        return None, None
    body, status = returned[:2]
    # Flask interprets a second element of these types as headers.
    return body, None if isinstance(status, (Headers, dict, tuple, list)) else status


def _status_of_body(body: object) -> int:
    if isinstance(body, Response):
        return body.status_code
    if isinstance(body, HTTPException):
        return _status_of_exception(body)
    return _OK


def _status_of_exception(error: Exception) -> int:
    if not isinstance(error, HTTPException):
        return _INTERNAL_SERVER_ERROR
    if error.response is not None:
        return error.response.status_code
    return _status_code(error.code or _INTERNAL_SERVER_ERROR)


def _status_code(status: Any) -> int:
    """Return the code of a status such as 404, ``HTTPStatus.NOT_FOUND`` or ``"404 Not Found"``.

    An invalid status counts as 500.
    """
    try:
        return int(status.split(None, 1)[0] if isinstance(status, str) else f"{status:d}")
    except (ValueError, TypeError, IndexError):
        return _INTERNAL_SERVER_ERROR


def _call_with_outcome(outcome: _Outcome) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    def decorate(view: Callable[_P, _R]) -> Callable[_P, _R]:
        # A coroutine function needs a coroutine function as its wrapper, or Flask would not await it.
        return _observed_coroutine_function(view, outcome) if _is_async(view) else _observed(view, outcome)

    return decorate


def _is_async(view: object) -> bool:
    return inspect.iscoroutinefunction(view)


def _observed(view: Callable[_P, _R], outcome: _Outcome) -> Callable[_P, _R]:
    @wraps(view)
    def observed(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            returned = view(*args, **kwargs)
        except Exception as error:
            outcome(None, error)
            raise
        outcome(returned, None)
        return returned

    return observed


def _observed_coroutine_function(view: Callable[_P, Any], outcome: _Outcome) -> Callable[_P, Any]:
    @wraps(view)
    async def observed(*args: _P.args, **kwargs: _P.kwargs) -> Any:
        try:
            returned = await view(*args, **kwargs)
        except Exception as error:
            outcome(None, error)
            raise
        outcome(returned, None)
        return returned

    return observed


def _dimension(name: str, value: str) -> dict[str, str]:
    return {"Name": name, "Value": value}
