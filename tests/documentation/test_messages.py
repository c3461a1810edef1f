"""Every message has its remedy, and the page of messages has every message."""

import re
from collections import Counter

import pytest

from docs.remedies import SECTIONS
from docs.said import Said, errors, logged
from tests.support.doc_blocks import DOCS

REMEDIES = [each for remedies in SECTIONS.values() for each in remedies]
HOW_TO_MEND = (
    "write what it means for the data and what to do into docs/remedies.py, then run: python docs/generated.py"
)
RECOVERIES = {"INFO", "DEBUG"}


@pytest.mark.parametrize("said", logged(), ids=lambda said: f"{said.module}-{said.text[:30]}")
def test_every_log_message_has_one_remedy(said: Said) -> None:
    """It is found by how the message begins."""
    found = [each for each in REMEDIES if said.text.startswith(each.beginning)]
    assert len(found) == 1, f"{said.text!r}: {HOW_TO_MEND}"
    assert found[0].data, "what does it mean for the data?"
    assert found[0].remedy, "what is to be done?"


def test_no_remedy_without_a_message() -> None:
    """What is not said any more needs no remedy, and nothing has two."""
    texts = [each.text for each in logged()]
    assert [each.beginning for each in REMEDIES if not any(text.startswith(each.beginning) for text in texts)] == []
    assert [beginning for beginning, count in Counter(each.beginning for each in REMEDIES).items() if count > 1] == []


@pytest.mark.parametrize("said", [*logged(), *errors()], ids=lambda said: f"{said.module}-{said.text[:30]}")
def test_the_page_has_every_message(said: Said) -> None:
    """As it stands in the code."""
    page = (DOCS / "messages.md").read_text("utf-8").replace(r"\|", "|")
    assert said.text in page or said.how == "InvalidMetricError"


def test_what_is_found_is_what_a_search_finds() -> None:
    """The reading of the source misses no call: there are as many as a plain search for them finds."""
    from docs.said import PACKAGE, PROGRAMS, THE_LOG_ITSELF  # noqa: PLC0415 - only for this count

    call = re.compile(r"_(?:logger|quiet_log|once|each_minute|once_an_outage)\.(?:log|\w*ing|error|info|exception)\(")
    sources = [
        path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).with_suffix("").parts[0] not in PROGRAMS
    ]
    searched = sum(len(call.findall(path.read_text("utf-8"))) for path in sources if path.stem != THE_LOG_ITSELF)
    assert len(logged()) == searched
