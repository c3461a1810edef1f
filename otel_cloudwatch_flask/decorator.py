"""Decorators for views: how often each was called, and how often it failed."""

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
    """What the decorators need of a reporter."""

    def add_metric(self, *, metric_name: str, value: float, unit: str, dimensions: list[dict[str, str]]) -> None:
        """Add one metric."""


class _Outcome(Protocol):
    """What is counted of one call: the value that the view returned, or the exception that it raised."""

    def __call__(self, returned: object, raised: Exception | None) -> None: ...


def request_count(metrics_reporter: AddsMetrics, resource_name: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Count the calls of a view as ``RequestCount``, by ``ResourceName`` and ``StatusCode``.

    An exception that is no HTTP response counts as 500, which is what Flask answers unless a handler is registered
    for it.
    """

    def count(returned: object, raised: Exception | None) -> None:
        status = status_of(returned) if raised is None else _status_of_exception(raised)
        dimensions = [_dimension("ResourceName", resource_name), _dimension("StatusCode", str(status))]
        metrics_reporter.add_metric(metric_name="RequestCount", value=1, unit="Count", dimensions=dimensions)

    return _observing(count)


def fault_failure_error(
    metrics_reporter: AddsMetrics, resource_name: str
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Count a view's bad ends, by ``ResourceName``.

    ``Error`` is a 4xx response, ``Fault`` a 5xx response, ``Failure`` an exception that is no HTTP response.
    """

    def count(returned: object, raised: Exception | None) -> None:
        if name := _name_of_bad_end(returned, raised):
            dimensions = [_dimension("ResourceName", resource_name)]
            metrics_reporter.add_metric(metric_name=name, value=1, unit="Count", dimensions=dimensions)

    return _observing(count)


def status_of(returned: object) -> int:
    """The status code that Flask makes of a view's return value.

    https://flask.palletsprojects.com/en/stable/api/#flask.Flask.make_response

    >>> status_of(({"error": "no such cart"}, "404 Not Found", {"X-Cart": "7"}))
    404
    """
    body, status = _body_and_status(returned)
    if body is None:
        return _INTERNAL_SERVER_ERROR  # Flask refuses it
    return _status_of_body(body) if status is None else _status_code(status)


def _name_of_bad_end(returned: object, raised: Exception | None) -> str | None:
    if raised is not None and not isinstance(raised, HTTPException):
        return "Failure"
    status = status_of(returned) if raised is None else _status_of_exception(raised)
    return {4: "Error", 5: "Fault"}.get(status // 100)


def _body_and_status(returned: object) -> tuple[object, Any]:
    """The body, and the status that stands beside it; ``None`` if none does."""
    if not isinstance(returned, tuple):
        return returned, None
    if len(returned) not in (2, 3):
        return None, None
    body, beside = returned[:2]
    return body, None if isinstance(beside, (Headers, dict, tuple, list)) else beside


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
    """The code of a status given as 404, ``HTTPStatus.NOT_FOUND`` or ``"404 Not Found"``; of no such thing, 500."""
    try:
        return int(status.split(None, 1)[0] if isinstance(status, str) else f"{status:d}")
    except (ValueError, TypeError, IndexError):
        return _INTERNAL_SERVER_ERROR


def _observing(outcome: _Outcome) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    def decorate(view: Callable[_P, _R]) -> Callable[_P, _R]:
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
