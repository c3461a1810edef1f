"""Keep pending batches on disk, so that they survive the process.

In each process, an exporter creates and locks its own directory inside the spool directory. The operating system
releases the lock when the process ends, even if it is killed. An exporter in another process of the same user then
finds the directory unlocked, and adopts the batches in it. Each batch is one file: a line with a checksum, followed by
the request body as JSON. Files are parsed, never executed, and links are not followed. A file that is not a valid batch
is renamed, so that it is not read again.
"""

import contextlib
import errno
import hashlib
import itertools
import logging
import math
import os
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
_each_minute = RateLimitedLog(_logger, interval_seconds=60.0)

MAX_SPOOL_BYTES: Final = 512 * 2**20
"""The limit on the total size of one exporter's files. Further batches are kept only in memory."""

_MAX_FILE_BYTES: Final = 2 * MAX_REQUEST_BYTES
_ADOPTION_INTERVAL_SECONDS: Final = 60.0

_MAGIC: Final = b"otel-cloudwatch-flask spool 1 "
_BATCH_SUFFIX: Final = ".batch"
_BAD_SUFFIX: Final = ".bad"
_STEM_LENGTH: Final = len(f"{0:020d}-{0:06d}")
"""The length to which an adopting process truncates a file's stem before it appends its own sequence number."""
_LOCK_NAME: Final = "lock"
_PREFIX: Final = "process-"
_MAX_ATTEMPTS: Final = 3
_TEMPORARY_ERRORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that indicate a lack of file descriptors or memory, not a problem with the file."""


class Spool:
    """The batch files of one exporter, inside a directory that several exporters and processes can share."""

    def __init__(self, directory: Path, *, max_bytes: int = MAX_SPOOL_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._sizes: dict[Path, int] = {}
        self._numbers = itertools.count()
        self._owned: list[tuple[Path, int]] = []
        """This process's directory with the descriptor of its lock. Empty before the first write, and after closing."""
        self._next_adoption = -math.inf

    def write(self, batch: Batch) -> Path | None:
        """Write ``batch`` to a new file and return its path, or log a warning and return ``None`` if that fails."""
        content = _checked(batch.body())
        # A long outage must not fill a disk that the program also uses.
        size_bytes = sum(self._sizes.values())
        if size_bytes + len(content) > self._max_bytes:
            _each_minute.warning(
                "full",
                "The spool is full (%d bytes); new metrics are kept in memory only. Fix the delivery problem logged "
                "earlier.",
                size_bytes,
            )
            return None
        # Names sort by age, which lets an adopting process send the oldest batches first.
        name = f"{time.time_ns():020d}-{next(self._numbers):06d}{_BATCH_SUFFIX}"
        try:
            path = self._written(name, content)
        except OSError as error:
            _each_minute.warning(
                "write",
                "Cannot write metrics to the spool; they are kept in memory. Check the free space of spool_directory "
                "and this process's permission to write to it. (%s)",
                error,
            )
            return None
        self._sizes[path] = len(content)
        return path

    def read(self, path: Path) -> Batch | None:
        """Read a batch. If the file is missing or not a valid batch, log a warning and return ``None``.

        A file that is not a valid batch is renamed, so that it is not read again. Raises ``OSError`` if the process
        lacks the file descriptors or the memory to read the file now.
        """
        try:
            batch = Batch.from_body(_verified(_content(path)))
            # A batch that cannot be converted to a request would be retried forever, and block all batches behind it.
            batch.parameters()
        except MemoryError as error:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            if isinstance(error, OSError) and error.errno in _TEMPORARY_ERRORS:
                raise  # the batch is intact, and setting it aside would lose it
            self._set_aside(path, error)
            return None
        return batch

    def remove(self, path: Path) -> None:
        """Delete the file of a batch whose outcome is known."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _each_minute.warning(
                "remove",
                "Cannot delete a batch from the spool; the next process may send it again. Check this "
                "process's permission to delete files in spool_directory. (%s)",
                error,
            )
        else:
            self._sizes.pop(path, None)

    def adopt(self) -> Iterator[Path]:
        """Move batch files from unlocked directories to this spool's own directory, and yield the new paths.

        A directory is unlocked once its process has ended or its exporter has been shut down. The oldest directory
        comes first and, within a directory, the oldest file. Looks for such directories at most once a minute.
        """
        now = time.monotonic()
        if now < self._next_adoption:
            return
        self._next_adoption = now + _ADOPTION_INTERVAL_SECONDS
        for directory in self._directories_of_others():
            lock = _try_lock(directory)
            if lock is None:
                continue
            try:
                yield from self._moved_files(directory)
            except OSError as error:
                _each_minute.warning(
                    "move",
                    "Cannot take over a batch spooled by an earlier process; it remains in the spool. Check this "
                    "process's permission to rename files in spool_directory. (%s)",
                    error,
                )
            finally:
                os.close(lock)

    def close(self) -> None:
        """Unlock the directory, and delete it if it contains no batches.

        Another exporter or process adopts any remaining batches. A later :meth:`write` creates a new directory.
        """
        for directory, lock in self._disowned():
            _remove_without_batches(directory)
            os.close(lock)

    def release(self) -> None:
        """Close the descriptor of the lock. A forked child calls this because the lock belongs to its parent."""
        for _, lock in self._disowned():
            os.close(lock)

    def _disowned(self) -> Iterator[tuple[Path, int]]:
        # Two threads may do this at shutdown. Closing a descriptor twice could close an unrelated file that has
        # received the same number in the meantime.
        with contextlib.suppress(IndexError):
            for _ in range(len(self._owned)):  # not a directory that another thread creates meanwhile
                yield self._owned.pop(0)

    def _directories_of_others(self) -> list[Path]:
        owned = [directory for directory, _ in self._owned]
        try:
            # Not Path.glob, which hides a lack of permission.
            found = sorted(each for each in self._directory.iterdir() if each.name.startswith(_PREFIX))
            return [each for each in found if each not in owned and _is_own_user(each)]
        except FileNotFoundError:  # nothing has been written yet
            return []
        except OSError as error:
            _each_minute.warning(
                "list",
                "Cannot read the spool directory; batches from earlier processes will not be sent until it can be "
                "read. Check this process's permission to read it. (%s)",
                error,
            )
            return []

    def _moved_files(self, directory: Path) -> Iterator[Path]:
        for file in _batch_files(directory):
            number = next(self._numbers)
            path = self._own_directory() / f"{file.stem[:_STEM_LENGTH]}-{number:06d}{_BATCH_SUFFIX}"
            size = file.lstat().st_size
            file.rename(path)
            self._sizes[path] = size
            yield path
        _remove_without_batches(directory)

    def _written(self, name: str, content: bytes) -> Path:
        path = self._own_directory() / name
        try:
            _write_privately(path, content)
        except FileNotFoundError:  # another thread has just closed this spool, and deleted the directory
            path = self._own_directory() / name
            _write_privately(path, content)
        return path

    def _own_directory(self) -> Path:
        """Return this spool's directory in this process, which is created on first use.

        It is not created earlier, because the process may first switch to another user, who has to own the directory.
        """
        owned = next(iter(self._owned), None)
        if owned is None:
            owned = _new_process_directory(self._directory)
            self._owned.append(owned)
        return owned[0]

    def _set_aside(self, path: Path, error: Exception) -> None:
        bad = self._directory / (path.name + _BAD_SUFFIX)
        _logger.warning(
            "Cannot read %s as a batch of metrics (%s), so its metrics are not sent; renaming the file to %s. Delete "
            "the file when you no longer need it.",
            path.name,
            error,
            bad.name,
        )
        self._sizes.pop(path, None)
        try:
            path.rename(bad)
        except OSError:
            _each_minute.warning(
                "aside",
                "Cannot rename %s, which could not be read; the next process will try to read it again. Delete the "
                "file.",
                path,
            )


def _batch_files(directory: Path) -> list[Path]:
    """Return the batch files in a directory, oldest first. Raises ``OSError`` if the directory cannot be read."""
    return sorted(each for each in directory.iterdir() if each.suffix == _BATCH_SUFFIX)


def _remove_without_batches(directory: Path) -> None:
    """Delete a directory with its lock and unfinished files, unless it contains a batch or cannot be read.

    The exporter that the directory belonged to may be writing a batch in another thread, which must not be deleted.
    """
    with contextlib.suppress(OSError):
        files = [*directory.iterdir()]
        if all(file.suffix != _BATCH_SUFFIX for file in files):
            for file in files:
                file.unlink()
            directory.rmdir()  # fails if a batch has been written since


def check_directory(directory: Path) -> None:
    """Raise :class:`ConfigurationError` if ``directory`` cannot be used for a spool.

    Does not create the directory, because the process that will write to it may run as another user.
    """
    if fcntl is None:
        raise ConfigurationError(
            "spool_directory needs file locks, which this operating system does not have; omit it.",
            key="spool_directory",
            value=directory,
        )
    try:
        existing = next(each for each in (directory, *directory.parents) if _exists(each))
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is not a directory", str(existing))
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it is not writable", str(existing))
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ConfigurationError(
            f"spool_directory={str(directory)!r} cannot be used: {error}. Set a directory that this "
            "process may write to.",
            key="spool_directory",
            value=directory,
        ) from error


def _exists(path: Path) -> bool:
    """Return whether ``path`` exists. Unlike :meth:`Path.exists`, raises an error if the name is invalid."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def _new_process_directory(directory: Path) -> tuple[Path, int]:
    """Create and lock a directory for this process. Returns its path, and the descriptor that holds the lock."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for _ in range(_MAX_ATTEMPTS):
        own = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{time.time_ns():020d}-", dir=directory))
        _sync(directory)
        lock = _try_lock(own)
        if lock is not None and own.exists():
            return own, lock
        # Another process adopted the directory before it was locked, or no file descriptor was available.
        with contextlib.suppress(OSError):
            own.rmdir() if lock is None else os.close(lock)
    raise OSError(errno.EAGAIN, "the directory of this process cannot be locked")


def _try_lock(directory: Path) -> int | None:
    """Lock a directory and return the descriptor that holds the lock, or ``None`` if that fails.

    Closing the descriptor releases the lock, unless a forked child still has a copy of it.
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


def _is_own_user(directory: Path) -> bool:
    """Return whether ``directory`` belongs to this process's user. Other users' metrics must not be published."""
    try:
        status = directory.lstat()
    except FileNotFoundError:  # another process has just adopted its batches
        return False
    if status.st_uid != os.geteuid():
        _each_minute.warning(
            ("owner", directory),
            "%s belongs to another user, so its metrics are not sent. Run all processes that share spool_directory as "
            "one user, or delete the directory and its metrics.",
            str(directory),
        )
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _content(path: Path) -> bytes:
    """Read a file. Raises ``ValueError`` if it is not a regular file, or is larger than a batch can be."""
    # With O_NONBLOCK, because opening a named pipe would otherwise wait for a writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if status.st_size > _MAX_FILE_BYTES:
            raise ValueError(f"it has {status.st_size} bytes, but a batch can have at most {_MAX_FILE_BYTES}")
        return file.read(_MAX_FILE_BYTES)


def _write_privately(path: Path, content: bytes) -> None:
    """Write a file atomically, sync it to disk, and let only its owner read and write it."""
    unfinished = path.with_suffix(".tmp")
    try:
        with open(unfinished, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync(path.parent)
    except BaseException:  # do not leave an incomplete file behind, especially on a full disk
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def _sync(directory: Path) -> None:
    """Sync a directory, so that its entries survive a power loss. Does nothing if the file system cannot sync it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _checked(body: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _verified(content: bytes) -> bytes:
    head, _, body = content.partition(b"\n")
    if head != _MAGIC + hashlib.sha256(body).hexdigest().encode():
        raise ValueError("its checksum is missing or wrong")
    return body
