"""Batches on disk, so that what could not be sent survives the process.

Each process has a directory of its own inside the spool directory, and holds a lock on it as long as it lives; the
operating system gives the lock up even if the process is killed. Whoever finds a directory whose lock is free takes
its batches over, if it is the same user's. A batch is one file: a line with a checksum, then the body of the request as
JSON. Nothing in it is ever executed, no link is followed, and whatever is not such a file is set aside, not read again,
and never fatal.
"""

import contextlib
import hashlib
import itertools
import logging
import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from otel_cloudwatch_flask.delivery.batch import Batch
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.limits import MAX_REQUEST_BYTES
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where a spool is a ConfigurationError
    fcntl = None  # type: ignore[assignment]

_logger = logging.getLogger(__name__)
_quiet_log = RateLimitedLog(_logger, interval_seconds=60.0)

MAX_SPOOL_BYTES: Final = 512 * 2**20
"""What one process keeps on disk at most; beyond, it keeps further batches in memory only."""

_MAX_FILE_BYTES: Final = 2 * MAX_REQUEST_BYTES
_LOOK_SECONDS: Final = 60.0

_MAGIC: Final = b"otel-cloudwatch-flask spool 1 "
_BATCH_SUFFIX: Final = ".batch"
_BAD_SUFFIX: Final = ".bad"
_STEM_LENGTH: Final = len(f"{0:020d}-{0:06d}")
"""What a file is called by; whoever takes it over adds a number of his own to that, so that names stay short."""
_LOCK_NAME: Final = "lock"
_PREFIX: Final = "process-"


class Spool:
    """The batches of one process in a directory that several processes share."""

    def __init__(self, directory: Path, *, max_bytes: int = MAX_SPOOL_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._sizes: dict[Path, int] = {}
        self._size_bytes = 0
        self._numbers = itertools.count()
        self._own, lock = _new_process_directory(directory)
        self._locks = [lock]
        self._next_look = -math.inf

    def write(self, batch: Batch) -> Path | None:
        """Put a batch on disk; ``None``, with a warning, if that cannot be."""
        content = _checked(batch.body())
        if self._size_bytes + len(content) > self._max_bytes:
            _quiet_log.warning(
                "full",
                "The spool holds %d bytes: further metrics wait in memory. Mend what keeps metrics from CloudWatch; an "
                "earlier message says what.",
                self._size_bytes,
            )
            return None
        path = self._own / f"{time.time_ns():020d}-{next(self._numbers):06d}{_BATCH_SUFFIX}"
        try:
            _write_privately(path, content)
        except OSError as error:
            _quiet_log.warning(
                "write",
                "Metrics cannot be spooled, and wait in memory. Give spool_directory room, and this process the right "
                "to write to it. (%s)",
                error,
            )
            return None
        self._count(path, len(content))
        return path

    def read(self, path: Path) -> Batch | None:
        """The batch in a file; ``None``, with a warning, if there is none that can be read."""
        try:
            return _sendable(Batch.from_body(_verified(_content(path))))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            self._set_aside(path, error)
            return None

    def remove(self, path: Path) -> None:
        """Forget a batch that has met its fate."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _quiet_log.warning(
                "remove",
                "A spooled batch cannot be removed, and may be sent again by the next process. Give this one the right "
                "to delete files in spool_directory. (%s)",
                error,
            )
        else:
            self._forget(path)

    def take_over(self) -> Iterator[Path]:
        """The files of processes that are no more, oldest first, moved to this one's directory.

        Looks once a minute; in between there are none.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        for directory in self._directories_of_others():
            lock = _try_lock(directory)
            if lock is not None:
                try:
                    yield from self._moved_files(directory)
                    if not any(directory.glob("*" + _BATCH_SUFFIX)):
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
        # Two threads may get here at the end of an exporter: the number of a descriptor that one of them has closed may
        # be somebody else's file already.
        with contextlib.suppress(IndexError):
            os.close(self._locks.pop())

    def _directories_of_others(self) -> list[Path]:
        try:
            return sorted(each for each in self._directory.glob(_PREFIX + "*") if each != self._own and _is_ours(each))
        except OSError as error:
            _quiet_log.warning(
                "list",
                "The spool directory cannot be read; what others left there waits. Give this process the right to read "
                "it. (%s)",
                error,
            )
            return []

    def _moved_files(self, directory: Path) -> Iterator[Path]:
        for file in sorted(directory.glob("*" + _BATCH_SUFFIX)):
            path = self._own / f"{file.stem[:_STEM_LENGTH]}-{next(self._numbers):06d}{_BATCH_SUFFIX}"
            try:
                size = file.lstat().st_size
                file.rename(path)
            except OSError as error:
                _quiet_log.warning(
                    "move",
                    "A spooled batch cannot be taken over, and waits where it is. Give this process the right to "
                    "rename files in spool_directory. (%s)",
                    error,
                )
                continue
            self._count(path, size)
            yield path

    def _count(self, path: Path, size: int) -> None:
        self._sizes[path] = size
        self._size_bytes += size

    def _forget(self, path: Path) -> None:
        self._size_bytes -= self._sizes.pop(path, 0)

    def _set_aside(self, path: Path, error: Exception) -> None:
        bad = _free_path(self._directory / (path.name + _BAD_SUFFIX))
        _logger.warning(
            "%s is no batch of metrics (%s); what it held is lost, and it is set aside as %s. Delete it if you need it "
            "no more.",
            path.name,
            error,
            bad.name,
        )
        self._forget(path)
        try:
            path.rename(bad)
        except OSError:
            _quiet_log.warning(
                "aside",
                "A file that is no batch of metrics cannot be set aside, and will be met again. Delete %s.",
                path,
            )


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
    except (OSError, ValueError) as error:  # the latter for what no file system has in a name
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


def _free_path(path: Path) -> Path:
    """The path, or if there is something already, the first of those with a number that is free."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(1))
    return next(each for each in itertools.chain([path], numbered) if not os.path.lexists(each))


def _try_lock(directory: Path) -> int | None:
    """The descriptor that holds the lock of a directory; ``None`` if another process does, or there is none to be had.

    The lock is given up when the last descriptor of it is closed: a forked child has one, too.
    """
    try:
        lock = os.open(directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _is_ours(directory: Path) -> bool:
    """Whether it is a directory of this process's user: what others put beside it would be sent in our name."""
    status = directory.lstat()
    if status.st_uid != os.geteuid():
        _quiet_log.warning(
            ("foreign", directory),
            "%s belongs to another user, and is left alone. Run what shares spool_directory as one user, or delete it.",
            str(directory),
        )
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _content(path: Path) -> bytes:
    """What is in a file, if it is one, and of a size that a batch may have."""
    # What is no file is opened without waiting for whoever writes to it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > _MAX_FILE_BYTES:
            raise ValueError(f"its size is {status.st_size} bytes, and that of a batch at most {_MAX_FILE_BYTES}")
        return file.read(_MAX_FILE_BYTES)


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


def _sendable(batch: Batch) -> Batch:
    """The batch, if a request can be made of it: another one would be tried for ever, and all that is behind it wait.

    Raises what :meth:`Batch.from_body` raises.
    """
    batch.parameters()
    return batch
