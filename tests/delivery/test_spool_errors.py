"""When file operations fail, batches that cannot be written wait in memory, and the others stay on disk."""

import errno
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_cloudwatch_flask.delivery import spool as module
from otel_cloudwatch_flask.delivery.backlog import Backlog
from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.delivery.spool import Spool, check_directory
from otel_cloudwatch_flask.delivery.stats import StatsRecorder
from tests.support.fakes import PATIENCE_SECONDS
from tests.support.fuzzing import datum_of

ROOT = Path(__file__).parents[2]

SHOP = Envelope("Shop")


def batch(name: str) -> Batch:
    """Return a batch with one datum."""
    return Batch(SHOP, (datum_of(name, 1),))


def drained(backlog: Backlog) -> list[str]:
    """Check out and settle every waiting batch as sent; return the metric names in order."""
    names = []
    while one := backlog.check_out():
        names += [datum.series.name for datum in one.datums]
        backlog.settle()
    return names


def test_what_cannot_be_written_waits_in_memory(tmp_path: Path) -> None:
    """If the directory is gone, batches wait in memory."""
    spool = Spool(tmp_path)
    shutil.rmtree(spool._own_directory())
    assert spool.write(batch("a")) is None
    backlog = Backlog(10**6, StatsRecorder(), spool)
    backlog.add([batch("a"), batch("b")])
    assert drained(backlog) == ["a", "b"]


def test_what_cannot_be_removed_stays(tmp_path: Path) -> None:
    """An entry that is not a file is left alone; removing a file that is already gone frees its space in the spool."""
    spool = Spool(tmp_path)
    kept, gone = spool.write(batch("a")), spool.write(batch("b"))
    assert kept is not None
    assert gone is not None
    kept.unlink()
    kept.mkdir()
    gone.unlink()
    spool.remove(kept)
    assert kept.is_dir()
    spool.remove(gone)
    assert list(spool._sizes) == [kept]


def test_what_cannot_be_adopted_stays_where_it_is(tmp_path: Path) -> None:
    """A process whose own directory is gone adopts no files; the next process finds every batch."""
    dead, broken = Spool(tmp_path), Spool(tmp_path)
    assert dead.write(batch("a")) is not None
    dead.release()
    shutil.rmtree(broken._own_directory())
    assert list(broken.adopt()) == []
    third = Spool(tmp_path)
    assert [third.read(path) for path in third.adopt()] == [batch("a")]


def test_a_directory_that_cannot_be_read_now_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be read now is not deleted."""
    dead, closed, other = Spool(tmp_path), Spool(tmp_path), Spool(tmp_path)
    assert dead.write(batch("a"))
    assert closed.write(batch("b"))
    dead.release()
    iterdir = Path.iterdir

    def fail(directory: Path) -> Iterator[Path]:
        if directory == tmp_path:
            return iterdir(directory)
        raise OSError(errno.EMFILE, "Too many open files", str(directory))

    monkeypatch.setattr(Path, "iterdir", fail)
    assert list(other.adopt()) == []
    closed.close()
    monkeypatch.undo()
    assert [other.read(path) for path in Spool(tmp_path).adopt()] == [batch("a"), batch("b")]


def test_a_spool_directory_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that may not list the spool directory warns that it finds no batches of earlier processes there."""
    monkeypatch.setattr(Path, "iterdir", failing(Path.iterdir, errno.EACCES))
    assert list(Spool(tmp_path).adopt()) == []
    assert "Cannot read the spool directory" in caplog.text


def test_a_directory_that_another_process_has_just_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory that disappears while the spool is searched is ignored, and the others are adopted."""
    first = Spool(tmp_path)
    assert first.write(batch("a"))
    first.close()
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: [path / "process-gone", *iterdir(path)])
    other = Spool(tmp_path)
    assert [other.read(path) for path in other.adopt()] == [batch("a")]
    assert caplog.text == ""


def test_a_batch_that_is_written_while_the_spool_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is writing a batch when another closes the spool writes it to a new directory."""
    spool, sync = Spool(tmp_path), os.fsync

    def close_meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        spool.close()
        sync(descriptor)

    spool.write(batch("a"))
    (path,) = spool._sizes
    spool.remove(path)
    monkeypatch.setattr(os, "fsync", close_meanwhile)
    assert spool.write(batch("b")) is not None
    spool.close()
    other = Spool(tmp_path)
    assert [other.read(path) for path in other.adopt()] == [batch("b")]


def test_a_batch_that_is_written_while_the_directory_is_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that is written to a directory while another spool adopts its batches is not deleted."""
    closed, other, late = Spool(tmp_path), Spool(tmp_path), Spool(tmp_path)
    path = closed.write(batch("a"))
    assert path is not None
    closed.close()
    rename = Path.rename

    def write_meanwhile(file: Path, target: Path) -> Path:
        monkeypatch.undo()
        (file.parent / "late.batch").write_bytes(file.read_bytes())
        return rename(file, target)

    monkeypatch.setattr(Path, "rename", write_meanwhile)
    assert [other.read(file) for file in other.adopt()] == [batch("a")]
    assert [late.read(file) for file in late.adopt()] == [batch("a")]


def test_two_threads_release_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock's file descriptor is closed only once, because another file may have its number afterwards."""
    spool = Spool(tmp_path)
    spool._own_directory()
    close, closed = os.close, list[int]()

    def close_while_another_does(descriptor: int) -> None:
        closed.append(descriptor)
        spool.release()
        close(descriptor)

    monkeypatch.setattr(os, "close", close_while_another_does)
    spool.release()
    monkeypatch.undo()
    assert len(closed) == 1


def test_a_file_that_is_gone_is_no_batch(tmp_path: Path) -> None:
    """Reading a removed file returns ``None`` and frees its space in the spool."""
    spool = Spool(tmp_path)
    path = spool.write(batch("a"))
    assert path is not None
    path.unlink()
    assert spool.read(path) is None
    assert not list(tmp_path.glob("*.bad"))
    assert spool._sizes == {}


def test_a_damaged_file_costs_its_own_datums(tmp_path: Path) -> None:
    """A damaged batch that is only on disk is lost and counted when its turn comes; batches behind it are sent."""
    recorder, spool = StatsRecorder(), Spool(tmp_path)
    backlog = Backlog(1, recorder, spool)
    backlog.add([Batch(SHOP, (datum_of("a", 1), datum_of("b", 1))), batch("c"), batch("d")])
    min(spool._own_directory().glob("*.batch")).write_bytes(b"torn")
    assert drained(backlog) == ["c", "d"]
    stats = recorder.stats(datums_pending=backlog.datums, metrics_active=0, metrics_overflowed=0)
    assert stats.datums_lost == {"unreadable": 2}
    assert (backlog.datums, backlog.size_bytes) == (0, 0)


def test_a_directory_that_is_adopted_while_it_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process removes the new directory before it is locked, another one is created."""
    faster = [shutil.rmtree]
    try_lock = module._try_lock

    def late(directory: Path) -> int | None:
        lock = try_lock(directory)
        if faster:
            faster.pop()(directory)
        return lock

    monkeypatch.setattr(module, "_try_lock", late)
    spool = Spool(tmp_path)
    assert spool.write(batch("a")) is not None
    assert spool._own_directory().is_dir()
    assert len(list(tmp_path.iterdir())) == 1


def test_no_directory_before_the_first_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The directory is created by the first write, because setup may run in another process or as another user."""
    directory = tmp_path / "spool"
    check_directory(directory)
    spool = Spool(directory)
    assert list(spool.adopt()) == []
    spool.close()
    assert not directory.exists()
    assert caplog.text == ""
    assert Spool(directory).write(batch("a")) is not None


DROP_PRIVILEGES = """
import os, sys
from pathlib import Path
from otel_cloudwatch_flask.delivery.spool import Spool, check_directory
from tests.delivery.test_spool_errors import batch

directory = Path(sys.argv[1]) / "spool"
check_directory(directory)
spool = Spool(directory)
list(spool.adopt())
spool.close()
os.chown(sys.argv[1], 65534, 65534)
os.setgid(65534)
os.setuid(65534)
assert spool.write(batch("a")).stat().st_uid == 65534
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can change its user")
def test_a_process_that_drops_its_privileges() -> None:
    """A process that starts as root, like ``gunicorn --preload --user``, can write to the spool as another user."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", DROP_PRIVILEGES, folder], cwd=ROOT, timeout=PATIENCE_SECONDS, check=True)


def failing(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    """Return a replacement for an operating system function that fails with this errno."""

    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(number, os.strerror(number), function.__name__)

    return fail


def test_a_full_disk_leaves_no_incomplete_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An incomplete file is removed, which frees its space."""
    spool = Spool(tmp_path)
    own = spool._own_directory()
    monkeypatch.setattr(Path, "replace", failing(Path.replace, errno.ENOSPC))
    assert spool.write(batch("a")) is None
    assert [each.name for each in own.iterdir()] == ["lock"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize(
    ("place", "name"),
    [
        (os, "open"),
        (os, "listdir"),
        (os, "scandir"),
        (os, "mkdir"),
        (os, "rename"),
        (os, "replace"),
        (os, "unlink"),
        (os, "stat"),
        (os, "lstat"),
        (tempfile, "mkdtemp"),
        (shutil, "rmtree"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_failing_file_operations_cost_only_the_spooling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, number: int
) -> None:
    """If any file operation fails during an adoption, no error is raised, and no batch is set aside or lost."""
    dead = Spool(tmp_path)
    assert dead.write(batch("left")) is not None
    dead.release()
    recorder = StatsRecorder()
    backlog = Backlog(10**6, recorder, Spool(tmp_path))
    with monkeypatch.context() as failing_disk:
        if name != "rmtree":  # rmtree is called with ignore_errors
            failing_disk.setattr(place, name, failing(getattr(place, name), number))
        backlog.adopt_spooled(math.inf)
        backlog.add([batch("a")])
        sent = drained(backlog)
    backlog._spool._next_adoption = 0.0  # type: ignore[union-attr]
    backlog.adopt_spooled(math.inf)
    sent += drained(backlog)
    backlog.close()
    rest = Backlog(10**6, recorder, Spool(tmp_path))
    rest.adopt_spooled(math.inf)
    sent += drained(rest)
    assert set(sent) == {"a", "left"}
    assert recorder.stats(datums_pending=0, metrics_active=0, metrics_overflowed=0).datums_lost == {}
    assert not list(tmp_path.glob("*.bad"))


def test_a_file_that_cannot_be_read_now_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no file descriptor is free, a batch that is only on disk stays pending and is sent later."""
    recorder = StatsRecorder()
    backlog = Backlog(1, recorder, Spool(tmp_path))
    backlog.add([batch("a"), batch("b")])
    with monkeypatch.context() as no_descriptors:
        no_descriptors.setattr(os, "open", failing(os.open, errno.EMFILE))
        assert backlog.check_out() is None
        assert backlog.datums == 2
    assert drained(backlog) == ["a", "b"]
