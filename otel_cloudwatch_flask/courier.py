"""A thread that makes the calls which may hang, so that nobody waits for one longer than he wants to."""

import queue
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

THREAD_NAME: Final = "CloudWatchCourier"


class Errand(Generic[_Item, _Result]):
    """One call for one item, which goes on whether somebody waits for it or not."""

    def __init__(self, item: _Item) -> None:
        self.item = item
        self._results: list[_Result] = []
        self._error: BaseException | None = None
        self._is_done = False
        self._is_news = threading.Event()
        self._afterwards: list[Callable[[], object]] = []

    def wait(self, seconds: float) -> bool:
        """Whether the call is done within so many seconds, or before somebody interrupts."""
        if not self._is_done:
            self._is_news.wait(min(max(seconds, 0.0), threading.TIMEOUT_MAX))
        return self._is_done

    def interrupt(self) -> None:
        """End the waiting of whoever waits, and of whoever comes; the call goes on."""
        self._is_news.set()

    def forget_interruption(self) -> None:
        """Let those wait who come from now on."""
        self._is_news.clear()

    def result(self) -> _Result:
        """What the call returned, or raised, once :meth:`wait` has said that it is done."""
        if self._error is not None:
            raise self._error
        return self._results[0]

    def and_then(self, call: Callable[[], object]) -> None:
        """Make another call where this one is made, after it; whoever finds it done has to look for himself."""
        self._afterwards.append(call)

    def run(self, call: Callable[[_Item], _Result]) -> None:
        """Make the call, in whatever thread this is."""
        try:
            self._results.append(call(self.item))
        except BaseException as error:  # noqa: BLE001 - handed over to the one who waits
            self._error = error
        finally:
            self._is_done = True
            self._is_news.set()
        for afterwards in self._afterwards:
            afterwards()


class Courier(Generic[_Item, _Result]):
    """Run errands one after the other in a daemon thread, which is started with the first one.

    Where no thread can be started any more, because the interpreter is shutting down, the errand is run by the one who
    asks.
    """

    def __init__(self, call: Callable[[_Item], _Result], thread_name: str = THREAD_NAME) -> None:
        self._call = call
        self._thread_name = thread_name
        self._calls: queue.SimpleQueue[Callable[[], object] | None] | None = None
        self._thread: threading.Thread | None = None
        self._is_stopped = False
        self._stopping = threading.Lock()  # nothing may get in the queue behind its end

    def send(self, item: _Item) -> Errand[_Item, _Result]:
        """Begin the call for an item."""
        errand: Errand[_Item, _Result] = Errand(item)
        self.then(partial(errand.run, self._call))
        return errand

    def then(self, call: Callable[[], object]) -> None:
        """Make another call when all errands are done that were sent before."""
        if not self._is_queued(call):
            call()

    def stop(self) -> None:
        """End the thread when all is done that was asked for; what is asked for later is run by the one who asks."""
        with self._stopping:
            self._is_stopped = True
            if self._calls is not None:
                self._calls.put(None)

    def _is_queued(self, call: Callable[[], object]) -> bool:
        """Whether the thread will make this call: it is put into its queue, unless the thread takes no more."""
        calls = self._queue_of_thread()
        with self._stopping:
            if calls is None or self._is_stopped:
                return False
            calls.put(call)
            return True

    def _queue_of_thread(self) -> "queue.SimpleQueue[Callable[[], object] | None] | None":
        if self._is_stopped:
            return None
        if self._calls is None or self._thread is None or not self._thread.is_alive():
            # Made together, lest gevent patches one of them only: a worker of gunicorn does so after its fork.
            self._calls = queue.SimpleQueue()
            # The thread knows its queue only, and ends when nobody is left to send an errand.
            weakref.finalize(self, self._calls.put, None).atexit = False
            thread = threading.Thread(target=self._work, args=(self._calls,), name=self._thread_name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # "can't create new thread at interpreter shutdown"
                return None
            self._thread = thread
        return self._calls

    @staticmethod
    def _work(calls: "queue.SimpleQueue[Callable[[], object] | None]") -> None:
        while (call := calls.get()) is not None:
            call()
