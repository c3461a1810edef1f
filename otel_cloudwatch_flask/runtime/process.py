"""Hooks for forks and for process exit, including the cases that ``os`` and ``atexit`` do not cover.

* SIGTERM skips ``atexit`` unless the process handles it. Waitress, Werkzeug's server without its reloader, and most
  scripts do not handle it.
* A signal handler interrupts the main thread, which may hold a lock that another thread needs to collect and send
  metrics. While the handler waits for that thread, the main thread cannot release the lock.
* gevent's hub, which runs the signal handlers of a program that is idle, must not wait for anything.
* uWSGI forks its workers without running ``os.register_at_fork`` hooks, unless ``py-call-osafterfork`` is set. It
  offers a separate hook.
* Forked children of :mod:`multiprocessing` run its finalizers, then end with ``os._exit``, which skips ``atexit``.
* Processes of Celery's prefork pool end with ``os._exit``, without finalizers. Before that, Celery dispatches its
  ``worker_process_shutdown`` signal, which is not a signal of the operating system.
* RQ's default worker runs each job in a process that it ends with ``os._exit``, without finalizers or a hook.
* In a forked child, hooks run in registration order. OpenTelemetry's hook submits work to a thread pool in the child,
  which fails unless the hook of ``concurrent.futures.thread`` has already released that module's lock. This module
  therefore imports ``concurrent.futures.thread`` before any meter provider exists.
* If another thread is importing a module during a fork, the child can never import that module. Likewise, locks that
  OpenSSL holds during a fork stay locked in the child. See :func:`no_fork`.
"""

import _thread
import atexit
import concurrent.futures.thread  # noqa: F401 - see above
import contextlib
import importlib
import logging
import math
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType, MethodType
from typing import Final, Literal, NoReturn, TypeAlias, cast, get_args

_logger = logging.getLogger(__name__)

Reason: TypeAlias = Literal["set-up", "import", "new metric"]
"""The reason to delay forks. A thread with one reason does not wait for threads with another.

Set-ups come first, because they can take longest, and a fork that waits for one must not delay the other threads.
"""

_Functions: TypeAlias = "weakref.WeakKeyDictionary[object, Callable[..., None]]"

_AFTER_ALL_OTHERS: Final = -1000
"""The priority of this package's multiprocessing finalizers. Low, so that queues and pools are finalized first."""
_LONGEST_DELAY_SECONDS: Final = 5.0
_MODULES_WITH_LOCKS: Final = (
    "importlib",
    "_frozen_importlib",
    "logging",
    "opentelemetry.sdk",
    "otel_cloudwatch_flask.delivery",
)
"""Modules whose functions hold locks that a reader's thread may need. Their submodules are included."""
_LONGEST_WAIT_SECONDS: Final = 1.0
"""How long the SIGTERM handler waits for such functions, which may also be running the whole program (an import)."""
_SIGNAL_AGAIN_SECONDS: Final = 0.01
_JOB_OF_RQ: Final = "RQ_JOB_ID"
"""The environment variable that RQ sets in the process of each job."""


def call_after_fork(forget: Callable[[], None], start: Callable[[], None] | None = None) -> None:
    """Call bound methods of an object in every forked child, in registration order, for as long as the object lives.

    :param forget: drops the parent's data and locks. Must not do I/O or anything else that can fail, because a child
        that keeps the data would send it a second time.
    :param start: called after all ``forget`` methods have run. It may do things that can fail.
    """
    _forks.add(forget, start)


def call_at_exit(function: Callable[[], None]) -> None:
    """Call ``function`` when this process or a fork of it exits. Registering a function again has no effect."""
    _exits.add(function)


def handle_sigterm() -> None:
    """Run the exit hooks on SIGTERM, unless the program or its server handles that signal.

    Only the main thread can set a handler, so calls in other threads do nothing. Once the main thread has called this
    function, further calls do nothing either.
    """
    _exits.handle_sigterm()


def hold_sigterm() -> contextlib.AbstractContextManager[None]:
    """Return a context manager that delays the effect of SIGTERM until the ``with`` block ends.

    Has no effect unless :func:`handle_sigterm` has set the handler.
    """
    return _exits.hold_sigterm()


@contextlib.contextmanager
def no_fork(reason: Reason = "import") -> Iterator[None]:
    """Delay forks until the ``with`` block ends, but by at most 5 seconds for each reason.

    Only one thread at a time can be in a block with the same ``reason``. It may enter such a block again.
    """
    with _forks.locks[reason]:
        yield


class _ForkHooks:
    """The registry of methods to call after a fork."""

    def __init__(self) -> None:
        self.locks = _locks()
        self._pid = os.getpid()
        # The methods' functions, keyed weakly by their objects, so that an object's hooks are removed with the object.
        self._forgets: _Functions = weakref.WeakKeyDictionary()
        self._starts: _Functions = weakref.WeakKeyDictionary()
        self._has_uwsgi_hook = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._acquire, after_in_parent=self._release, after_in_child=self.run_in_child)

    def add(self, forget: Callable[[], None], start: Callable[[], None] | None) -> None:
        for method, functions in ((forget, self._forgets), (start, self._starts)):
            if method is not None:
                bound = cast("MethodType", method)
                functions[bound.__self__] = bound.__func__
        self._has_uwsgi_hook = self._has_uwsgi_hook or _call_after_forks_of_uwsgi(self.run_in_child)

    def run_in_child(self) -> None:
        """Run the hooks once per forked child, even if both Python and uWSGI call this method."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self.locks = _locks()  # another thread of the parent may have held one
        # Every object drops the parent's state before any object starts, because starting may use other objects.
        for each, function in [*self._forgets.items(), *self._starts.items()]:
            _run_guarded(MethodType(function, each))
        _exits.start_in_child()

    def _acquire(self) -> None:
        for each in self.locks.values():
            each.acquire(timeout=_LONGEST_DELAY_SECONDS)

    def _release(self) -> None:
        for each in self.locks.values():
            with contextlib.suppress(RuntimeError):  # acquiring timed out
                each.release()


def _locks() -> "dict[Reason, threading.RLock]":
    return {reason: threading.RLock() for reason in get_args(Reason)}


class _ExitHooks:
    """The registry of functions to call at exit."""

    def __init__(self) -> None:
        self._functions: list[Callable[[], None]] = []
        self._looks_at_sigterm = True
        self._forget_signals()
        self._has_celery_hook = self._has_rq_hook = False

    def _forget_signals(self) -> None:
        self._is_signalled = self._signals_itself = self._has_begun = False
        self._latest_end = math.inf
        self._holds: list[None] = []  # an item for each block that holds SIGTERM; changing a list is atomic

    def handle_sigterm(self) -> None:
        if self._looks_at_sigterm and threading.current_thread() is threading.main_thread():
            self._looks_at_sigterm = False
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                with contextlib.suppress(ValueError):  # a subinterpreter
                    signal.signal(signal.SIGTERM, self._end)

    def _end(self, _number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM: run the hooks, then end the process as the default handler does.

        Inside a :meth:`hold_sigterm` block, only remember the signal until the block ends. If the signal interrupted
        code that may hold a lock, first let it continue. A second SIGTERM has no effect.
        """
        self._is_signalled = True
        if not self._holds and not self._must_continue(frame):
            self._holds.append(None)
            self._has_begun = True
            if _is_hub_of_gevent():
                sys.modules["gevent"].spawn(self._run_and_end)
            else:
                self._run_and_end()

    def _run_and_end(self) -> None:
        self._run()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    def _must_continue(self, frame: FrameType | None) -> bool:
        """Return whether ``frame`` may hold a lock and there is time left. If so, arrange for another signal."""
        now = time.monotonic()
        self._latest_end = min(self._latest_end, now + _LONGEST_WAIT_SECONDS)
        return now < self._latest_end and _may_hold_a_lock(frame) and self._signal_again()

    def _signal_again(self) -> bool:
        """Let a thread send SIGTERM until the hooks run. Returns ``False`` if the thread cannot be started.

        One signal might not suffice: if it arrives just before the main thread begins to wait in a C function, the
        handler does not run before the next signal.
        """
        if not self._signals_itself:
            self._signals_itself = True
            try:
                # Not a threading.Thread, because the main thread may be holding a lock of that module, too.
                _thread.start_new_thread(self._signal_until_handled, ())
            except RuntimeError:  # too many threads, or the interpreter is shutting down
                self._signals_itself = False
                return False
        return True

    def _signal_until_handled(self) -> None:
        is_ours = True
        while is_ours and not self._has_begun:
            time.sleep(_SIGNAL_AGAIN_SECONDS)
            is_ours = signal.getsignal(signal.SIGTERM) == self._end
            os.kill(os.getpid(), signal.SIGTERM)
        self._signals_itself = False

    def _run(self) -> None:
        for function in self._functions:
            _run_guarded(function)

    @contextlib.contextmanager
    def hold_sigterm(self) -> Iterator[None]:
        self._holds.append(None)
        try:
            yield
        finally:
            self._holds.pop()
            if self._is_signalled and not self._holds:
                os.kill(os.getpid(), signal.SIGTERM)
                self._signal_again()

    def add(self, function: Callable[[], None]) -> None:
        if function not in self._functions:
            self._functions.append(function)
            atexit.register(function)
            if _is_child_of_multiprocessing():
                self._finalize()
            self._finalize_in_child()
        self._hook_into_job_workers()

    def start_in_child(self) -> None:
        """Restore the hooks that a forked child does not inherit.

        Also hook into Celery and RQ if they have been imported since the last call to :meth:`add`.
        """
        self._forget_signals()
        self._finalize_in_child()
        self._hook_into_job_workers()

    def _finalize_in_child(self) -> None:
        """Register the finalizers again when a ``multiprocessing`` child starts, because the child clears them then.

        This also works in spawned children, because they import the program's main module first.
        """
        if util := sys.modules.get("multiprocessing.util"):
            util.register_after_fork(self, _ExitHooks._finalize)

    def _hook_into_job_workers(self) -> None:
        """Arrange for the hooks to run when worker processes of Celery or RQ end.

        Does nothing for a library that the program has not imported.
        """
        self._has_celery_hook = self._has_celery_hook or _call_at_exit_of_celery(self._end_job_worker)
        self._has_rq_hook = self._has_rq_hook or _call_at_exit_of_rq(self._end_job_worker)

    def _finalize(self) -> None:
        sys.modules["multiprocessing.util"].Finalize(None, self._run, exitpriority=_AFTER_ALL_OTHERS)

    def _end_job_worker(self, **_arguments_of_celery: object) -> None:
        """Run the hooks in a process that is about to end. Ignores SIGTERM, so that it cannot interrupt them."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _outlive_parent_thread()
        self._run()


def _outlive_parent_thread() -> None:
    """Let a process of Celery's pool finish even if the thread that forked it ends.

    Celery asks Linux to kill the processes of its pool when their parent ends. Linux also does that when only the
    thread that forked them ends, and in a warm shutdown, the thread that replaces processes may end before they do.
    """
    set_parent_death_signal = getattr(sys.modules.get("billiard.util"), "set_pdeathsig", None)
    if set_parent_death_signal is not None:
        with contextlib.suppress(Exception):  # not available on this platform
            set_parent_death_signal(0)


def _run_guarded(hook: Callable[[], None]) -> None:
    try:
        hook()
    except Exception:  # boundary: a hook that fails must not keep the others from running
        _logger.exception(
            "A fork or exit hook failed: metrics from this process may be lost or counted twice. Report a bug, and "
            "include the traceback."
        )


def _may_hold_a_lock(frame: FrameType | None) -> bool:
    """Return whether ``frame`` or one of its callers is a function of a module with locks."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(_MODULES_WITH_LOCKS):
            return True
        frame = frame.f_back
    return False


def _is_hub_of_gevent() -> bool:
    """Return whether the current greenlet is the hub of gevent, which runs the others and therefore cannot wait."""
    hub = sys.modules.get("gevent.hub")
    return hub is not None and isinstance(hub.getcurrent(), hub.Hub)


def _is_child_of_multiprocessing() -> bool:
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _call_at_exit_of_celery(call: Callable[..., None]) -> bool:
    """Call ``call`` whenever a process of Celery's prefork pool ends. Returns ``False`` if Celery is not loaded."""
    shutdown = getattr(sys.modules.get("celery.signals"), "worker_process_shutdown", None)
    if shutdown is None:
        return False
    shutdown.connect(call, weak=False)
    return True


def _call_at_exit_of_rq(call: Callable[[], None]) -> bool:
    """Call ``call`` before ``os._exit`` ends the process of an RQ job. Returns ``False`` if RQ is not loaded."""
    if "rq" not in sys.modules:
        return False
    exit_now = os._exit

    def call_and_exit(status: int) -> NoReturn:
        if _JOB_OF_RQ in os.environ:
            call()
        exit_now(status)

    # RQ may import the program, and thus this module, only after a job has begun, so no earlier hook is available.
    vars(os)["_exit"] = call_and_exit
    return True


def _call_after_forks_of_uwsgi(call: Callable[[], None]) -> bool:
    """Register ``call`` as a uWSGI post-fork hook. Returns ``False`` if this process is not running under uWSGI."""
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None or not hasattr(uwsgi, "masterpid"):
        return False
    try:
        # uWSGI has only one hook. Its uwsgidecorators module occupies that hook, and lets others share it.
        importlib.import_module("uwsgidecorators").postfork_chain.append(call)
    except Exception:  # noqa: BLE001 - not installed, or there is no master process: it then raises a bare Exception
        programs_hook = getattr(uwsgi, "post_fork_hook", None) or (lambda: None)

        def run_both() -> None:
            programs_hook()
            call()

        vars(uwsgi)["post_fork_hook"] = run_both
    return True


_exits: Final = _ExitHooks()
_forks: Final = _ForkHooks()
