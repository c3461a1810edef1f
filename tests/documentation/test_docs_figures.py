"""The figures in the documentation match the code."""

import re
from pathlib import Path

import pytest

from docs.generated import PARTS, current, dollars
from otel_cloudwatch_flask import limits, pricing
from otel_cloudwatch_flask.config import DEFAULT_MAX_METRICS
from otel_cloudwatch_flask.mapping.cardinality import overflow_capacity
from tests.support.doc_blocks import DOCS, ROOT

MADE_BY_RUNNING = {"command-line.md", "live-page.md"}
"""Pages with prices in the output of commands, which other tests compare."""

PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
GENERATED = re.compile(r"<!-- generated: ([\w-]+) -->.*?<!-- end -->", re.DOTALL)

SAID_OF_OTHERS = {"$250"}
"""Amounts quoted from linked sources."""


def amounts() -> set[str]:
    """Return all amounts of money that prose may contain, derived from the prices."""
    (_, first_price), *_ = pricing.DOLLARS_PER_METRIC_MONTH
    monthly = [pricing.monthly_cost(metrics=0, requests_per_second=each).dollars for each in (1, 1 / 10, 1 / 60)]
    return {
        dollars(first_price),
        dollars(pricing.DOLLARS_PER_REQUEST * 1000),
        dollars(pricing.DOLLARS_PER_LOG_GIGABYTE),
        f"${pricing.metrics_dollars(100):.0f}",
        f"${monthly[0]:.0f}",
        *map(dollars, monthly[1:]),
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_generated_parts_are_current(path: Path) -> None:
    """The generated parts equal the output of the code."""
    text = path.read_text("utf-8")
    assert current(text) == text, "run: python docs/generated.py"


def test_every_part_is_used() -> None:
    """Each generated part appears on a page."""
    shown = {name for path in PAGES for name in GENERATED.findall(path.read_text("utf-8"))}
    assert shown == set(PARTS)


@pytest.mark.parametrize(
    "path", [each for each in PAGES if each.name not in MADE_BY_RUNNING], ids=lambda path: path.name
)
def test_prices(path: Path) -> None:
    """Every amount of money in prose is derived from the prices."""
    prose = GENERATED.sub("", path.read_text("utf-8"))
    assert set(re.findall(r"\$\d[\d,.]*\d|\$\d", prose)) - amounts() - SAID_OF_OTHERS == set()


def test_limits() -> None:
    """Limits in prose equal the constants in the code."""
    mapping, concepts, operations = (
        " ".join((DOCS / name).read_text("utf-8").split()) for name in ("mapping.md", "concepts.md", "operations.md")
    )
    datums, megabytes = f"{limits.MAX_DATUMS_PER_REQUEST:,} data points", f"{limits.MAX_REQUEST_BYTES // 10**6} MB"
    assert f"{datums} and {megabytes}" in concepts
    assert f"{datums} or {megabytes}" in operations
    assert f"at most {limits.MAX_VALUES_PER_DATUM}" in mapping
    assert f"At most {limits.MAX_DIMENSIONS} dimensions" in mapping
    assert (
        f"names longer than {limits.MAX_DIMENSION_NAME_LENGTH} characters and values longer than "
        f"{limits.MAX_DIMENSION_VALUE_LENGTH:,} characters are truncated"
    ) in mapping
    reserved = overflow_capacity(DEFAULT_MAX_METRICS)
    assert f"at most {DEFAULT_MAX_METRICS:,} metrics within an hour" in concepts
    assert f"(default: {DEFAULT_MAX_METRICS:,})" in mapping
    assert f"By default, {reserved} of them are reserved for overflow series" in mapping
