"""No figure in the documentation is older than the code that it comes from."""

import re
from pathlib import Path

import pytest

from docs.generated import PARTS, current, dollars
from otel_cloudwatch_flask import limits, pricing
from tests.support.doc_blocks import DOCS, ROOT

MADE_BY_RUNNING = {"command-line.md", "live-page.md"}
"""Pages whose prices are the output of commands, which other tests compare."""

PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
GENERATED = re.compile(r"<!-- generated: ([\w-]+) -->.*?<!-- end -->", re.DOTALL)

SAID_OF_OTHERS = {"$250"}
"""Amounts that are not ours: what somebody was billed, by the source that is linked."""


def amounts() -> set[str]:
    """Every amount of money that the prose may name, made of the prices."""
    (_, first_price), *_ = pricing.DOLLARS_PER_METRIC_MONTH
    monthly = [pricing.monthly_cost(metrics=0, requests_per_second=each).dollars for each in (1, 1 / 60)]
    return {
        dollars(first_price),
        dollars(pricing.DOLLARS_PER_REQUEST * 1000),
        f"${pricing.metrics_dollars(100):.0f}",
        f"${monthly[0]:.0f}",
        dollars(monthly[1]),
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_generated_parts_are_current(path: Path) -> None:
    """What is made of the code is what the code makes now."""
    text = path.read_text("utf-8")
    assert current(text) == text, "run: python docs/generated.py"


def test_every_part_is_shown() -> None:
    """No part is made for nothing."""
    shown = {name for path in PAGES for name in GENERATED.findall(path.read_text("utf-8"))}
    assert shown == set(PARTS)


@pytest.mark.parametrize(
    "path", [each for each in PAGES if each.name not in MADE_BY_RUNNING], ids=lambda path: path.name
)
def test_prices(path: Path) -> None:
    """Every amount of money in the prose follows from the table of prices."""
    prose = GENERATED.sub("", path.read_text("utf-8"))
    assert set(re.findall(r"\$\d[\d,.]*\d|\$\d", prose)) - amounts() - SAID_OF_OTHERS == set()


def test_limits() -> None:
    """What the prose says of limits is what they are."""
    mapping, concepts, operations = (
        " ".join((DOCS / name).read_text("utf-8").split()) for name in ("mapping.md", "concepts.md", "operations.md")
    )
    datums, megabytes = f"{limits.MAX_DATUMS_PER_REQUEST:,} data points", f"{limits.MAX_REQUEST_BYTES // 10**6} MB"
    assert f"{datums} and {megabytes}" in concepts
    assert f"{datums} or {megabytes}" in operations
    assert f"at most {limits.MAX_VALUES_PER_DATUM}" in mapping
    assert f"At most {limits.MAX_DIMENSIONS} dimensions" in mapping
    assert (
        f"names over {limits.MAX_DIMENSION_NAME_LENGTH} and values over {limits.MAX_DIMENSION_VALUE_LENGTH:,}"
        in mapping
    )
