"""Encode datums as JSON, and group them into batches that fit into one request.

Datums are encoded before they are grouped, as compact JSON, so that their exact size is known and batches can be filled
to the limit. If the program passes a client, that client encodes the request instead. Room is then left for the space
that botocore adds after each comma and colon of JSON.
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
from otel_cloudwatch_flask.model.datum import Content, Datum, Series, Statistics
from otel_cloudwatch_flask.model.entity import Entity

_SEPARATOR: Final = ","
_SEPARATORS: Final = (_SEPARATOR, ":")
_FIRST_WITH_EXPONENT: Final = 1e16
"""The smallest whole float that ``repr`` writes with an exponent."""
_MAX_CACHED_NUMBERS: Final = 50_000
"""The maximum number of cached numbers, each of which takes about 150 bytes."""


class _NumberCache(dict[float, str]):
    """A cache that maps numbers to their JSON.

    Small counts and the values of histogram buckets recur in every batch, and a lookup is faster than formatting.
    """

    def __missing__(self, number: float) -> str:
        if len(self) >= _MAX_CACHED_NUMBERS:
            self.clear()  # evicting single entries would make every lookup slower
        text = self[number] = number_json(number)
        return text


cached_json: Final = _NumberCache().__getitem__


@dataclass(frozen=True)
class Envelope:
    """The part of a request that all its datums share: the namespace and, if known, the entity."""

    namespace: str
    entity: Entity | None = None
    is_plain: bool = field(default=False, compare=False)
    """Whether botocore encodes the requests. Its JSON is longer, and has to stay within the same limit."""

    ends: tuple[str, str] = field(init=False, compare=False, repr=False)
    """The parts of a request body before and after its datums."""

    def __post_init__(self) -> None:
        head, _, tail = json.dumps(self.parameters([]), separators=_SEPARATORS).rpartition("[]")
        # Many batches share an envelope, so it is frozen, and ordinary assignment is impossible.
        object.__setattr__(self, "ends", (f"{head}[", f"]{tail}"))

    def parameters(self, datums: Sequence[Mapping[str, object]]) -> dict[str, Any]:
        """Return the parameters of a request that contains ``datums``."""
        if self.entity is None:
            return {"Namespace": self.namespace, "MetricData": datums}
        return {
            "Namespace": self.namespace,
            "EntityMetricData": [{"Entity": self.entity.member(), "MetricData": datums}],
            # Makes CloudWatch store the metrics even if it does not accept the entity.
            "StrictEntityValidation": False,
        }

    def texts(self, datums: Sequence[Datum]) -> list[str]:
        """Encode ``datums`` as the parts of a body."""
        return [*map(encoded, datums)]

    def batches(self, datums: Sequence[Datum]) -> "Iterator[Batch]":
        """Split ``datums`` into batches, in order, each as large as the limits on datums and bytes allow."""
        size_of, separator_bytes = (_plain_size, len(", ")) if self.is_plain else (len, len(_SEPARATOR))
        room = MAX_REQUEST_BYTES - sum(map(size_of, self.ends)) + separator_bytes
        begin, texts = 0, list[str]()
        while begin < len(datums):
            texts += self.texts(datums[begin + len(texts) : begin + MAX_DATUMS_PER_REQUEST])
            ends = [*accumulate(size_of(text) + separator_bytes for text in texts)]
            # At least one datum, or the loop would not end.
            number = len(texts) if ends[-1] <= room else max(bisect_right(ends, room), 1)
            yield Batch(self, tuple(datums[begin : begin + number]), _texts=texts[:number])
            begin, texts = begin + number, texts[number:]


@dataclass(slots=True)
class Batch:
    """The datums and the envelope of one request."""

    envelope: Envelope
    datums: tuple[Datum, ...]
    is_suspect: bool = field(default=False, compare=False)
    """Whether this batch is part of a batch that CloudWatch has refused."""
    _texts: list[str] | None = field(default=None, compare=False, repr=False)
    _size_bytes: int = field(default=0, compare=False, repr=False)

    @property
    def size_bytes(self) -> int:
        """The size of the request body before compression."""
        if not self._size_bytes:
            texts = self.lines()
            self._size_bytes = sum(map(len, [*self.envelope.ends, *texts])) + max(len(texts) - 1, 0)
        return self._size_bytes

    def body(self) -> bytes:
        """Return the request body as JSON."""
        # ASCII, because json.dumps escapes all other characters. The body therefore has as many bytes as characters.
        head, tail = self.envelope.ends
        return f"{head}{_SEPARATOR.join(self.lines())}{tail}".encode("ascii")

    def forget_encoding(self) -> None:
        """Free the encoded text, which takes up about as much memory as the datums.

        The datums are encoded again when needed.
        """
        self._size_bytes, self._texts = self.size_bytes, None

    def lines(self) -> list[str]:
        """Return the parts of the body. Each part is one datum or, with an EMF envelope, one document."""
        return self.envelope.texts(self.datums) if self._texts is None else self._texts

    @classmethod
    def from_body(cls, body: bytes) -> "Batch":
        """Parse a request body that :meth:`body` returned.

        Raises ``ValueError``, ``LookupError``, ``TypeError`` or ``AttributeError`` if ``body`` is malformed, and
        ``OverflowError`` or ``RecursionError`` if its numbers are too large or it is nested too deeply.
        """
        members = json.loads(body)
        datums = members.pop("MetricData", None)
        entity = None
        if datums is None:
            (part,) = members["EntityMetricData"]
            datums = part["MetricData"]
            entity = Entity.from_member(part["Entity"])
        return cls(Envelope(str(members["Namespace"]), entity), tuple(map(datum_of, datums)))

    def parameters(self) -> dict[str, Any]:
        """Return the keyword arguments of ``put_metric_data``."""
        datums = [*map(members_of, self.datums)]
        for each in datums:
            each["Timestamp"] = datetime.fromtimestamp(each["Timestamp"], tz=timezone.utc)
        return self.envelope.parameters(datums)

    def halves(self) -> "tuple[Batch, Batch]":
        """Split the batch in the middle into two suspect batches."""
        middle = len(self.datums) // 2
        first, second = self.datums[:middle], self.datums[middle:]
        return Batch(self.envelope, first, is_suspect=True), Batch(self.envelope, second, is_suspect=True)


def members_of(datum: Datum) -> dict[str, Any]:
    """Convert ``datum`` to a ``MetricDatum`` structure whose timestamp is in Unix seconds."""
    series, seconds, content = datum
    members = series.members()
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


def _shortest(value: float) -> float:
    """Convert whole numbers to ``int``, so that botocore, like :func:`number_json`, writes ``60``, not ``60.0``."""
    return int(value) if abs(value) < _FIRST_WITH_EXPONENT and value == int(value) else value


def encoded(datum: Datum) -> str:
    """Encode ``datum`` as JSON."""
    series, seconds, content = datum
    if isinstance(content, Distribution):
        numbers = values_json(content)
    elif isinstance(content, Statistics):
        numbers = (
            f'"StatisticValues":{{"SampleCount":{content.count},"Sum":{number_json(content.sum)},'
            f'"Minimum":{number_json(content.minimum)},"Maximum":{number_json(content.maximum)}}}'
        )
    else:
        numbers = f'"Value":{number_json(content)}'
    return f"{series.prefix or series.encode_prefix()}{seconds},{numbers}}}"


def values_json(content: Distribution) -> str:
    """Encode the values and counts of a distribution as two members of a JSON object."""
    values, counts = content
    return f'"Values":[{",".join(map(cached_json, values))}],"Counts":[{",".join(map(cached_json, counts))}]'


def number_json(value: float) -> str:
    """Return compact JSON that parses to ``value``, which must be finite. Negative zero becomes 0.

    >>> number_json(3.0), number_json(0.25), number_json(1e300), number_json(-0.0)
    ('3', '0.25', '1e+300', '0')
    """
    text = repr(value).removesuffix(".0")
    return "0" if text == "-0" else text


def datum_of(members: Mapping[str, Any]) -> Datum:
    """Parse a ``MetricDatum`` structure, and truncate its timestamp to whole seconds."""
    dimensions = tuple((str(each["Name"]), str(each["Value"])) for each in members["Dimensions"])
    resolution = int(members.get("StorageResolution", 60))
    series = Series(str(members["MetricName"]), dimensions, str(members["Unit"]), resolution)
    content: Content
    if "Values" in members:
        content = Distribution([*map(sendable, members["Values"])], [*map(int, members["Counts"])])
        if not 0 < len(content.values) == len(content.counts):
            raise ValueError("its values and counts differ in length or are empty")
    elif "StatisticValues" in members:
        statistics = members["StatisticValues"]
        numbers = (sendable(statistics[name]) for name in ("Sum", "Minimum", "Maximum"))
        content = Statistics(int(statistics["SampleCount"]), *numbers)
    else:
        content = sendable(members["Value"])
    return Datum(series, int(members["Timestamp"]), content)


def _plain_size(text: str) -> int:
    """Return the size of ``text`` as botocore encodes it, with a space after each separator.

    This is an overestimate if strings in ``text`` contain commas or colons.
    """
    return len(text) + sum(map(text.count, _SEPARATORS))
