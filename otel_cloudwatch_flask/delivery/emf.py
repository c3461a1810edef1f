"""Write datums as documents in the embedded metric format (EMF), from which CloudWatch Logs extracts metrics.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

A document is one line. Lines are at most 4096 bytes long where possible. Linux writes such lines to a pipe atomically,
so lines of several processes do not interleave, and no log driver splits them (Docker's drivers split lines at 16 KB).
"""

import json
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final, TextIO

from otel_cloudwatch_flask.delivery.batch import Batch, Envelope, cached_json, number_json
from otel_cloudwatch_flask.delivery.compaction import compacted
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.limits import (
    MAX_DATUMS_PER_REQUEST,
    MAX_EMF_DIMENSION_NAME_LENGTH,
    MAX_METRICS_PER_LINE,
    MAX_VALUES_PER_LINE,
)
from otel_cloudwatch_flask.model.datum import Datum, Dimensions, Series, Statistics
from otel_cloudwatch_flask.model.dimensions import shortened
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog
from otel_cloudwatch_flask.runtime.safe_text import safe_repr

_once = RateLimitedLog(logging.getLogger(__name__))

WRITE_TIMEOUT_SECONDS: Final = 1.0
"""How long a write waits for a full pipe. The deadline of a delivery is checked between batches."""
_ATOMIC_BYTES: Final = 4096
"""The size up to which Linux writes to a pipe atomically: https://man7.org/linux/man-pages/man7/pipe.7.html."""
_MOST_VALUES: Final = 75
"""The number of values that usually fit into a line of 4096 bytes. A datum has at most twice as many."""
_METADATA: Final = "_aws"
_HEADER_BYTES: Final = 120


class StreamError(Exception):
    """Raised if a batch could not be written completely.

    ``written`` contains the datums that were written, and ``unwritten`` contains batches of the other datums.
    """

    def __init__(self, message: str, written: tuple[Datum, ...], unwritten: Sequence[Batch]) -> None:
        super().__init__(message)
        self.written = written
        self.unwritten = unwritten


def checked_stream(stream: TextIO | None) -> TextIO | None:
    """Return ``stream``, which may be ``None``.

    Raises :class:`ConfigurationError` if ``stream`` is an object without a ``write`` method.
    """
    if stream is None or callable(getattr(stream, "write", None)):
        return stream
    raise ConfigurationError(
        f"stream={safe_repr(stream)} has no write method; pass an open text file, or omit it for standard output.",
        key="stream",
        value=stream,
    )


_substitutes: Final[list[TextIO]] = []


@contextmanager
def standard_output_is(stream: TextIO) -> Iterator[None]:
    """Write the lines of exporters without a stream to ``stream`` until the ``with`` block ends."""
    _substitutes.append(stream)
    try:
        yield
    finally:
        _substitutes.remove(stream)


@dataclass(frozen=True, slots=True)
class EmfEnvelope(Envelope):
    """An envelope whose batches are encoded as EMF documents, one per line."""

    def __post_init__(self) -> None:
        for name, value in (("head", ""), ("tail", "\n")):
            object.__setattr__(self, name, value)

    def texts(self, datums: Sequence[Datum]) -> list[str]:
        """Encode ``datums`` as documents."""
        namespace = json.dumps(self.namespace)
        return [document.text(namespace) for document in documents(datums)]

    def batches(self, datums: Sequence[Datum], *, is_plain: bool = False) -> Iterator[Batch]:  # noqa: ARG002 - botocore does not encode EMF
        """Split ``datums`` into batches of encoded documents."""
        for begin in range(0, len(datums), MAX_DATUMS_PER_REQUEST):
            part = tuple(datums[begin : begin + MAX_DATUMS_PER_REQUEST])
            yield Batch(self, part, _texts=self.texts(part))


@dataclass(slots=True)
class Document:
    """The datums of one line. They have the same timestamp, dimensions and properties, but different names."""

    datums: list[Datum] = field(default_factory=list)
    _metrics: dict[str, str] = field(default_factory=dict)
    """Maps each metric's encoded name to its encoded numbers."""
    _definitions: list[str] = field(default_factory=list)
    _size_bytes: int = _HEADER_BYTES

    def add(self, datum: Datum) -> bool:
        """Add a datum. Returns ``False`` if it needs another document: its name is taken, or a limit is reached."""
        name, definition = _encoded_series(datum.series)
        numbers = _numbers_json(datum.content)
        size_bytes = 2 * len(name) + len(definition) + len(numbers) + 3
        if not self.datums:
            self._size_bytes += _common_bytes(datum.series.dimensions) + _common_bytes(datum.series.properties)
        elif (
            name in self._metrics
            or len(self._metrics) >= MAX_METRICS_PER_LINE
            or self._size_bytes + size_bytes > _ATOMIC_BYTES
        ):
            return False
        self._size_bytes += size_bytes
        self._metrics[name] = numbers
        self._definitions.append(definition)
        self.datums.append(datum)
        return True

    def text(self, namespace: str) -> str:
        """Encode the document as JSON, without whitespace between its members. ``namespace`` is already encoded."""
        series, seconds, _ = self.datums[0]
        names, dimensions = _encoded_dimensions(series.dimensions)
        properties = self._encoded_properties(series) if series.properties else ()
        members = filter(None, (",".join(dimensions), *properties, *map(":".join, self._metrics.items())))
        return (
            f'{{"{_METADATA}":{{"Timestamp":{seconds * 1000},"CloudWatchMetrics":[{{"Namespace":{namespace},'
            f'"Dimensions":[[{",".join(names)}]],"Metrics":[{",".join(self._definitions)}]}}]}},{",".join(members)}}}'
        )

    def _encoded_properties(self, series: Series) -> Iterator[str]:
        """Yield the encoded properties, except those with the name of another member."""
        taken = {f'"{_METADATA}"', *_encoded_dimensions(series.dimensions)[0], *self._metrics}
        encoded = ((json.dumps(key), json.dumps(value)) for key, value in series.properties)
        return (f"{name}:{value}" for name, value in encoded if name not in taken)


def documents(datums: Sequence[Datum]) -> Iterator[Document]:
    """Group ``datums`` into documents. A datum with too many values is split between two documents."""
    groups: dict[Hashable, list[Datum]] = {}
    for datum in datums:
        series = datum.series
        groups.setdefault((datum.unix_seconds, series.dimensions, series.properties), []).extend(_parts(datum))
    for group in groups.values():
        document = Document()
        for part in group:
            if not document.add(part):
                yield document
                document = Document()
                document.add(part)
        yield document


def _parts(datum: Datum) -> Sequence[Datum]:
    content = datum.content
    if not isinstance(content, Distribution) or len(content.values) <= _MOST_VALUES:
        return (datum,)
    middle = len(content.values) // 2
    halves = (slice(middle), slice(middle, None))
    return [datum._replace(content=Distribution(content.values[half], content.counts[half])) for half in halves]


@lru_cache(maxsize=20_000)
def _encoded_series(series: Series) -> tuple[str, str]:
    """Return the encoded name and definition of a metric."""
    name = series.name
    while name == _METADATA or json.dumps(name) in _encoded_dimensions(series.dimensions)[0]:
        name += "_"
    if name != series.name:
        _once.warning(
            ("name", series.name),
            "%s is published as %s, because in EMF a metric cannot be named _aws, or share its name with a "
            "dimension. Rename the metric or the attribute.",
            series.name,
            name,
        )
    definition: dict[str, str | int] = {"Name": name, "Unit": series.unit}
    if series.storage_resolution != 60:
        definition["StorageResolution"] = series.storage_resolution
    return json.dumps(name), json.dumps(definition, separators=(",", ":"))


@lru_cache(maxsize=20_000)
def _encoded_dimensions(dimensions: Dimensions) -> tuple[list[str], list[str]]:
    """Return the encoded names of dimensions, and their encoded members."""
    names = [json.dumps(shortened(name, MAX_EMF_DIMENSION_NAME_LENGTH)) for name, _ in dimensions]
    return names, [f"{name}:{json.dumps(value)}" for name, (_, value) in zip(names, dimensions, strict=True)]


@lru_cache(maxsize=20_000)
def _common_bytes(members: Dimensions) -> int:
    """Estimate how many bytes dimensions or properties take up in a document."""
    return sum(2 * len(name) + len(value) + 9 for name, value in members)


def _numbers_json(content: float | Distribution | Statistics) -> str:
    """Encode a metric's numbers: one number, an array with repeated values, statistics, or values with counts.

    The specification does not mention the last form, but the OpenTelemetry Collector writes it, and so does the
    CloudWatch agent, which contains the Collector: https://github.com/open-telemetry/opentelemetry-collector-contrib/blob/main/exporter/awsemfexporter/datapoint.go
    (``cWMetricHistogram``).
    """
    if isinstance(content, Statistics):
        return _statistics_json(content.minimum, content.maximum, content.sum, content.count) + "}"
    if not isinstance(content, Distribution):
        return number_json(content)
    values, counts = content
    if content.samples <= MAX_VALUES_PER_LINE:
        repeated = ",".join(",".join([cached_json(value)] * count) for value, count in zip(values, counts, strict=True))
        return f"[{repeated}]" if "," in repeated else repeated
    statistics = _statistics_json(values[0], values[-1], content.total, content.samples)
    return f'{statistics},"Values":[{",".join(map(cached_json, values))}],"Counts":[{",".join(map(str, counts))}]}}'


def _statistics_json(minimum: float, maximum: float, total: float, count: float) -> str:
    numbers = zip(("Min", "Max", "Sum", "Count"), map(number_json, (minimum, maximum, total, count)), strict=True)
    return "{" + ",".join(f'"{name}":{number}' for name, number in numbers)


class EmfPut:
    """Writes batches to ``stream``. If ``stream`` is ``None``, each write looks up ``sys.stdout`` anew.

    A call raises :class:`StreamError` if the stream is missing, closed or broken, or stays full for one second.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._start = ""

    def __call__(self, batch: Batch) -> None:
        """Write a batch, one line at a time."""
        number = 0
        try:
            write = _writer(self._stream or (_substitutes or [sys.stdout])[-1])
            for number, line in enumerate(batch.lines()):  # noqa: B007 - used after the loop
                write(f"{self._start}{line}\n")
                self._start = ""
        except Exception as error:
            self._start = "\n"  # ends a partially written line, so that the next line can be parsed
            every = list(documents(batch.datums))
            written, unwritten = (
                tuple(datum for document in part for datum in document.datums)
                for part in (every[:number], every[number:])
            )
            message = f"{type(error).__name__}: {error}"
            # Merge the halves of split datums again if neither half was written.
            remaining = compacted([Batch(batch.envelope, unwritten)]) if written else [batch]
            raise StreamError(message, written, remaining) from error


def _writer(stream: Any) -> Callable[[str], object]:
    """Return a function that writes a line to ``stream``. Raises ``ValueError`` if the stream is closed."""
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        return partial(_write_text, stream)
    if not hasattr(select, "poll"):  # Windows
        return lambda line: os.write(descriptor, line.encode("ascii"))
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return partial(_write_bytes, descriptor, poll)


def _write_text(stream: TextIO, line: str) -> None:
    """Write a line. Raises ``AttributeError`` if ``stream`` is ``None``."""
    stream.write(line)
    stream.flush()


def _write_bytes(descriptor: int, poll: "select.poll", line: str) -> None:
    """Write a line, and wait for room in the stream. Raises ``TimeoutError`` if that takes longer than one second."""
    # Bypasses the stream's buffer, where the line could be appended to an unfinished line of the app, or be split.
    rest = line.encode("ascii")
    deadline = time.monotonic() + WRITE_TIMEOUT_SECONDS
    while rest:
        if not poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
            raise TimeoutError("the stream stayed full; its reader is stopped or too slow")
        with suppress(BlockingIOError):  # another process filled the non-blocking pipe first
            # A longer write to a pipe could block.
            rest = rest[os.write(descriptor, rest[:_ATOMIC_BYTES]) :]
