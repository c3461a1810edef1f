"""Datums as the bytes of a request, and requests within CloudWatch's limits.

A datum is encoded once, as JSON without blanks: so its size is known to the byte, and batches can be filled to the
limit. Where botocore writes the request, because a program has passed a client of its own, that is larger: there is a
blank behind each comma and colon.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import accumulate
from typing import Any, Final

from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.limits import MAX_DATUMS_PER_REQUEST, MAX_REQUEST_BYTES, sendable
from otel_cloudwatch_flask.model.datum import Datum, Series, Statistics
from otel_cloudwatch_flask.model.entity import Entity

_SEPARATOR: Final = ","
_SEPARATORS: Final = (_SEPARATOR, ":")
_FIRST_WITH_EXPONENT: Final = 1e16
"""From here on Python writes whole floats with an exponent."""
_MAX_TEXTS: Final = 50_000
"""Numbers whose text is remembered, at about 150 bytes each."""


class _Texts(dict[float, str]):
    """Numbers as JSON.

    The references of buckets and small counts are in every batch: looking them up is faster than formatting them.
    """

    def __missing__(self, number: float) -> str:
        if len(self) >= _MAX_TEXTS:
            self.clear()
        text = self[number] = number_json(number)
        return text


_text_of: Final = _Texts().__getitem__


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is around the datums of a request: the namespace and, if it is known, the entity they belong to."""

    namespace: str
    entity: Entity | None = None
    head: str = field(init=False, compare=False, repr=False)
    tail: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        members = json.dumps(self.around([]), separators=_SEPARATORS)
        head, _, tail = members.rpartition("[]")
        object.__setattr__(self, "head", f"{head}[")
        object.__setattr__(self, "tail", f"]{tail}")

    def around(self, datums: Sequence[Mapping[str, object]]) -> dict[str, Any]:
        """The request's parameters with these datums."""
        if self.entity is None:
            return {"Namespace": self.namespace, "MetricData": datums}
        return {
            "Namespace": self.namespace,
            "EntityMetricData": [{"Entity": self.entity.member(), "MetricData": datums}],
            # An entity that CloudWatch does not like must not cost the metrics.
            "StrictEntityValidation": False,
        }

    @property
    def size_bytes(self) -> int:
        """The bytes it adds to a request."""
        return len(self.head) + len(self.tail)


@dataclass(slots=True)
class Batch:
    """Datums that fit in one request."""

    envelope: Envelope
    datums: tuple[Datum, ...]
    _texts: list[str] | None = field(default=None, compare=False, repr=False)
    _size_bytes: int = field(default=0, compare=False, repr=False)

    @property
    def size_bytes(self) -> int:
        """The size of the request's body before compression."""
        if not self._size_bytes:
            texts = self._encoded()
            self._size_bytes = self.envelope.size_bytes + sum(map(len, texts)) + max(len(texts) - 1, 0)
        return self._size_bytes

    def body(self) -> bytes:
        """The request's body."""
        return f"{self.envelope.head}{_SEPARATOR.join(self._encoded())}{self.envelope.tail}".encode("ascii")

    def forget_encoding(self) -> None:
        """Keep the values only, for a batch that has to wait: the text of its datums takes as much memory again."""
        self._size_bytes, self._texts = self.size_bytes, None

    def _encoded(self) -> list[str]:
        return [*map(encoded, self.datums)] if self._texts is None else self._texts

    @classmethod
    def empty(cls) -> "Batch":
        """Nothing to be sent."""
        return cls(Envelope(""), ())

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
        return cls(Envelope(str(members["Namespace"]), entity), tuple(map(_decoded, datums)))

    def parameters(self) -> dict[str, Any]:
        """The keyword arguments of ``put_metric_data``."""
        return self.envelope.around([_with_datetime(members_of(datum)) for datum in self.datums])

    def halves(self) -> "tuple[Batch, Batch]":
        """The same datums in two requests."""
        middle = len(self.datums) // 2
        return Batch(self.envelope, self.datums[:middle]), Batch(self.envelope, self.datums[middle:])


def members_of(datum: Datum) -> dict[str, Any]:
    """The members of the datum in a request, its time in Unix seconds."""
    series, seconds, content = datum
    members: dict[str, Any] = {
        "MetricName": series.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in series.dimensions],
        "Unit": series.unit,
    }
    if series.storage_resolution != 60:
        members["StorageResolution"] = series.storage_resolution
    members["Timestamp"] = seconds
    if isinstance(content, Distribution):
        members["Values"], members["Counts"] = [*map(_shortest, content.values)], [*content.counts]
    elif isinstance(content, Statistics):
        members["StatisticValues"] = {
            "SampleCount": content.count,
            "Sum": _shortest(content.sum),
            "Minimum": _shortest(content.minimum),
            "Maximum": _shortest(content.maximum),
        }
    else:
        members["Value"] = _shortest(content)
    return members


def _with_datetime(members: dict[str, Any]) -> dict[str, Any]:
    """The members as boto3 takes them."""
    return {**members, "Timestamp": datetime.fromtimestamp(members["Timestamp"], tz=timezone.utc)}


def _shortest(value: float) -> float:
    """The same number, as an int where that is how :func:`number_json` writes it: botocore would write ``60.0``."""
    return int(value) if abs(value) < _FIRST_WITH_EXPONENT and value == int(value) else value


def encoded(datum: Datum) -> str:
    """The datum as JSON."""
    series, seconds, content = datum
    if isinstance(content, Distribution):
        values, counts = content
        numbers = f'"Values":[{",".join(map(_text_of, values))}],"Counts":[{",".join(map(_text_of, counts))}]'
    elif isinstance(content, Statistics):
        numbers = (
            f'"StatisticValues":{{"SampleCount":{content.count},"Sum":{number_json(content.sum)},'
            f'"Minimum":{number_json(content.minimum)},"Maximum":{number_json(content.maximum)}}}'
        )
    else:
        numbers = f'"Value":{number_json(content)}'
    return f"{series.prefix}{seconds},{numbers}}}"


def number_json(value: float) -> str:
    """The shortest text that is read back as the same number, which is finite; negative zero is written as 0.

    >>> number_json(3.0), number_json(0.25), number_json(1e300), number_json(-0.0)
    ('3', '0.25', '1e+300', '0')
    """
    text = repr(value).removesuffix(".0")
    return "0" if text == "-0" else text


def _decoded(members: dict[str, Any]) -> Datum:
    """The datum with these members; a time with a fraction of a second is cut to whole seconds."""
    dimensions = tuple((str(each["Name"]), str(each["Value"])) for each in members["Dimensions"])
    resolution = int(members.get("StorageResolution", 60))
    series = Series(str(members["MetricName"]), dimensions, str(members["Unit"]), resolution)
    content: float | Distribution | Statistics
    if "Values" in members:
        content = Distribution([*map(_number, members["Values"])], [*map(int, members["Counts"])])
        if not 0 < len(content.values) == len(content.counts):
            raise ValueError("its values and counts do not belong together")
    elif "StatisticValues" in members:
        statistics = members["StatisticValues"]
        numbers = (_number(statistics[name]) for name in ("Sum", "Minimum", "Maximum"))
        content = Statistics(int(statistics["SampleCount"]), *numbers)
    else:
        content = _number(members["Value"])
    return Datum(series, int(members["Timestamp"]), content)


def _number(value: float) -> float:
    number = sendable(value)
    if number is None:
        raise ValueError(f"{value} is not a number that CloudWatch takes")
    return number


def batches(envelope: Envelope, datums: Sequence[Datum], *, is_plain: bool = False) -> Iterator[Batch]:
    """Fill requests in order, each to its limit of datums or bytes; ``is_plain``: botocore writes them."""
    size_of, separator_bytes = (_plain_size, len(", ")) if is_plain else (len, len(_SEPARATOR))
    envelope_bytes = size_of(envelope.head) + size_of(envelope.tail)
    room = MAX_REQUEST_BYTES - envelope_bytes + separator_bytes
    begin, texts = 0, list[str]()
    while begin < len(datums):
        texts += map(encoded, datums[begin + len(texts) : begin + MAX_DATUMS_PER_REQUEST])
        ends = [*accumulate(size_of(text) + separator_bytes for text in texts)]
        number = len(texts) if ends[-1] <= room else max(bisect_right(ends, room), 1)
        yield Batch(envelope, tuple(datums[begin : begin + number]), texts[:number])
        begin, texts = begin + number, texts[number:]


def _plain_size(text: str) -> int:
    """The size of this JSON as botocore writes it, or more if there are commas or colons in its texts."""
    return len(text) + sum(map(text.count, _SEPARATORS))
