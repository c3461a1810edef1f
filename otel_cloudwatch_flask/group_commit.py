"""One run of some work serves everybody who asked for it before it began."""

import threading
import time
from collections.abc import Callable


class GroupCommit:
    """Run ``work`` for many who ask at once, never twice at the same time.

    Whoever comes while it runs waits for the next run, which serves all who wait by then: 16 requests that end
    together wait for two runs, not for 16. ``work`` runs in the thread of one of them, with the deadline of that one,
    and says whether it succeeded; if it did not, the next one tries with its own deadline.
    """

    def __init__(self, work: Callable[[float], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._work = work
        self._clock = clock
        self._changed = threading.Condition()
        self._is_running = False
        self._begun = 0
        self._newest_success = 0

    def run(self, deadline: float, work: Callable[[float], bool] | None = None) -> bool:
        """Wait until a run that began after this call has succeeded; ``False`` if none has by ``deadline``.

        ``work`` is another way to do the same, if it is this caller who does it.
        """
        with self._changed:
            wanted = self._begun + 1
            while self._is_running:
                self._changed.wait(min(max(deadline - self._clock(), 0.0), threading.TIMEOUT_MAX))
                if self._newest_success >= wanted:
                    return True
                if self._clock() >= deadline:
                    return False
            self._is_running = True
            self._begun += 1
            number = self._begun
        succeeded = False
        try:
            succeeded = (work or self._work)(deadline)
        finally:
            with self._changed:
                self._is_running = False
                if succeeded:
                    self._newest_success = number
                self._changed.notify_all()
        return succeeded
