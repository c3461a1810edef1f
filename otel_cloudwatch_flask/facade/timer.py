"""The timer, which measures the duration of a block or of function calls."""

import inspect
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Timer:
    """Calls ``record`` with the elapsed time in milliseconds, even if an exception is raised.

    As a context manager, it times one block at a time. As a decorator of a function or coroutine function, it times
    each call separately, and calls may overlap.
    """

    def __init__(self, record: Callable[[float], None]) -> None:
        self._record = record
        self._started_at = 0.0

    def __enter__(self) -> "Timer":  # noqa: PYI034 - Python 3.10's typing has no Self
        self._started_at = time.perf_counter()
        return self

    def __exit__(self, *_error: object) -> None:
        self._record((time.perf_counter() - self._started_at) * 1000)

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Wrap ``function`` so that each call is timed."""
        if inspect.iscoroutinefunction(function):
            return self._timed_coroutine_function(function)

        @wraps(function)
        def timed(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with Timer(self._record):  # a separate timer, because calls may overlap
                return function(*args, **kwargs)

        return timed

    def _timed_coroutine_function(self, function: Callable[_P, Any]) -> Callable[_P, Any]:
        @wraps(function)
        async def timed(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            with Timer(self._record):
                return await function(*args, **kwargs)

        return timed
