"""Every log message has a remedy, and the page of messages is complete."""

import re
from collections import Counter

import pytest

from docs.remedies import SECTIONS
from docs.source_messages import Message, errors, logged
from tests.support.doc_blocks import DOCS

REMEDIES = [each for remedies in SECTIONS.values() for each in remedies]
HOW_TO_FIX = "add what it means for the data and what to do to docs/remedies.py, then run: python docs/generated.py"
RECOVERIES = {"INFO", "DEBUG"}


@pytest.mark.parametrize("said", logged(), ids=lambda said: f"{said.module}-{said.text[:30]}")
def test_every_log_message_has_one_remedy(said: Message) -> None:
    """Each message has exactly one remedy, which is found by the message's beginning."""
    found = [each for each in REMEDIES if said.text.startswith(each.beginning)]
    assert len(found) == 1, f"{said.text!r}: {HOW_TO_FIX}"
    assert found[0].data
    assert found[0].remedy


@pytest.mark.parametrize("said", logged(), ids=lambda said: f"{said.module}-{said.text[:30]}")
def test_the_page_has_whole_sentences(said: Message) -> None:
    """An explanation that is not quoted from the message is a sentence of its own on the page."""
    (remedy,) = (each for each in REMEDIES if said.text.startswith(each.beginning))
    for explanation in (remedy.data, remedy.remedy):
        is_sentence = explanation.endswith(".") and not explanation[0].islower()
        assert is_sentence or explanation.rstrip(".").lower() in said.text.lower(), explanation


def test_no_remedy_without_a_message() -> None:
    """Each remedy belongs to a message, and none is listed twice."""
    texts = [each.text for each in logged()]
    assert [each.beginning for each in REMEDIES if not any(text.startswith(each.beginning) for text in texts)] == []
    assert [beginning for beginning, count in Counter(each.beginning for each in REMEDIES).items() if count > 1] == []


@pytest.mark.parametrize("said", [*logged(), *errors()], ids=lambda said: f"{said.module}-{said.text[:30]}")
def test_the_page_lists_every_message(said: Message) -> None:
    """The texts on the page are those in the code."""
    page = (DOCS / "messages.md").read_text("utf-8").replace(r"\|", "|")
    assert said.text in page or said.how == "InvalidMetricError"


def test_extraction_is_complete() -> None:
    """The number of log calls in the syntax trees equals that found by a text search."""
    from docs.source_messages import PACKAGE, PROGRAMS, RATE_LIMITED_LOG  # noqa: PLC0415 - only for this count

    call = re.compile(r"_(?:logger|quiet_log|once|each_minute|once_an_outage)\.(?:log|\w*ing|error|info|exception)\(")
    sources = [
        path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).with_suffix("").parts[0] not in PROGRAMS
    ]
    searched = sum(len(call.findall(path.read_text("utf-8"))) for path in sources if path.stem != RATE_LIMITED_LOG)
    assert len(logged()) == searched
