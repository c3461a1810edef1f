"""Several processes share a spool directory: each intact batch belongs to exactly one of them."""

import contextlib
import math
import os
import shutil
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.delivery.spool import Spool, _checked, _verified
from tests.support.fuzzing import datum_of, effort, numbers

MAX_PROCESSES = 4
MAX_BYTES = 1_500
"""Room for a few batches, in bytes."""

MAX_FORKS = 2
"""Maximum number of forks in one example, because they are slow."""

INDICES = st.integers(0, MAX_PROCESSES - 1)
PLACES = st.integers(0, 9)

SHOP = Envelope("Shop")

FOREIGN = {
    "nothing": b"",
    "noise": bytes(range(256)),
    "a pickle": b"cos\nsystem\n(S'true'\ntR.",
    "no JSON": _checked(b"{"),
    "another JSON": _checked(b"[1, 2, 3]"),
    "no datums": _checked(b'{"Namespace": "Shop", "MetricData": 5}'),
    "a time without end": _checked(b'{"Namespace": "Shop", "MetricData": [{"MetricName": "m", "Timestamp": 1e999}]}'),
    "brackets": _checked(b"[" * 100_000),
}


def batch(number: int) -> Batch:
    """Return a batch that differs from all others."""
    return Batch(SHOP, (datum_of(f"m{number}", number),))


def number_in(path: Path) -> int | None:
    """Return the number of the intact batch in a file, or ``None``."""
    try:
        (datum,) = Batch.from_body(_verified(path.read_bytes())).datums
    except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return None
    return numbers(datum)[0]


class Member:
    """A process with its files, their content, and their size when it acquired them."""

    def __init__(self, directory: Path) -> None:
        self.spool = Spool(directory, max_bytes=MAX_BYTES)
        self.files: dict[Path, int | None] = {}
        self.sizes: dict[Path, int] = {}

    def own(self, path: Path) -> None:
        """Add a file to the process."""
        self.files[path] = number_in(path)
        self.sizes[path] = path.stat().st_size

    def forget(self, path: Path) -> None:
        """Forget the file."""
        del self.files[path], self.sizes[path]

    def at(self, place: int) -> list[Path]:
        """Return the file at this index in a list, or an empty list."""
        return sorted(self.files)[place : place + 1]


class SpoolMachine(RuleBasedStateMachine):
    """Processes write, read, settle, fork, end and are killed; power is lost; files are damaged, removed and added."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.living: list[Member] = []
        self.written = 0
        self.whole: set[int] = set()
        self.forks = 0
        self.synced: set[bytes] = set()
        """The contents of files that have reached the disk."""
        self.listed: set[int | str | None] = set()
        """The names of directories and the numbers of batches whose directory entries have reached the disk."""
        self.patch = mock.patch.object(os, "fsync", self.fsync)
        self.patch.start()

    def fsync(self, descriptor: int) -> None:
        """Record what the call makes durable, instead of the slow operation."""
        for path in (self.directory, *self.directory.rglob("*")):
            if path.lstat().st_ino != os.fstat(descriptor).st_ino:
                continue
            if path.is_dir():
                self.listed.update(number_in(each) or each.name for each in path.iterdir())
            else:
                self.synced.add(path.read_bytes())

    def member(self, index: int) -> Member:
        """Return one of the running processes."""
        return self.living[index % len(self.living)]

    def files(self) -> list[Path]:
        """Return every file named like a batch of a process."""
        return sorted(self.directory.glob("process-*/*.batch"))

    @initialize()
    def begin(self) -> None:
        """The first process starts."""
        self.living.append(Member(self.directory))

    @precondition(lambda self: len(self.living) < MAX_PROCESSES)
    @rule()
    def start(self) -> None:
        """Another process starts."""
        self.living.append(Member(self.directory))

    @rule(index=INDICES)
    def write(self, index: int) -> None:
        """A process spools a batch, if space allows."""
        member = self.member(index)
        self.written += 1
        made = batch(self.written)
        path = member.spool.write(made)
        if path is None:
            assert sum(member.sizes.values()) + len(_checked(made.body())) > MAX_BYTES
        else:
            assert path not in member.files
            member.own(path)
            self.whole.add(self.written)

    @rule(index=INDICES, place=PLACES)
    def read(self, index: int, place: int) -> None:
        """A process reads one of its batches unchanged; a file that is not a batch is set aside."""
        member = self.member(index)
        for path in member.at(place):
            number = member.files[path]
            found = member.spool.read(path)
            assert found == (batch(number) if number in self.whole and number else None)
            if found is None:
                assert not path.exists()
                member.forget(path)

    @rule(index=INDICES, place=PLACES)
    def settle(self, index: int, place: int) -> None:
        """A batch is settled."""
        member = self.member(index)
        for path in member.at(place):
            if (number := member.files[path]) is not None:  # a file that is not a batch is never sent
                self.whole.discard(number)
                member.spool.remove(path)
                assert not path.exists()
                member.forget(path)

    @rule(index=INDICES)
    def adopt(self, index: int) -> None:
        """A process adopts all files of ended processes, the oldest of each first, and none of running ones."""
        member = self.member(index)
        of_living = {number for each in self.living for number in each.files.values()}
        directory_of = {number_in(path): path.parent for path in self.files()}
        member.spool._next_adoption = -math.inf  # allows another adoption without waiting
        for path in member.spool.adopt():
            member.own(path)
        found = [number for number in member.files.values() if number not in of_living and number is not None]
        assert set(found) == self.whole - of_living
        for directory in directory_of.values():
            of_one = [number for number in found if directory_of[number] == directory]
            assert of_one == sorted(of_one)

    @precondition(lambda self: len(self.living) > 1)
    @rule(index=INDICES, is_orderly=st.booleans())
    def end(self, index: int, *, is_orderly: bool) -> None:
        """A process exits or is killed."""
        member = self.member(index)
        self.living.remove(member)
        if is_orderly:
            member.spool.close()
        else:
            member.spool.release()

    @rule()
    def lose_power(self) -> None:
        """The machine loses power, all data that was not synced vanishes, and a process starts."""
        for member in self.living:
            member.spool.release()
        self.living = [Member(self.directory)]
        for path in self.files():
            is_durable = path.parent.name in self.listed and number_in(path) in self.listed
            if number_in(path) in self.whole and not (is_durable and path.read_bytes() in self.synced):
                path.unlink()

    @precondition(lambda self: self.forks < MAX_FORKS)
    @rule()
    def fork(self) -> None:
        """A forked child releases the inherited spool, and the parent keeps its own."""
        self.forks += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # raised because threads are running
            child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                for member in self.living:
                    member.spool.release()
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    @rule(place=PLACES, damage=st.sampled_from(["torn", "flipped", "removed", *FOREIGN]), at=st.integers(0, 200))
    def damage(self, place: int, damage: str, at: int) -> None:
        """Damage, replace or remove a file."""
        for path in self.files()[place : place + 1]:
            if not path.is_file():
                continue
            self.whole.discard(number_in(path) or 0)
            content = bytearray(path.read_bytes())
            if damage == "removed":
                path.unlink()
            elif damage == "torn":
                path.write_bytes(content[: at % max(len(content), 1)])
            elif damage == "flipped" and content:
                content[at % len(content)] ^= 1
                path.write_bytes(content)
            else:
                path.write_bytes(FOREIGN.get(damage, b""))

    @rule(
        place=PLACES, content=st.sampled_from(sorted(FOREIGN)), name=st.sampled_from(["0.batch", "x" * 240 + ".batch"])
    )
    def foreign_file(self, place: int, content: str, name: str) -> None:
        """Put a foreign file next to the batches."""
        for directory in sorted(self.directory.glob("process-*/"))[place : place + 1]:
            if directory.is_dir() and not (directory / name).exists():
                (directory / name).write_bytes(FOREIGN[content])

    @rule(kind=st.sampled_from(["file", "directory", "link", "batch"]))
    def foreign_entry(self, kind: str) -> None:
        """Put a file into the spool directory itself, or a directory in place of a batch."""
        self.written += 1
        path = self.directory / f"process-{kind}{self.written}"
        if kind == "file":
            path.write_bytes(b"")
        elif kind == "link":
            path.symlink_to(path)
        else:
            (path / "0.batch").mkdir(parents=True)

    @invariant()
    def each_is_there_once(self) -> None:
        """Every intact batch is in exactly one file."""
        found = Counter(number_in(path) for path in self.files())
        del found[None]
        assert found == Counter(self.whole)

    def teardown(self) -> None:
        """At the end, one process adopts and settles every file; the files, and the space they took, are gone."""
        self.patch.stop()
        while len(self.living) > 1:
            self.end(0, is_orderly=True)
        self.adopt(0)
        (member,) = self.living
        while member.files:
            self.read(0, 0)
            self.settle(0, 0)
        assert not self.whole
        assert member.spool._sizes == {}
        shutil.rmtree(self.directory)


TestSpool = SpoolMachine.TestCase
TestSpool.settings = effort(60)


def test_a_batch_outlives_any_number_of_processes(tmp_path: Path) -> None:
    """A process that repeatedly crashes at startup loses no batch of its predecessors."""
    spool = Spool(tmp_path)
    assert spool.write(batch(1)) is not None
    for _ in range(50):
        spool.release()
        spool = Spool(tmp_path)
        (path,) = spool.adopt()
        assert spool.read(path) == batch(1)
