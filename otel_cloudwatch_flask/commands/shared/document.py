"""What was published, as a document: what ``preview --json``, ``demo --json`` and the live page's data say of it."""

import json
import math
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from otel_cloudwatch_flask.commands.shared.usage import Unusable

_F = TypeVar("_F", bound=Callable[..., Any])

_TIMEOUT_SECONDS: Final = 5.0
_NESTED: Final = "document"
"""Where other documents than an observation's have one."""


@dataclass(frozen=True, slots=True)
class SeenSeries:
    """A CloudWatch metric in one unit, and what is known of its samples; of what was only listed, that is nothing."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...] = ()
    unit: str = "None"
    samples: float = 0.0
    flushes: int = 0
    p99: float | None = None

    @property
    def metric(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """What CloudWatch bills: it does not tell units apart."""
        return self.namespace, self.name, self.dimensions


@dataclass(frozen=True, slots=True)
class Document:
    """Series, in the order in which they came, and how often CloudWatch was called meanwhile, if that is known."""

    series: tuple[SeenSeries, ...]
    requests_per_second: float | None = None

    @property
    def namespaces(self) -> list[str]:
        """Each once, in the order in which they came."""
        return list(dict.fromkeys(series.namespace for series in self.series))


def document_from(value: object) -> Document:
    """A document of decoded JSON.

    Raises ``ValueError`` for anything else.
    """
    document: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
    if "series" not in document and isinstance(document.get(_NESTED), Mapping):
        document = document[_NESTED]
    series = document.get("series")
    if not isinstance(series, list):
        raise ValueError('it is not a JSON object with a list "series"')  # noqa: TRY004 - a fault of a file, not of a type
    return Document(tuple(map(_series_from, series)), _rate(document))


def read_document(source: str) -> Document:
    """The document in a file, at an ``http`` URL or, for ``-``, on standard input.

    Raises :class:`Unusable` if there is none.
    """
    try:
        return document_from(json.loads(_text(source)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise Unusable(
            f"{source} cannot be read: {reason}. Give the output of preview --json or demo --json, or the live page's "
            "data.json: a file, a URL, or - for standard input."
        ) from error


def from_option() -> Callable[[_F], _F]:
    """The option ``--from``, as ``source``."""
    return click.option(
        "--from",
        "source",
        metavar="FILE|URL|-",
        help="What was published: the output of preview --json or demo --json, or the data.json of a live page.",
    )


def _text(source: str) -> str:
    if source == "-":
        return sys.stdin.read()
    if source.startswith(("http://", "https://")):
        with urllib.request.urlopen(source, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - the scheme is checked
            content: bytes = response.read()
        return content.decode()
    return Path(source).read_text("utf-8")


def _series_from(value: object) -> SeenSeries:
    try:
        return _checked_series(value)
    except (TypeError, KeyError, AttributeError) as error:
        shown = json.dumps(value)[:100]
        raise ValueError(f"it has a series that is none: {shown}") from error


def _checked_series(value: Any) -> SeenSeries:
    dimensions = tuple(sorted((str(name), str(text)) for name, text in value["dimensions"].items()))
    p99, flushes = value.get("p99"), value.get("flushes", ())
    return SeenSeries(
        namespace=str(value["namespace"]),
        name=str(value["metric_name"]),
        dimensions=dimensions,
        unit=str(value.get("unit", "None")),
        samples=float(value.get("samples", 0.0)),
        flushes=len(flushes),
        p99=None if p99 is None else float(p99),
    )


def _rate(value: Mapping[str, Any]) -> float | None:
    """Calls a second: as they are given, which may be as unknown, or else on average."""
    try:
        rate = value["requests_per_second"] if "requests_per_second" in value else value["requests"] / value["seconds"]
        return float(rate) if math.isfinite(rate) else None
    except (KeyError, TypeError, ZeroDivisionError):
        return None
