"""Batches on disk, so that what could not be sent survives the process.

Each process has a directory of its own inside the spool directory, and holds a lock on it as long as it lives; the
operating system gives the lock up even if the process is killed. Whoever finds a directory whose lock is free takes
its batches over. A batch is one file: a line with a checksum, then the body of the request as JSON. Nothing in it is
ever executed, and whatever is not such a file is set aside, not read again, and never fatal.
"""

import hashlib
import itertools
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.quiet_log import QuietLog
from otel_cloudwatch_flask.wire import Batch

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where a spool is a ConfigurationError
    fcntl = None  # type: ignore[assignment]

_logger = logging.getLogger(__name__)
_quiet_log = QuietLog(_logger, interval_seconds=60.0)

MAX_SPOOL_BYTES: Final = 512 * 2**20
"""What one process keeps on disk at most; beyond, it keeps further batches in memory only."""

_LOOK_SECONDS: Final = 60.0

_MAGIC: Final = b"otel-cloudwatch-flask spool 1 "
_BATCH_SUFFIX: Final = ".batch"
_BAD_SUFFIX: Final = ".bad"
_LOCK_NAME: Final = "lock"
_PREFIX: Final = "process-"


class Spool:
    """The batches of one process in a directory that several processes share."""

    def __init__(self, directory: Path, *, max_bytes: int = MAX_SPOOL_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._numbers = itertools.count()
        self._own, lock = _new_process_directory(directory)
        self._lock: int | None = lock
        self._next_look = -math.inf

    def write(self, batch: Batch) -> Path | None:
        """Put a batch on disk; ``None``, with a warning, if that cannot be."""
        content = _checked(batch.body())
        if self._size_bytes + len(content) > self._max_bytes:
            _quiet_log.warning("full", "The spool holds %d bytes: further metrics wait in memory.", self._size_bytes)
            return None
        path = self._own / f"{time.time_ns():020d}-{next(self._numbers):06d}{_BATCH_SUFFIX}"
        try:
            _write_privately(path, content)
        except OSError as error:
            _quiet_log.warning("write", "Metrics cannot be spooled, and wait in memory: %s", error)
            return None
        self._size_bytes += len(content)
        return path

    def read(self, path: Path) -> Batch | None:
        """The batch in a file; ``None``, with a warning, if there is none that can be read."""
        try:
            return Batch.from_body(_verified(path.read_bytes()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            self._set_aside(path, error)
            return None

    def remove(self, path: Path) -> None:
        """Forget a batch that has met its fate."""
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError as error:
            _quiet_log.warning("remove", "A spooled batch cannot be removed, and may be sent again: %s", error)
        else:
            self._size_bytes = max(self._size_bytes - size, 0)

    def take_over(self) -> Iterator[Path]:
        """The files of processes that are no more, oldest first, moved to this one's directory.

        Looks once a minute; in between there are none.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        try:
            others = [each for each in self._directory.glob(_PREFIX + "*") if each.is_dir() and each != self._own]
        except OSError as error:
            _quiet_log.warning("list", "The spool directory cannot be read: %s", error)
            return
        for directory in sorted(others):
            lock = _try_lock(directory)
            if lock is not None:
                try:
                    yield from self._moved_files(directory)
                    shutil.rmtree(directory, ignore_errors=True)
                finally:
                    os.close(lock)

    def close(self) -> None:
        """Give the directory up: the next process finds what is in it."""
        if not any(self._own.glob("*" + _BATCH_SUFFIX)) and not any(self._own.glob("*" + _BAD_SUFFIX)):
            shutil.rmtree(self._own, ignore_errors=True)
        self.abandon()

    def abandon(self) -> None:
        """Have nothing to do with the directory any more, which in a forked child is the parent's."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _moved_files(self, directory: Path) -> Iterator[Path]:
        for file in sorted(directory.glob("*" + _BATCH_SUFFIX)):
            path = self._own / f"{file.stem}-{next(self._numbers):06d}{_BATCH_SUFFIX}"
            try:
                size = file.stat().st_size
                file.rename(path)
            except OSError as error:
                _quiet_log.warning("move", "A spooled batch cannot be taken over: %s", error)
                continue
            self._size_bytes += size
            yield path

    def _set_aside(self, path: Path, error: Exception) -> None:
        bad = self._directory / (path.name + _BAD_SUFFIX)
        _logger.warning("%s is no batch of metrics (%s); it is set aside as %s.", path.name, error, bad.name)
        try:
            path.rename(bad)
        except OSError:
            _quiet_log.warning("aside", "It cannot be moved, either.")


def _new_process_directory(directory: Path) -> tuple[Path, int]:
    if fcntl is None:
        raise ConfigurationError(
            "spool_directory needs file locks that this operating system does not have; leave it out.",
            key="spool_directory",
            value=directory,
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{time.time_ns():020d}-", dir=directory))
    except OSError as error:
        raise ConfigurationError(
            f"spool_directory={str(directory)!r} cannot be used: {error}. Give one that this process may write to.",
            key="spool_directory",
            value=directory,
        ) from error
    lock = _try_lock(own)
    if lock is None or not own.exists():
        # Somebody took the directory over in the instant between its making and its locking.
        if lock is not None:
            os.close(lock)
        return _new_process_directory(directory)
    return own, lock


def _try_lock(directory: Path) -> int | None:
    """The descriptor that holds the lock of a directory; ``None`` if another process does, or there is none to be had.

    The lock is given up when the last descriptor of it is closed: a forked child has one, too.
    """
    try:
        lock = os.open(directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _write_privately(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, and readable for its owner only."""
    unfinished = path.with_suffix(".tmp")
    with open(unfinished, "wb", opener=_private_opener) as file:
        file.write(content)
    unfinished.replace(path)


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _checked(body: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _verified(content: bytes) -> bytes:
    head, _, body = content.partition(b"\n")
    if head != _MAGIC + hashlib.sha256(body).hexdigest().encode():
        raise ValueError("its checksum is wrong, or it was never one")
    return body
