"""A thread that makes the calls which may hang, so that nobody waits for one longer than he wants to."""

import queue
import threading
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

    def wait(self, seconds: float) -> bool:
        """Whether the call is done within so many seconds, or before somebody interrupts."""
        if not self._is_done:
            self._is_news.wait(min(max(seconds, 0.0), threading.TIMEOUT_MAX))
            self._is_news.clear()
        return self._is_done

    def interrupt(self) -> None:
        """End the waiting of whoever waits; the call goes on."""
        self._is_news.set()

    def result(self) -> _Result:
        """What the call returned, or raised, once :meth:`wait` has said that it is done."""
        if self._error is not None:
            raise self._error
        return self._results[0]

    def run(self, call: Callable[[_Item], _Result]) -> None:
        """Make the call, in whatever thread this is."""
        try:
            self._results.append(call(self.item))
        except BaseException as error:  # noqa: BLE001 - handed over to the one who waits
            self._error = error
        finally:
            self._is_done = True
            self._is_news.set()


class Courier(Generic[_Item, _Result]):
    """Run errands one after the other in a daemon thread, which is started with the first one.

    Where no thread can be started any more, because the interpreter is shutting down, the
    errand is run by the one who asks.
    """

    def __init__(self, call: Callable[[_Item], _Result]) -> None:
        self._call = call
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def send(self, item: _Item) -> Errand[_Item, _Result]:
        """Begin the call for an item."""
        errand: Errand[_Item, _Result] = Errand(item)
        if self._has_thread():
            self._calls.put(partial(errand.run, self._call))
        else:
            errand.run(self._call)
        return errand

    def then(self, call: Callable[[], object]) -> None:
        """Call when all errands that were sent are done, unless the process ends before."""
        self._calls.put(call)

    def _has_thread(self) -> bool:
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._work, name=THREAD_NAME, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # "can't create new thread at interpreter shutdown"
                return False
            self._thread = thread
        return True

    def _work(self) -> None:
        while True:
            self._calls.get()()
