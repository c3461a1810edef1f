"""What is remembered of buckets: short texts of their middles, each worked out once."""

import json
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from otel_cloudwatch_flask.bucket_texts import Blocks, short_text_between

from otel_cloudwatch_flask import bucket_texts


def test_middles_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What belongs to a bucket is worked out once, whether it is asked for alone or with others."""
    worked_out: list[float] = []

    def text(lower: float, upper: float) -> str:
        worked_out.append(lower)
        return short_text_between(lower, upper)

    monkeypatch.setattr(bucket_texts, "short_text_between", text)
    monkeypatch.setattr(bucket_texts, "blocks", blocks := Blocks())
    block = blocks[0, -1]
    assert (block.learn(253), block.texts[253], block.middles[253]) == ("0.2", "0.2", 0.2)
    for _ in range(2):
        assert blocks[0, -1].known(252, [1, 3], itemgetter(1, 3), [2, 1]) == (["0.2", "0.8"], [0.4, 0.8])
    assert worked_out == [0.125, 0.5]
    assert blocks.entries == bucket_texts._ENTRIES_OF_BLOCK + 2


@given(st.floats(1e-100, 1e100), st.floats(1e-9, 1.0))
def test_short_texts(lower: float, width: float) -> None:
    """The number is near the middle, and no other with fewer digits is."""
    upper = lower * (1 + width)
    text = short_text_between(lower, upper)
    assert lower + 0.37 * (upper - lower) <= float(text) <= lower + 0.63 * (upper - lower)
    assert json.loads(text) == float(text)
    assert len(text) <= max(len(f"{(lower + upper) / 2:.17g}"), 7)
