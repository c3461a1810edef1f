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


def request_count(metrics_reporter: AddsMetrics, resource_name: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a view to count its calls with the metric ``RequestCount``.

    The dimensions are ``ResourceName`` and ``StatusCode``. An exception other than an ``HTTPException`` counts as
    status 500.

    :param metrics_reporter: reporter whose ``add_metric`` is called.
    :param resource_name: value of the dimension ``ResourceName``, such as the name of the view.
    """

    def count(outcome: object) -> None:
        dimensions = [_dimension("ResourceName", resource_name), _dimension("StatusCode", str(status_of(outcome)))]
        metrics_reporter.add_metric(metric_name="RequestCount", value=1, unit="Count", dimensions=dimensions)

    return lambda view: _observed(view, count)


def fault_failure_error(
    metrics_reporter: AddsMetrics, resource_name: str
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a view to count its unsuccessful calls.

    A 4xx response counts in the metric ``Error``, a 5xx response in ``Fault``, and an exception other than an
    ``HTTPException`` in ``Failure``. The only dimension is ``ResourceName``.

    :param metrics_reporter: reporter whose ``add_metric`` is called.
    :param resource_name: value of the dimension ``ResourceName``, such as the name of the view.
    """

    def count(outcome: object) -> None:
        if name := _failure_metric_name(outcome):
            dimensions = [_dimension("ResourceName", resource_name)]
            metrics_reporter.add_metric(metric_name=name, value=1, unit="Count", dimensions=dimensions)

    return lambda view: _observed(view, count)


def status_of(outcome: object) -> int:
    """Return the status code of the response that Flask makes from what a view returned or raised.

    ``None``, tuples whose length is not 2 or 3, and exceptions other than ``HTTPException`` count as 500. A WSGI
    application without a status code counts as 200, because it has not been called yet. So does a body of any other
    type that Flask does not accept, because another decorator may convert it.

    https://flask.palletsprojects.com/en/stable/api/#flask.Flask.make_response

    >>> status_of(({"error": "no such cart"}, "404 Not Found", {"X-Cart": "7"}))
    404
    """
    body, status = outcome, None
    if isinstance(outcome, tuple):
        body, status, *_ = outcome if len(outcome) in (2, 3) else (None, None)
        # Flask interprets the second of two elements as headers if it has one of these types.
        if len(outcome) == 2 and isinstance(status, (Headers, dict, tuple, list)):
            status = None
    if body is None:
        return _INTERNAL_SERVER_ERROR  # Flask raises TypeError for such a return value
    return _status_of_body(body) if status is None else _status_code(status)


def _failure_metric_name(outcome: object) -> str | None:
    if isinstance(outcome, Exception) and not isinstance(outcome, HTTPException):
        return "Failure"
    return {4: "Error", 5: "Fault"}.get(status_of(outcome) // 100)


def _status_of_body(body: object) -> int:
    if isinstance(body, Response):
        return body.status_code
    if isinstance(body, HTTPException):
        return body.response.status_code if body.response else _status_code(body.code)
    return _INTERNAL_SERVER_ERROR if isinstance(body, Exception) else _OK


def _status_code(status: Any) -> int:
    """Return the code of a status such as 404, ``HTTPStatus.NOT_FOUND`` or ``"404 Not Found"``.

    An invalid status counts as 500.
    """
    try:
        return int(status.split(None, 1)[0] if isinstance(status, str) else f"{status:d}")
    except (ValueError, TypeError, IndexError):
        return _INTERNAL_SERVER_ERROR


def _observed(view: Callable[_P, _R], count: Callable[[object], None]) -> Callable[_P, _R]:
    """Wrap ``view`` so that ``count`` is called with what the view returns or the exception that it raises."""
    # A coroutine function needs a coroutine function as its wrapper, or Flask would not await it.
    if inspect.iscoroutinefunction(view):
        return _observed_coroutine_function(view, count)

    @wraps(view)
    def observed(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            returned = view(*args, **kwargs)
        except Exception as error:
            count(error)
            raise
        count(returned)
        return returned

    return observed


def _observed_coroutine_function(view: Callable[_P, Any], count: Callable[[object], None]) -> Callable[_P, Any]:
    @wraps(view)
    async def observed(*args: _P.args, **kwargs: _P.kwargs) -> Any:
        try:
            returned = await view(*args, **kwargs)
        except Exception as error:
            count(error)
            raise
        count(returned)
        return returned

    return observed


def _dimension(name: str, value: str) -> dict[str, str]:
    return {"Name": name, "Value": value}
