"""Read the JSON documents of published series that ``preview``, ``demo`` and the live page produce."""

import json
import math
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click

from otel_cloudwatch_flask.commands.shared.command import CommandError
from otel_cloudwatch_flask.delivery.batch import datum_of
from otel_cloudwatch_flask.model.datum import Datum

_T = TypeVar("_T")

_TIMEOUT_SECONDS: Final = 5.0
_NESTED: Final = "document"
"""The key under which the output of ``demo --json`` contains the document."""


class Metric(NamedTuple):
    """What CloudWatch bills as one metric, whatever its units. The dimensions are sorted."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """A CloudWatch metric published in one unit. ``undelivered`` is the number of its samples that are pending or lost.

    ListMetrics returns only namespaces, names and dimensions, so the other fields of its metrics have their defaults.
    """

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...] = ()
    unit: str = "None"
    samples: float = 0.0
    flushes: int = 0
    p99: float | None = None
    undelivered: float = 0.0
    last_datum: Datum | None = field(default=None, compare=False)

    @property
    def metric(self) -> Metric:
        """The metric to which the series belongs."""
        return Metric(self.namespace, self.name, self.dimensions)

    @property
    def members(self) -> dict[str, Any]:
        """The namespace, the name and the dimensions in the form of CloudWatch's API and of CloudFormation."""
        dimensions = [{"Name": name, "Value": value} for name, value in self.dimensions]
        members = {"Namespace": self.namespace, "MetricName": self.name}
        return {**members, "Dimensions": dimensions} if dimensions else members

    def __str__(self) -> str:
        pairs = ", ".join(f"{name}={value}" for name, value in self.dimensions)
        return f"{self.name} {{{pairs}}}" if pairs else self.name


@dataclass(frozen=True, slots=True)
class Document:
    """The published series in document order, and the rate of calls to CloudWatch (``None`` if unknown)."""

    series: tuple[SeriesSummary, ...]
    requests_per_second: float | None = None

    @property
    def namespaces(self) -> list[str]:
        """The distinct namespaces, in order of appearance."""
        return list(dict.fromkeys(series.namespace for series in self.series))


def document_from(value: Any) -> Document:
    """Convert decoded JSON to a document. Raises ``ValueError`` if its content is invalid."""
    try:
        document = value.get(_NESTED, value)
        return Document(tuple(map(_series_from, document["series"])), _rate(document))
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError('it is not a JSON object with a list "series"') from error


def read_document(source: str) -> Document:
    """Read a document from a file, an HTTP(S) URL or, for ``-``, standard input.

    Raises :class:`CommandError` if the document cannot be read.
    """
    return read_json(source, document_from, "the output of preview --json or demo --json, or a live page's data.json")


def read_json(source: str, convert: Callable[[Any], _T], expected: str) -> _T:
    """Read JSON like :func:`read_document`, and convert it.

    Raises :class:`CommandError` if the JSON cannot be read, or if ``convert`` raises ``ValueError``. The message says
    that ``expected`` should be passed.
    """
    try:
        return convert(json.loads(_bytes(source)))
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise CommandError(
            f"Cannot read {source or 'the file'}: {reason}. Pass {expected}, as a file, a URL, or - for standard input."
        ) from error


from_option: Final = click.option(
    "--from",
    "source",
    metavar="FILE|URL|-",
    help="Read metrics from the output of preview --json or demo --json, or from a live page's data.json.",
)
"""The option ``--from``, which click passes to the command as ``source``."""


def _bytes(source: str) -> bytes:
    """Read ``source`` as bytes, because the encoding may be UTF-8, or UTF-16 if PowerShell redirected the output."""
    if not source:
        raise ValueError("its name is empty")
    if source == "-":
        if sys.stdin is None:
            raise ValueError("standard input is closed")
        return sys.stdin.buffer.read()
    if source.startswith(("http://", "https://")):
        with urllib.request.urlopen(source, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - the scheme is checked
            content: bytes = response.read()
        return content
    return Path(source).read_bytes()


def _series_from(value: Any) -> SeriesSummary:
    try:
        p99, last_datum = value.get("p99"), value.get("last_datum")
        return SeriesSummary(
            namespace=str(value["namespace"]),
            name=str(value["metric_name"]),
            dimensions=tuple(sorted((str(name), str(text)) for name, text in value["dimensions"].items())),
            unit=str(value.get("unit", "None")),
            samples=finite(value.get("samples", 0.0)),
            flushes=len(value.get("flushes", ())),
            p99=None if p99 is None else finite(p99),
            undelivered=finite(value.get("undelivered", 0.0)),
            last_datum=last_datum and datum_of(last_datum),
        )
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(f"it contains an invalid series: {json.dumps(value)[:100]}") from error


def finite(value: Any) -> float:
    """Convert a value to a float. Raises ``ValueError`` if it is NaN or infinite, which Python accepts in JSON."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a finite number")
    return number


def _rate(value: Mapping[str, Any]) -> float | None:
    """Return the calls to CloudWatch per second, or ``None`` if the rate is unknown.

    The rate is ``requests_per_second`` if the document has that key, otherwise ``requests`` divided by ``seconds``.
    """
    try:
        rate = value["requests_per_second"] if "requests_per_second" in value else value["requests"] / value["seconds"]
        return finite(rate)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
