"""Write datums as documents in the embedded metric format (EMF), from which CloudWatch Logs extracts metrics.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

A document is one line. Lines are at most 4096 bytes long where possible. Linux writes such lines to a pipe atomically,
so lines of several processes do not interleave. Docker's log drivers split only lines of more than 16 KB.
"""

import json
import logging
import os
import select
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain, repeat
from typing import Any, Final, TextIO

from otel_cloudwatch_flask import limits
from otel_cloudwatch_flask.delivery.batch import Batch, Envelope, cached_json, number_json, values_json
from otel_cloudwatch_flask.delivery.error_codes import Failure, Kind, failure
from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.model.datum import Content, Datum, Dimensions, Series, Statistics, statistics_of
from otel_cloudwatch_flask.model.dimensions import shortened
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

_once = RateLimitedLog(logging.getLogger(__name__))

WRITE_TIMEOUT_SECONDS: Final = 1.0
"""How long a write waits for a full pipe. The deadline of a delivery is checked between batches."""
_ATOMIC_BYTES: Final = 4096
"""The size up to which Linux writes to a pipe atomically: https://man7.org/linux/man-pages/man7/pipe.7.html."""
_MOST_VALUES: Final = 75
"""The number of values that usually fit into a line of 4096 bytes. A datum has at most twice as many."""
_METADATA: Final = "_aws"


stream_substitutes: Final[list[TextIO]] = []
"""Streams that tests have set. Exporters without a stream write to the last one instead of standard output."""


class EmfEnvelope(Envelope):
    """An envelope whose batches are encoded as EMF documents, one per line."""

    def __post_init__(self) -> None:
        # A batch counts the newlines as separators, except the one that ends the last line.
        object.__setattr__(self, "ends", ("", "\n"))

    def texts(self, datums: Sequence[Datum]) -> list[str]:
        """Encode ``datums`` as documents."""
        return [text for _, text in _documents(self.namespace, datums)]

    def batches(self, datums: Sequence[Datum]) -> Iterator[Batch]:
        """Split ``datums`` into batches of encoded documents. A datum with too many values becomes two datums."""
        for begin in range(0, len(datums), limits.MAX_DATUMS_PER_REQUEST):
            found = _documents(self.namespace, datums[begin : begin + limits.MAX_DATUMS_PER_REQUEST])
            parts, texts = zip(*found, strict=True)
            yield Batch(self, (*chain(*parts),), _texts=[*texts])


def _documents(namespace: str, datums: Sequence[Datum]) -> Iterator[tuple[list[Datum], str]]:
    """Group ``datums`` into documents, and return the datums and the text of each.

    The metrics of a document have the same timestamp, dimensions and properties, but different names. A datum with too
    many values for a document is replaced with two datums, in two documents.
    """
    groups: defaultdict[tuple[int, Dimensions, Dimensions], list[Datum]] = defaultdict(list)
    for datum in datums:
        groups[datum.unix_seconds, datum.series.dimensions, datum.series.properties].extend(_parts(datum))
    for (unix_seconds, dimensions, properties), parts in groups.items():
        head, shared, room = _common(namespace, dimensions, properties)
        document: list[Datum] = []
        definitions: dict[str, str] = {}
        members, left = {**shared}, room
        for datum in parts:
            name, definition = _encoded_series(datum.series)
            member = f"{name}:{_numbers_json(datum.content)}"
            size = len(definition) + len(member) + len(",,")
            if document and (name in definitions or size > left or len(document) == limits.MAX_METRICS_PER_LINE):
                yield document, _text(unix_seconds, head, members, definitions)
                document, members, definitions, left = [], {**shared}, {}, room
            members[name], definitions[name], left = member, definition, left - size
            document.append(datum)
        yield document, _text(unix_seconds, head, members, definitions)


def _text(unix_seconds: int, head: str, members: dict[str, str], definitions: dict[str, str]) -> str:
    """Encode a document as JSON, without whitespace between its members."""
    body = ",".join(members.values())
    return f'{{"_aws":{{"Timestamp":{unix_seconds}000,{head}{",".join(definitions.values())}]}}]}},{body}}}'


def _parts(datum: Datum) -> Sequence[Datum]:
    content = datum.content
    if not isinstance(content, Distribution) or len(content.values) <= _MOST_VALUES:
        return (datum,)
    slices = (slice(_MOST_VALUES), slice(_MOST_VALUES, None))
    return [datum._replace(content=Distribution(content.values[each], content.counts[each])) for each in slices]


@lru_cache(maxsize=20_000)
def _encoded_series(series: Series) -> tuple[str, str]:
    """Return the encoded name and definition of a metric, with a name that is not reserved or taken by a dimension."""
    name = series.name
    while name == _METADATA or json.dumps(name) in _encoded(series.dimensions):
        name += "_"
    if name != series.name:
        message = (
            "%s is published as %s: in EMF, a metric cannot be named _aws or have the same name as one of its "
            "dimensions. Rename the metric or the dimension."
        )
        _once.warning(series.name, message, series.name, name)
    resolution = "" if series.storage_resolution == 60 else f',"StorageResolution":{series.storage_resolution}'
    encoded = json.dumps(name)
    return encoded, f'{{"Name":{encoded},"Unit":"{series.unit}"{resolution}}}'


@lru_cache(maxsize=20_000)
def _common(namespace: str, dimensions: Dimensions, properties: Dimensions) -> tuple[str, dict[str, str], int]:
    """Return the JSON that documents with these dimensions and properties share.

    The first item is the metadata up to the metric definitions. The second maps the names of dimensions and properties
    to their members. The third is the number of bytes that remain for metrics.

    If a dimension and a property have the same name, only the dimension is included. A document also replaces a
    property with a metric of the same name.
    """
    names = ",".join(_encoded(dimensions))
    head = f'"CloudWatchMetrics":[{{"Namespace":{json.dumps(namespace)},"Dimensions":[[{names}]],"Metrics":['
    members = {**_encoded(properties), **_encoded(dimensions)}
    # Every timestamp has ten digits.
    return head, members, _ATOMIC_BYTES - len(_text(1_234_567_890, head, members, {}))


@lru_cache(maxsize=20_000)
def _encoded(members: Dimensions) -> dict[str, str]:
    """Encode dimensions or properties, and return the members of the document by their encoded names."""
    longest = limits.MAX_EMF_DIMENSION_NAME_LENGTH
    acceptable = (("_aws_" if name == _METADATA else shortened(name, longest), value) for name, value in members)
    return {json.dumps(name): f"{json.dumps(name)}:{json.dumps(value)}" for name, value in acceptable}


def _numbers_json(content: Content) -> str:
    """Encode a metric's numbers: one number, an array with repeated values, statistics, or values with counts.

    The specification does not mention the last form, but the OpenTelemetry Collector writes it, and so does the
    CloudWatch agent, which includes the Collector's exporter: https://github.com/open-telemetry/opentelemetry-collector-contrib/blob/main/exporter/awsemfexporter/datapoint.go
    (``cWMetricHistogram``).
    """
    if not isinstance(content, (Distribution, Statistics)):
        return number_json(content)
    if isinstance(content, Distribution) and content.samples <= limits.MAX_VALUES_PER_LINE:
        samples = ",".join(chain.from_iterable(map(repeat, map(cached_json, content.values), content.counts)))
        return f"[{samples}]" if content.samples > 1 else samples
    whole = statistics_of(content)
    values = f",{values_json(content)}" if isinstance(content, Distribution) else ""
    return (
        f'{{"Min":{number_json(whole.minimum)},"Max":{number_json(whole.maximum)},'
        f'"Sum":{number_json(whole.sum)},"Count":{whole.count}{values}}}'
    )


class EmfPut:
    """Writes batches to ``stream``. If ``stream`` is ``None``, each call looks up ``sys.stdout`` anew.

    A call returns a failure if the stream is missing, closed or broken, or stays full for one second.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._start = ""

    def __call__(self, batch: Batch) -> Failure | None:
        """Write a batch, one line at a time. Returns ``None`` if all lines were written."""
        stream = self._stream or (stream_substitutes or [sys.stdout])[-1]
        lines = 0
        try:
            for line in batch.lines():
                _write(stream, f"{self._start}{line}\n")
                self._start = ""
                lines += 1
        except Exception as error:  # noqa: BLE001 - the boundary to streams of any kind
            self._start = "\n"  # ends a partially written line, so that the next line can be parsed
            documents = [datums for datums, _ in _documents(batch.envelope.namespace, batch.datums)]
            written, unwritten = chain(*documents[:lines]), chain(*documents[lines:])
            return Failure(Kind.STREAM, failure(error).message, written=(*written,), unwritten=(*unwritten,))
        return None


def _write(stream: Any, line: str) -> None:
    """Write a line as soon as the stream has room for it.

    Raises ``TimeoutError`` if there is no room within one second, ``ValueError`` or ``OSError`` if the stream is closed
    or broken, and ``AttributeError`` if it is ``None``.
    """
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        stream.write(line)
        stream.flush()
        return
    # Bypasses the stream's buffer, where the line could be appended to an unfinished line of the app, or be split.
    rest = line.encode("ascii")
    deadline = time.monotonic() + WRITE_TIMEOUT_SECONDS
    while rest:
        if not _has_room(descriptor, deadline - time.monotonic()):
            raise TimeoutError("the stream stayed full; its reader has stopped or is too slow")
        with suppress(BlockingIOError):  # another process filled the non-blocking pipe first
            # A longer write to a pipe could block.
            rest = rest[os.write(descriptor, rest[:_ATOMIC_BYTES]) :]


def _has_room(descriptor: int, seconds: float) -> bool:
    """Wait until a write to a stream would not block, and return ``False`` if that takes longer than ``seconds``."""
    if not hasattr(select, "poll"):
        return True  # Windows cannot tell
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(max(seconds, 0) * 1000))
