"""Spool files are private, are written atomically, and are adopted only from processes that have ended."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.delivery.spool import Spool, _checked, check_directory
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.model.datum import Datum, Series, Statistics
from otel_cloudwatch_flask.model.entity import Entity

ENTITY = Entity((("Type", "Service"), ("Name", "shop")), (("PlatformType", "Generic"),))

# Writes one batch, reports it, and waits until it is killed.
PROGRAM = """
import sys, time
from pathlib import Path
from tests.delivery.test_spool import batch
from otel_cloudwatch_flask.delivery.spool import Spool

Spool(Path(sys.argv[1])).write(batch("killed"))
print("written", flush=True)
sys.stdin.read()
"""


def batch(name: str, *, entity: Entity | None = None) -> Batch:
    """Return a batch with one datum."""
    datum = Datum(Series(name, (("Page", "Zürich"),), "Count"), 1_700_000_000, 5.0)
    return Batch(Envelope("Shop", entity), (datum,))


@pytest.mark.parametrize("entity", [None, ENTITY])
def test_what_is_read_is_what_was_written(tmp_path: Path, entity: Entity | None) -> None:
    """A batch is read from disk as the same bytes, including its entity."""
    spool = Spool(tmp_path)
    written = batch("Orders", entity=entity)
    path = spool.write(written)
    assert path is not None
    read = spool.read(path)
    assert read == written
    assert read is not None
    assert read.body() == written.body()


def test_files_are_private(tmp_path: Path) -> None:
    """Other users cannot read the spool, whatever the umask."""
    previous = os.umask(0)
    try:
        path = Spool(tmp_path / "spool").write(batch("Orders"))
    finally:
        os.umask(previous)
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


def test_a_living_process_keeps_its_batches(tmp_path: Path) -> None:
    """The directory of a living process is not adopted."""
    mine, other = Spool(tmp_path), Spool(tmp_path)
    assert mine.write(batch("Orders")) is not None
    assert list(other.adopt()) == []


def test_a_closed_spool_is_adopted(tmp_path: Path) -> None:
    """The next process adopts the files of an ended process, oldest first, and removes its directory."""
    first = Spool(tmp_path)
    for name in ("Orders", "Refunds"):
        assert first.write(batch(name)) is not None
    first.close()
    second = Spool(tmp_path)
    batches = [second.read(path) for path in second.adopt()]
    assert batches == [batch("Orders"), batch("Refunds")]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_spool_of_a_killed_process_is_adopted(tmp_path: Path) -> None:
    """The lock is also released by SIGKILL, so the next process adopts the files."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        assert list(Spool(tmp_path).adopt()) == []
        process.kill()
    spool = Spool(tmp_path)
    assert [spool.read(path) for path in spool.adopt()] == [batch("killed")]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff" * 100,
        b"otel-cloudwatch-flask spool 1 " + b"0" * 64 + b'\n{"Namespace": "Shop", "MetricData": []}',
        b"cos\nsystem\n(S'true'\ntR.",
    ],
    ids=["empty", "binary", "wrong checksum", "a pickle"],
)
def test_a_file_that_is_not_a_batch_is_set_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is damaged or does not contain a batch is set aside with a warning."""
    spool = Spool(tmp_path)
    path = spool.write(batch("Orders"))
    assert path is not None
    path.write_bytes(content)
    assert spool.read(path) is None
    assert not path.exists()
    assert [file.name for file in tmp_path.glob("*.bad")] == [path.name + ".bad"]
    assert "as a batch of metrics" in caplog.text


DATUMS_ON_DISK = (
    rb'{"MetricName":"Orders","Dimensions":[],"Unit":"Count","Timestamp":1790000000,"Value":5},'
    rb'{"MetricName":"Load","Dimensions":[{"Name":"Route","Value":"/caf\u00e9"}],"Unit":"None","StorageResolution":1,'
    rb'"Timestamp":1790000000,"Value":-0.25},'
    rb'{"MetricName":"Latency","Dimensions":[{"Name":"Route","Value":"/caf\u00e9"}],"Unit":"Milliseconds",'
    rb'"Timestamp":1790000060,"Values":[0.0,1.5,2e+100],"Counts":[3,1,2]},'
    rb'{"MetricName":"Size","Dimensions":[],"Unit":"Bytes","Timestamp":1790000060,'
    rb'"StatisticValues":{"SampleCount":3,"Sum":6.5,"Minimum":1,"Maximum":3}}'
)
FILES_ON_DISK = [
    b"otel-cloudwatch-flask spool 1 8492654332bca0e71944b1e161cb95f2498eee242b1e427b05fd08d931af00c4\n"
    b'{"Namespace":"Shop","MetricData":[' + DATUMS_ON_DISK + b"]}",
    b"otel-cloudwatch-flask spool 1 1235f7248cf888d643b600bc97a4d47e48a2a7ab29c70d6f4cbac9c305325813\n"
    b'{"Namespace":"Shop","EntityMetricData":[{"Entity":{"KeyAttributes":{"Type":"Service","Name":"shop"},'
    b'"Attributes":{"PlatformType":"Generic"}},"MetricData":['
    + DATUMS_ON_DISK
    + b']}],"StrictEntityValidation":false}',
    b"otel-cloudwatch-flask spool 1 3b151d3dc29beeffdb026fabbb8b964bd568570da29064e81ceff210c1ca8fcc\n"
    b'{"Namespace":"Shop","MetricData":[' + DATUMS_ON_DISK.replace(b"[0.0,", b"[0,") + b"]}",
]
"""Files written by earlier versions: without an entity, with one, and with shorter numbers."""
ROUTE = (("Route", "/café"),)
READ_FROM_DISK = [
    Datum(Series("Orders", (), "Count"), 1_790_000_000, 5.0),
    Datum(Series("Load", ROUTE, "None", 1), 1_790_000_000, -0.25),
    Datum(Series("Latency", ROUTE, "Milliseconds"), 1_790_000_060, Distribution([0.0, 1.5, 2e100], [3, 1, 2])),
    Datum(Series("Size", (), "Bytes"), 1_790_000_060, Statistics(3, 6.5, 1.0, 3.0)),
]


@pytest.mark.parametrize(
    ("content", "entity"),
    [*zip(FILES_ON_DISK, [None, ENTITY, None], strict=True)],
    ids=["plain", "entity", "short numbers"],
)
def test_a_file_of_an_earlier_version_is_read(tmp_path: Path, content: bytes, entity: Entity | None) -> None:
    """A file of an earlier version is read completely: every kind of datum, with all its members."""
    spool = Spool(tmp_path)
    path = spool.write(batch("Orders"))
    assert path is not None
    path.write_bytes(content)
    assert spool.read(path) == Batch(Envelope("Shop", entity), tuple(READ_FROM_DISK))


def test_a_directory_of_an_earlier_version_is_adopted(tmp_path: Path) -> None:
    """A process adopts what the processes of an earlier version left in the spool directory."""
    left = tmp_path / "process-01790000000000000000-k3x7a9_q"
    left.mkdir()
    (left / "lock").touch(0o600)
    (left / "01790000000000000000-000000.batch").write_bytes(FILES_ON_DISK[0])
    # An adopted file has a longer name.
    (left / "01790000000000000001-000000-000007.batch").write_bytes(FILES_ON_DISK[2])
    spool = Spool(tmp_path)
    assert [spool.read(path) for path in spool.adopt()] == 2 * [Batch(Envelope("Shop"), tuple(READ_FROM_DISK))]
    assert not left.exists()


@pytest.mark.parametrize(
    "numbers",
    [
        '"Value": NaN',
        '"Value": Infinity',
        '"Value": 1e200',
        '"Value": null',
        '"Values": [1, NaN], "Counts": [1, 1]',
        '"Values": [-Infinity, 1], "Counts": [1, 1]',
        '"Values": [1, 2], "Counts": [1, NaN]',
        '"Values": [1, 2], "Counts": [1]',
        '"Values": [1], "Counts": [1, 2]',
        '"Values": [], "Counts": []',
        '"Values": [1]',
        '"Values": 5, "Counts": 5',
        '"StatisticValues": {"SampleCount": 1, "Sum": NaN, "Minimum": 1, "Maximum": 1}',
        '"StatisticValues": {"SampleCount": Infinity, "Sum": 1, "Minimum": 1, "Maximum": 1}',
        '"StatisticValues": {"SampleCount": 1, "Sum": 1, "Minimum": 1}',
        '"Unit": "Count"',
    ],
)
def test_numbers_that_cannot_be_sent_are_set_aside(tmp_path: Path, numbers: str) -> None:
    """A file with inconsistent numbers, or numbers that CloudWatch rejects, is set aside despite a valid checksum."""
    spool = Spool(tmp_path)
    path = spool.write(batch("Orders"))
    assert path is not None
    datum = f'{{"MetricName": "Orders", "Dimensions": [], "Unit": "Count", "Timestamp": 1790000000, {numbers}}}'
    path.write_bytes(_checked(f'{{"Namespace": "Shop", "MetricData": [{datum}]}}'.encode()))
    assert spool.read(path) is None
    assert [file.name for file in tmp_path.glob("*.bad")] == [path.name + ".bad"]


def test_a_torn_file_is_set_aside(tmp_path: Path) -> None:
    """A truncated file is not read as a batch."""
    spool = Spool(tmp_path)
    path = spool.write(batch("Orders"))
    assert path is not None
    path.write_bytes(path.read_bytes()[:-10])
    assert spool.read(path) is None


def test_a_full_spool_leaves_batches_to_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the spool is full, no batch is written until a file is removed."""
    written = Spool(tmp_path / "measured").write(batch("Orders"))
    assert written is not None
    spool = Spool(tmp_path, max_bytes=2 * written.stat().st_size)
    first, second = (spool.write(batch("Orders")) for _ in range(2))
    assert first is not None
    assert second is not None
    assert spool.write(batch("Orders")) is None
    assert "new metrics are kept in memory only" in caplog.text
    spool.remove(first)
    assert spool.write(batch("Orders")) is not None


def closed_when_empty(directory: Path) -> Spool:
    """Return a spool that was closed after its only batch had been removed."""
    spool = Spool(directory)
    path = spool.write(batch("Orders"))
    assert path is not None
    spool.remove(path)
    spool.close()
    return spool


def test_an_empty_spool_leaves_nothing_behind(tmp_path: Path) -> None:
    """A process that has delivered everything leaves no directory."""
    closed_when_empty(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_directories_are_left_alone(tmp_path: Path) -> None:
    """A spool directory may also contain directories that are not part of the spool."""
    files = [tmp_path / "other" / "a.txt", tmp_path / "another" / "0.batch"]
    for file in files:
        file.parent.mkdir()
        file.write_text("")
    assert list(Spool(tmp_path).adopt()) == []
    assert all(file.exists() for file in files)


def test_a_directory_that_cannot_be_used_is_said_at_setup(tmp_path: Path) -> None:
    """The error names the directory and explains what to change."""
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(ConfigurationError, match=r"spool_directory='.*file'.*may write to"):
        check_directory(occupied)


def test_what_is_written_after_closing_is_adopted(tmp_path: Path) -> None:
    """A batch written after the spool was closed is kept for the next process."""
    first = closed_when_empty(tmp_path)
    for _ in range(2):
        assert first.write(batch("Orders")) is not None
        first.close()
    second = Spool(tmp_path)
    assert [second.read(path) for path in second.adopt()] == [batch("Orders")] * 2
