"""Datums as the bytes of a request, and requests within CloudWatch's limits.

A datum is encoded once, as JSON without a blank: so its size is known to the byte, batches can be filled to the limit,
and what the backlog keeps is what is sent. Where botocore writes the request, because a program has passed a client of
its own, that is larger: there is a blank behind each comma and colon.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from itertools import accumulate
from typing import Any, Final, TypeAlias

from otel_cloudwatch_flask.datum import Datum, Series, Statistics
from otel_cloudwatch_flask.distribution import Distribution
from otel_cloudwatch_flask.entity import Entity
from otel_cloudwatch_flask.limits import MAX_DATUMS_PER_REQUEST, MAX_REQUEST_BYTES

_SEPARATOR: Final = ","
_SEPARATORS: Final = (_SEPARATOR, ":")
_PLAIN_SEPARATOR_BYTES: Final = len(", ")

TIMESTAMP_MEMBER: Final = '"Timestamp":'
"""What separates a datum's series from its numbers. Inside a text its quotation marks would be escaped."""


EncodedDatum: TypeAlias = str
"""A datum as JSON in ASCII: its series, then :data:`TIMESTAMP_MEMBER` and its time, then its numbers."""


def metric_name_of(datum: EncodedDatum) -> str:
    """The name of its metric."""
    return str(json.loads(datum)["MetricName"])


def unix_seconds_of(datum: EncodedDatum) -> int:
    """Its time, without reading the rest.

    Raises ``ValueError`` if it has none.
    """
    begin = datum.index(TIMESTAMP_MEMBER) + len(TIMESTAMP_MEMBER)
    return int(datum[begin : datum.index(",", begin)])


def moved_to(datum: EncodedDatum, unix_seconds: int) -> EncodedDatum:
    """The same datum at another time."""
    series, member, rest = datum.partition(TIMESTAMP_MEMBER)
    _, separator, numbers = rest.partition(",")
    return f"{series}{member}{unix_seconds}{separator}{numbers}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is around the datums of a request: the namespace and, if it is known, the entity they belong to."""

    head: str
    tail: str

    @classmethod
    def of(cls, namespace: str, entity: Entity | None = None) -> "Envelope":
        """The envelope of requests to this namespace."""
        members: dict[str, object] = {"Namespace": namespace}
        if entity is None:
            members["MetricData"] = []
        else:
            members["EntityMetricData"] = [{"Entity": entity.member(), "MetricData": []}]
            # An entity that CloudWatch does not like must not cost the metrics.
            members["StrictEntityValidation"] = False
        head, _, tail = _json(members).rpartition("[]")
        return cls(f"{head}[", f"]{tail}")

    @property
    def size_bytes(self) -> int:
        """The bytes it adds to a request."""
        return len(self.head) + len(self.tail)


@dataclass(frozen=True)
class Batch:
    """Datums that fit in one request.

    No datum's time is before the first of the ``bounds``, or after the second, if they are known.
    """

    envelope: Envelope
    datums: tuple[EncodedDatum, ...]
    bounds: tuple[int, int] | None = field(default=None, compare=False)

    @cached_property
    def size_bytes(self) -> int:
        """The size of the request's body before compression."""
        return self.envelope.size_bytes + _joined_size(self.datums)

    @property
    def plain_size_bytes(self) -> int:
        """The size of the body that botocore writes for it; more, if there are commas or colons in texts."""
        envelope = _plain_size(self.envelope.head) + _plain_size(self.envelope.tail)
        return envelope + sum(map(_plain_size, self.datums)) + _PLAIN_SEPARATOR_BYTES * max(len(self.datums) - 1, 0)

    @cached_property
    def times(self) -> tuple[int, int]:
        """The bounds; if they are not known, the oldest and the newest time of a datum, of which there must be one."""
        if self.bounds is not None:
            return self.bounds
        times = [*map(unix_seconds_of, self.datums)]
        return min(times), max(times)

    def body(self) -> bytes:
        """The request's body."""
        datums = [*self.datums] or [""]
        # Rather than around all of them together: of a megabyte it is worth its while to make no further copy.
        datums[0] = self.envelope.head + datums[0]
        datums[-1] += self.envelope.tail
        return _SEPARATOR.join(datums).encode("ascii")

    @classmethod
    def empty(cls) -> "Batch":
        """Nothing to be sent."""
        return cls(Envelope("", ""), ())

    @classmethod
    def from_body(cls, body: bytes) -> "Batch":
        """The batch that has this body, which must be one that :meth:`body` has made.

        Raises ``ValueError``, ``LookupError``, ``TypeError`` or ``AttributeError`` for anything else, and for numbers
        or nesting beyond all bounds ``OverflowError`` or ``RecursionError``.
        """
        members = json.loads(body)
        datums = members.pop("MetricData", None)
        entity = None
        if datums is None:
            (part,) = members["EntityMetricData"]
            datums = part["MetricData"]
            entity = Entity.from_member(part["Entity"])
        return cls(Envelope.of(str(members["Namespace"]), entity), tuple(map(_datum_of, datums)))

    def parameters(self) -> dict[str, Any]:
        """The keyword arguments of ``put_metric_data``."""
        parameters: dict[str, Any] = json.loads(self.body())
        for part in (parameters, *parameters.get("EntityMetricData", ())):
            for datum in part.get("MetricData", ()):
                datum["Timestamp"] = datetime.fromtimestamp(datum["Timestamp"], tz=timezone.utc)
        return parameters

    def halves(self) -> "tuple[Batch, Batch]":
        """The same datums in two requests."""
        middle = len(self.datums) // 2
        return replace(self, datums=self.datums[:middle]), replace(self, datums=self.datums[middle:])


def _datum_of(members: dict[str, Any]) -> EncodedDatum:
    """The datum with these members, its time as the whole number of seconds that it stands for."""
    _name, seconds = members["MetricName"], int(members["Timestamp"])  # both must be there
    return moved_to(_json(members), seconds)


def _json(members: object) -> str:
    return json.dumps(members, separators=_SEPARATORS)


def series_head(series: Series) -> str:
    """The beginning of each datum of a series, up to where its time is written."""
    members: dict[str, object] = {
        "MetricName": series.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in series.dimensions],
        "Unit": series.unit,
    }
    if series.storage_resolution != 60:
        members["StorageResolution"] = series.storage_resolution
    return f"{_json(members)[:-1]},{TIMESTAMP_MEMBER}"


def encoded(datum: Datum, head: str | None = None) -> EncodedDatum:
    """The datum as JSON; ``head`` is the beginning that is the same in each of its series, if it is there already."""
    head = series_head(datum.series) if head is None else head
    return f"{head}{datum.unix_seconds},{content_json(datum.content)}}}"


def batches(
    envelope: Envelope,
    datums: Sequence[EncodedDatum],
    bounds: tuple[int, int] | None = None,
    *,
    is_plain: bool = False,
) -> Iterator[Batch]:
    """Fill requests in order, each to its limit of datums or bytes; ``bounds`` are those of all their times.

    ``is_plain``: botocore writes them.
    """
    waiting = tuple(datums)
    begin = 0
    while begin < len(waiting):
        batch = Batch(envelope, waiting[begin : begin + MAX_DATUMS_PER_REQUEST], bounds)
        if (batch.plain_size_bytes if is_plain else batch.size_bytes) > MAX_REQUEST_BYTES:
            batch = replace(batch, datums=batch.datums[: _number_that_fits(batch, is_plain=is_plain)])
        yield batch
        begin += len(batch.datums)


def _number_that_fits(batch: Batch, *, is_plain: bool) -> int:
    """How many of its datums, the first ones, fit in one request; one does in any case."""
    size_of, separator_bytes = (_plain_size, _PLAIN_SEPARATOR_BYTES) if is_plain else (len, len(_SEPARATOR))
    ends = accumulate(size_of(datum) + separator_bytes for datum in batch.datums)
    room = MAX_REQUEST_BYTES - size_of(batch.envelope.head) - size_of(batch.envelope.tail) + separator_bytes
    return max(bisect_right(list(ends), room), 1)


def _plain_size(text: str) -> int:
    """The size of this JSON as botocore writes it, or more if there are commas or colons in its texts."""
    return len(text) + sum(map(text.count, _SEPARATORS))


def _joined_size(datums: Sequence[EncodedDatum]) -> int:
    return sum(map(len, datums)) + len(_SEPARATOR) * max(len(datums) - 1, 0)


def content_json(content: float | Distribution | Statistics) -> str:
    """The members of a datum that hold its numbers."""
    if isinstance(content, Distribution):
        values, counts = map(_SEPARATOR.join, (map(repr, content.values), map(repr, content.counts)))
        return f'"Values":[{values}],"Counts":[{counts}]'
    if isinstance(content, Statistics):
        return (
            f'"StatisticValues":{{"SampleCount":{content.count},"Sum":{number_json(content.sum)},'
            f'"Minimum":{number_json(content.minimum)},"Maximum":{number_json(content.maximum)}}}'
        )
    return f'"Value":{number_json(content)}'


def number_json(value: float) -> str:
    """The shortest text that is read back as the same number, which is finite."""
    if value.is_integer() and abs(value) < 1e15:
        return repr(int(value))
    return repr(value)
