"""When a process begins, as a fork of another, and when it ends: ``os`` and ``atexit`` do not know all the ways.

* uWSGI forks its workers behind Python's back unless it is told otherwise (``py-call-osafterfork``), but it has a hook.
* A child that :mod:`multiprocessing` has forked ends with ``os._exit``, which skips ``atexit``, but it runs finalizers.
* Hooks run in the order in which they were registered. OpenTelemetry's, in the child, submits to a thread pool, whose
  module has a hook that frees its lock: so that module is imported here, before anybody makes a meter provider.
* What another thread is importing at the moment of a fork can never be imported in the child, and what OpenSSL has
  locked there stays locked.
"""

import atexit
import concurrent.futures.thread  # noqa: F401 - see above
import contextlib
import importlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Final

_AFTER_ALL_OTHERS: Final = -1000
"""The priority of our finalizers in multiprocessing: the program's own queues and pools come first."""
_LONGEST_DELAY_SECONDS: Final = 5.0


def call_after_fork(method: Callable[[], None]) -> None:
    """Call a bound method in each child that is forked while its object lives, in the order in which they came."""
    _forks.add(method)


def call_at_exit(method: Callable[[], None]) -> Callable[[], None]:
    """Call a bound method at the end of this process or of a fork of it; return what takes that back."""
    return _exits.add(method)


@contextlib.contextmanager
def no_fork() -> Iterator[None]:
    """Let forks wait for the end of the block, though not for ever."""
    with _forks.lock:
        yield


class _Forks:
    """What is called after a fork."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._pid = os.getpid()
        self._methods: list[weakref.WeakMethod[Callable[[], None]]] = []
        self._is_known_to_uwsgi = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._wait, after_in_parent=self._go_on, after_in_child=self.begin)

    def add(self, method: Callable[[], None]) -> None:
        self._methods = [each for each in self._methods if each() is not None]
        self._methods.append(weakref.WeakMethod(method))
        self._is_known_to_uwsgi = self._is_known_to_uwsgi or _call_after_forks_of_uwsgi(self.begin)

    def begin(self) -> None:
        """Begin in the child: once, however many hooks lead here."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self.lock = threading.RLock()  # one of the parent's threads may have held it
        for reference in self._methods:
            if method := reference():
                method()
        _exits.begin()

    def _wait(self) -> None:
        self.lock.acquire(timeout=_LONGEST_DELAY_SECONDS)

    def _go_on(self) -> None:
        with contextlib.suppress(RuntimeError):  # it could not be had in time
            self.lock.release()


class _Exits:
    """What is called at the end."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []

    def add(self, method: Callable[[], None]) -> Callable[[], None]:
        reference = weakref.WeakMethod(method)

        def call() -> None:
            if bound := reference():
                bound()

        def cancel() -> None:
            atexit.unregister(call)
            with contextlib.suppress(ValueError):
                self._calls.remove(call)

        atexit.register(call)
        self._calls.append(call)
        if _is_child_of_multiprocessing():
            _finalize(call)
        return cancel

    def begin(self) -> None:
        """Begin in a forked child, which may be one of multiprocessing's: that forgets all finalizers, then asks."""
        if util := sys.modules.get("multiprocessing.util"):
            util.register_after_fork(self, _Exits._finalize_all)

    def _finalize_all(self) -> None:
        for call in self._calls:
            _finalize(call)


def _is_child_of_multiprocessing() -> bool:
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _finalize(call: Callable[[], None]) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, call, exitpriority=_AFTER_ALL_OTHERS)


def _call_after_forks_of_uwsgi(call: Callable[[], None]) -> bool:
    """Whether this is uWSGI, which has been told; its module can be imported nowhere else."""
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None or not hasattr(uwsgi, "masterpid"):
        return False
    try:
        # It takes the only hook that there is for itself, and shares it.
        importlib.import_module("uwsgidecorators").postfork_chain.append(call)
    except Exception:  # noqa: BLE001 - it is not installed, or there is no master process: it raises a bare Exception
        vars(uwsgi)["post_fork_hook"] = _chained(getattr(uwsgi, "post_fork_hook", None), call)
    return True


def _chained(first: Callable[[], object] | None, then: Callable[[], object]) -> Callable[[], None]:
    def both() -> None:
        if first is not None:
            first()
        then()

    return both


_exits: Final = _Exits()
_forks: Final = _Forks()
