import random
import re
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_cloudwatch_flask.model.dimensions import (
    EMPTY,
    dimension_name,
    dimension_value,
    dimensions,
    metric_name,
    namespace_of,
    within_limit,
)
from otel_cloudwatch_flask.testing.request_rules import validation_error

any_text = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(), max_size=40),  # including lone surrogates and control characters
    st.text(" \t\x00\x1f:%~é\ud800\u2003", max_size=6),
    st.sampled_from(["", EMPTY, "%20", "%3A", "%C3%A9", "%ED%A0%80", "%25"]),
    st.sampled_from([" ", ":", "::", ": ", "x" * 255, "x" * 256, "é" * 255, "y" * 1024, "y" * 5000]),
)
short_text = any_text.filter(lambda text: len(text) <= 40)
scalars = st.one_of(any_text, st.booleans(), st.integers(), st.floats())
values = st.one_of(
    scalars, st.lists(scalars, max_size=4), st.lists(scalars, max_size=4).map(tuple), st.binary(max_size=5)
)
attributes = st.dictionaries(any_text, values, max_size=30)
plain_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=50).filter(
    lambda text: not text.isspace() and not text.startswith(":") and not re.search(r"%[0-9A-F]{2}|^\(empty\)$", text)
)


def refused(metric: dict[str, Any]) -> str | None:
    """Return the reasons why CloudWatch would reject a data point of this metric, or None."""
    request = {"Namespace": "Shop", "MetricData": [{"MetricName": "Orders", "Value": 1, **metric}]}
    error = validation_error(request, now=0)
    return error.message if error else None


class TestDimensions:
    """Attributes as dimensions."""

    @given(attributes)
    def test_always_acceptable(self, given_attributes: dict[str, Any]) -> None:
        """CloudWatch accepts the dimensions made from any attributes, and no attribute is lost."""
        made = dimensions(given_attributes)
        assert refused({"Dimensions": [{"Name": name, "Value": value} for name, value in made]}) is None
        assert len(made) == len(given_attributes)

    def test_what_cannot_be_written_out(self) -> None:
        """An int too long to print is identified by its hexadecimal digits, other unprintable values by their type."""

        class Hostile:
            def __repr__(self) -> str:
                raise RuntimeError

        huge = 10**5000
        assert dimension_value(huge).startswith(f"{huge:#x}"[:1000])
        assert dimension_value(huge) != dimension_value(huge + 1)
        assert dimension_value([huge]) == "<unprintable list object>"
        assert dimension_value(Hostile()) == "<unprintable Hostile object>"

    @given(attributes, st.randoms(use_true_random=False))
    def test_order_does_not_matter(self, given_attributes: dict[str, Any], rng: random.Random) -> None:
        """The same attributes in another order are the same dimensions, sorted by name."""
        shuffled = list(given_attributes.items())
        rng.shuffle(shuffled)
        made = dimensions(given_attributes)
        assert dimensions(dict(shuffled)) == made
        assert list(made) == sorted(made)

    @given(st.dictionaries(plain_text, plain_text, max_size=30))
    def test_acceptable_ones_stay(self, given_attributes: dict[str, str]) -> None:
        """Text that CloudWatch accepts is not changed, unless it looks encoded."""
        assert dict(dimensions(given_attributes)) == given_attributes

    @given(short_text, short_text)
    def test_different_ones_stay_different(self, one: str, other: str) -> None:
        """Different values, dimension names or metric names stay different, whether encoded or not."""
        for function in (dimension_value, dimension_name, metric_name):
            assert (function(one) == function(other)) is (one == other)
            # Text that already looks encoded is different text.
            assert (function(one) == function(function(other))) is (one == function(other))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        (True, "true"),
        (False, "false"),
        (200, "200"),
        (1.5, "1.5"),
        (10**30, "1" + "0" * 30),
        (None, EMPTY),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({"a": 1, "b": [None, b"raw", UUID(int=0)]}, f'{{"a": 1, "b": [null, "cmF3", "{UUID(int=0)}"]}}'),
        ({"a": {1}}, '{"a": "{1}"}'),
        ({}, "{}"),
        (["a", "b"], '["a", "b"]'),
        (("a", 1, True), '["a", 1, true]'),
        ([], "[]"),
        ("", EMPTY),
        (" ", "%20"),
        ("\t\n", "%09%0A"),
        ("\t \n", "%09 %0A"),
        ("\u2003", "%E2%80%83"),
        ("a\nb", "a%0Ab"),
        ("Zürich", "Z%C3%BCrich"),
        ("Z%C3%BCrich", "Z%25C3%25BCrich"),
        ("Z%25C3%25BCrich", "Z%2525C3%2525BCrich"),
        ("100%", "100%"),
        ("100% größer", "100%25 gr%C3%B6%C3%9Fer"),
        ("/a%20b", "/a%20b"),
        ("%C3", "%C3"),
        ("%c3%bc", "%c3%bc"),
        ("%20", "%2520"),
        (EMPTY, "%28empty)"),
        (["Zürich"], '["Z%C3%BCrich"]'),
        ("\ud800", "%ED%A0%80"),
        (":colon", ":colon"),
        (b"raw", "cmF3"),
        (b"", EMPTY),
        ([b"\xff"], '["/w=="]'),
    ],
)
def test_value(value: object, text: str) -> None:
    """Values are converted to JSON text, and characters that CloudWatch rejects are percent-encoded."""
    assert dimension_value(value) == text


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("http.route", "http.route"),
        ("", EMPTY),
        (":", "%3A"),
        ("::a", "%3A:a"),
        ("%3Aa", "%253Aa"),
        (" ", "%20"),
        ("a:b", "a:b"),
        ("ü", "%C3%BC"),
    ],
)
def test_name(key: str, name: str) -> None:
    """Names follow the rules of values, and a leading colon is encoded."""
    assert dimension_name(key) == name


@pytest.mark.parametrize(("length", "kept"), [(1024, True), (1025, False), (9000, False)])
def test_too_long(length: int, kept: bool) -> None:  # noqa: FBT001 - a column of the table
    """Text over the limit is cut, and stays distinct from other text with the same beginning."""
    text, other = "x" * (length - 1) + "a", "x" * (length - 1) + "b"
    made = dimension_value(text)
    assert len(made) == min(length, 1024)
    assert (made == text) is kept
    assert made != dimension_value(other)
    assert made == dimension_value(text)


def test_too_long_once_encoded() -> None:
    """The limit applies to the encoded text."""
    assert len(dimension_value("é" * 200)) == 1024
    assert len(dimension_name("é" * 50)) == 255
    assert len({dimension_value(" " * length) for length in (400, 401)}) == 2
    assert len(dimension_value(" " * 400)) == 1024


def test_within_limit() -> None:
    """Of more than 30 names, preferred ones are kept first, then alphabetically, regardless of their order."""
    names = [f"a{i:02}" for i in range(40)]
    expected = {"a39", "a38", *names[:28]}
    assert within_limit(names, ["a38", "a39", "not there"]) == expected
    assert within_limit(names[::-1], ["a39", "a38"]) == expected
    assert within_limit(names[:30], []) == set(names[:30])


@given(any_text)
def test_metric_name_is_always_acceptable(name: str) -> None:
    """CloudWatch accepts the metric name made from any instrument name."""
    assert refused({"MetricName": metric_name(name)}) is None


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("Request Count", "Request Count"),
        ("2xx", "2xx"),
        ("Größe", "Gr%C3%B6%C3%9Fe"),
        ("Gr%C3%B6%C3%9Fe", "Gr%25C3%25B6%25C3%259Fe"),
        (":colon", ":colon"),
        ("", EMPTY),
        ("  ", "%20%20"),
        ("a\x00b", "a%00b"),
    ],
)
def test_metric_name(name: str, published: str) -> None:
    """Printable ASCII in a metric name is kept."""
    assert metric_name(name) == published


def test_long_metric_names_stay_distinct() -> None:
    """A name over 255 characters is cut, and stays distinct from others with the same beginning."""
    made = {metric_name("x" * 300 + end) for end in "ab"}
    assert [len(name) for name in made] == [255, 255]


@given(any_text)
def test_namespace_is_always_acceptable(service_name: str) -> None:
    """CloudWatch accepts the namespace made from any service name."""
    datum = {"MetricName": "Orders", "Value": 1}
    assert validation_error({"Namespace": namespace_of(service_name), "MetricData": [datum]}, now=0) is None


@pytest.mark.parametrize(
    ("service_name", "namespace"),
    [
        ("shop", "shop"),
        (" Shop 2.0/a-b_c#d:e ", "Shop 2.0/a-b_c#d:e"),
        ("AWS/shop", "_AWS/shop"),
        (":shop", "_:shop"),
        ("Bücher", "B_cher"),
        ("日本", "__"),
        ("", "unknown_service"),
        (" \t", "unknown_service"),
    ],
)
def test_namespace(service_name: str, namespace: str) -> None:
    """A service name is kept, except for characters and prefixes that a namespace must not have."""
    assert namespace_of(service_name) == namespace


def test_long_namespaces_stay_distinct() -> None:
    """A name over 255 characters is cut, and stays distinct from others with the same beginning."""
    made = {namespace_of("x" * 300 + end) for end in "ab"}
    assert [len(name) for name in made] == [255, 255]
