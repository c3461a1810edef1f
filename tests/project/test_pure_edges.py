"""Edges of the pure modules on which no other test stands, and all that their errors tell a program."""

import enum
import json
from typing import Any

import pytest

from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.delivery.compaction import compacted
from otel_cloudwatch_flask.delivery.error_codes import Kind, failure
from otel_cloudwatch_flask.errors import ConfigurationError, InvalidMetricError
from otel_cloudwatch_flask.facade.arguments import parse_arguments
from otel_cloudwatch_flask.limits import is_finite
from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.temporality import Sum
from otel_cloudwatch_flask.model.datum import Series
from otel_cloudwatch_flask.model.dimension_arguments import dimension_texts
from otel_cloudwatch_flask.model.entity import Entity
from otel_cloudwatch_flask.model.rules import MetricRule, parse_rules
from otel_cloudwatch_flask.model.units import ScaledUnit, from_ucum
from tests.support.fakes import FakeClock
from tests.support.fuzzing import datum_of

SHOP = Envelope("Shop")

HUGE = 10**5000
UNWRITTEN = "<int that cannot be written out>"
NO_UNIT = "metric 'a': None is not a CloudWatch unit; for a metric without a unit pass the string 'None', or omit the argument"


class TestUnits:
    """Units that are built of others."""

    @pytest.mark.parametrize(
        ("unit", "meant"),
        [
            ("{a/b}/s", ScaledUnit("Count/Second")),
            ("/s", None),
            ("s", ScaledUnit("Seconds")),
            ("By/h", ScaledUnit("Bytes/Second", 1 / 3600)),
            ("By/parsec", None),
            ("%/s", None),
        ],
    )
    def test_rates(self, unit: str, meant: ScaledUnit | None) -> None:
        """The last slash divides, and both of its sides must be there."""
        assert from_ucum(unit) == meant


class Colour(enum.Enum):
    """Somebody's own type."""

    RED = "red"


class TestFacadeDimensions:
    """What may be written as dimensions."""

    @pytest.mark.parametrize(
        ("value", "text"), [(True, "true"), (False, "false"), (Colour.RED, "red"), (0, "0"), (1.5, "1.5"), ("", "")]
    )
    def test_values(self, value: object, text: str) -> None:
        """Both truth values, members of an enum, and numbers that are false."""
        assert dimension_texts({"a": value}) == {"a": text}
        assert dimension_texts([{"Name": "a", "Value": value}]) == {"a": text}

    def test_longest_and_most(self) -> None:
        """255 characters of a name are allowed, and 30 dimensions; one more is not."""
        assert dimension_texts({"n" * 255: 1}) == {"n" * 255: "1"}
        with pytest.raises(ValueError, match=r"^dimension name 'n{20}'\.\.\. has 256 characters"):
            dimension_texts({"n" * 256: 1})
        assert len(dimension_texts({str(number): 1 for number in range(30)})) == 30
        with pytest.raises(ValueError, match=r"^31 dimensions are too many"):
            dimension_texts({str(number): 1 for number in range(31)})


class TestEntries:
    """What ``InvalidMetricError`` tells whoever catches it."""

    @pytest.mark.parametrize(
        ("call", "at_fault"),
        [
            (("", 1, "Count", {}), ""),
            (("Orders", "7", "Count", {}), "7"),
            (("Orders", 1, "Cuont", {}), "Cuont"),
            (("Orders", 1, "Count", 5), 5),
        ],
    )
    def test_argument_at_fault(self, call: tuple[Any, Any, Any, Any], at_fault: object) -> None:
        """The name, and the argument that cannot be used."""
        with pytest.raises(InvalidMetricError) as caught:
            parse_arguments(*call)
        assert (caught.value.metric_name, caught.value.value) == (call[0], at_fault)

    @pytest.mark.parametrize(
        ("name", "unit", "message"),
        [
            (" ", "Count", "metric ' ': the name must be a string with a visible character, such as 'RequestCount'"),
            ("a\nb", "Count", "metric 'a\\nb': the name has control characters; remove them"),
            ("a", "Bytes/Secnd", "metric 'a': 'Bytes/Secnd' is not a CloudWatch unit; did you mean 'Bytes/Second'?"),
            ("a", None, NO_UNIT),
        ],
    )
    def test_whole_messages(self, name: str, unit: object, message: str) -> None:
        """What was given, what is allowed, what to write."""
        with pytest.raises(InvalidMetricError) as caught:
            parse_arguments(name, 1, unit, {})
        assert str(caught.value) == message

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ((HUGE, 1, "Count", {}), f"metric {UNWRITTEN}: the name must be a string"),
            (("a", HUGE, "Count", {}), f"metric 'a': the value {UNWRITTEN} is not a number that CloudWatch can store"),
            (("a", 1, HUGE, {}), f"metric 'a': {UNWRITTEN} is not a CloudWatch unit; use one of Seconds"),
            (("a", 1, "Count", HUGE), f"metric 'a': dimensions {UNWRITTEN} are neither a mapping nor a list of pairs"),
            (("a", 1, "Count", (HUGE,)), f"metric 'a': dimension {UNWRITTEN} is not a name with a value"),
            (("a", 1, "Count", {HUGE: 1}), f"metric 'a': dimension name {UNWRITTEN} is not a text"),
            (("a", 1, "Count", {"b": HUGE}), f"metric 'a': dimension 'b' has the value {UNWRITTEN}: give a text"),
        ],
    )
    def test_what_cannot_be_written_out(self, call: tuple[Any, Any, Any, Any], message: str) -> None:
        """An int of more digits than Python writes is refused like any other mistake, wherever it stands."""
        with pytest.raises(InvalidMetricError) as caught:
            parse_arguments(*call)
        assert str(caught.value).startswith(message)


class TestRules:
    """What ``ConfigurationError`` tells whoever catches it."""

    @pytest.mark.parametrize(
        ("rules", "key", "value", "allowed"),
        [
            (5, "rules", 5, "rules=5 is not a list of rules"),
            ("*", "rules", "*", "rules='*' is not a list of rules"),
            ([{}, 5], "rules[1]", 5, "neither a MetricRule nor a mapping"),
            ([{"drops": 1}], "rules[0]", "drops", "use one of match, dimensions"),
            ([{"match": ""}], "rules[0].match", "", "give a glob such as 'http.server.*'"),
            ([{"dimensions": "a"}], "rules[0].dimensions", "a", "give a list of names."),
            ([{"exclude": [1]}], "rules[0].exclude", [1], "give a list of names."),
            ([{"rollups": 1}], "rules[0].rollups", 1, "give a list of lists of names"),
            ([{"rollups": ["a"]}], "rules[0].rollups", ["a"], "give a list of lists of names"),
            ([{"drop": 1}], "rules[0].drop", 1, "give True or False"),
            pytest.param([{"drop": HUGE}], "rules[0].drop", HUGE, f"drop={UNWRITTEN} cannot be used", id="huge field"),
            pytest.param([HUGE], "rules[0]", HUGE, f"rules[0] is {UNWRITTEN}, which is neither", id="huge rule"),
            ([{"distribution": "x"}], "rules[0].distribution", "x", "give 'values' or 'statistics'"),
            ([{"storage_resolution": True}], "rules[0].storage_resolution", True, "give 1 or 60 (seconds)"),
        ],
    )
    def test_key_and_value(self, rules: Any, key: str, value: object, allowed: str) -> None:
        """The place, what was found there, and what may be."""
        with pytest.raises(ConfigurationError) as caught:
            parse_rules(rules)
        assert (caught.value.key, caught.value.value) == (key, value)
        assert allowed in str(caught.value)

    def test_the_overflow_attribute_is_always_kept(self) -> None:
        """What marks an overflow series stays, whatever a rule leaves out."""
        rule = MetricRule(dimensions=["a"], exclude=["*"])
        assert rule.keeps("otel.metric.overflow")
        assert rule.keeps("a")
        assert not rule.keeps("b")


class TestPlaces:
    """The places of metrics, at the very moments when something changes."""

    def test_an_hour(self) -> None:
        """A metric counts for less than an hour, and then gives its place back."""
        clock = FakeClock(0)
        guard = CardinalityGuard(2, clock)
        assert guard.admit(Series("a", (), "None")) == Series("a", (), "None")
        clock.advance(3600)
        assert guard.active() == 0
        assert guard.admit(Series("b", (), "None")) == Series("b", (), "None")
        assert guard.active() == 1

    def test_idle_ones_are_looked_for_every_ten_seconds(self) -> None:
        """A look costs as much as there are metrics."""
        clock = FakeClock(0)
        guard = CardinalityGuard(2, clock)
        assert not guard.admit(Series("a", (), "None")).dimensions
        for now, has_place in ((3595, False), (3600, False), (3604.9, False), (3605, True)):
            clock.now = now
            assert bool(guard.admit(Series("b", (), "None")).dimensions) is not has_place

    def test_renewal(self) -> None:
        """Who has a place keeps it; minutes have numbers."""
        clock = FakeClock(0)
        guard = CardinalityGuard(2, clock)
        guard.admit(Series("a", (), "None"))
        assert guard.renew(Series("a", (), "None")) is True
        assert guard.renew(Series("b", (), "None")) is False
        clock.advance(59.9)
        assert repr(guard.epoch()) == "0"
        clock.advance(0.1)
        assert repr(guard.epoch()) == "1"


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_numbers_beyond_floats(number: int) -> None:
    """They are finite."""
    assert is_finite(number)


class TestTotals:
    """Running totals."""

    @pytest.mark.parametrize(("now", "before", "added"), [(5, 3, Sum(2)), (3, 3, Sum(0)), (2, 3, None)])
    def test_what_was_added(self, now: float, before: float, added: Sum | None) -> None:
        """Nothing may have been added; less is a reset."""
        assert Sum(now).minus(Sum(before)) == added


def test_an_answer_without_a_code() -> None:
    """The status decides."""

    class Error(Exception):
        response = {"Error": {}, "ResponseMetadata": {"HTTPStatusCode": 429}}  # noqa: RUF012 - as botocore has it

    assert failure(Error()).kind is Kind.THROTTLED


def test_an_entity_comes_back() -> None:
    """What is read from a request is the entity that was written into it."""
    entity = Entity((("Type", "Service"), ("Name", "shop")), (("PlatformType", "Generic"),))
    assert Entity.from_member(entity.member()) == entity


class TestCompaction:
    """Datums of one series put together."""

    def test_each_keeps_its_name_and_the_newest_time(self) -> None:
        """The metric's name is still known, for messages."""
        (batch,) = compacted([Batch(SHOP, (datum_of("a", value, unix_seconds=value),)) for value in (1, 2)])
        (datum,) = batch.datums
        assert (datum.series.name, datum.unix_seconds) == ("a", 2)
        assert batch.envelope == SHOP

    def test_values_with_statistics(self) -> None:
        """The extremes of several values are the first and the last of them."""
        values = {"Values": [1.0, 2.0, 3.0], "Counts": [1, 1, 1]}
        statistics = {"StatisticValues": {"SampleCount": 2, "Sum": 5.0, "Minimum": 2.0, "Maximum": 3.0}}
        (batch,) = compacted([batch_of(values), batch_of(statistics)])
        assert batch.parameters()["MetricData"][0]["StatisticValues"] == {
            "SampleCount": 5,
            "Sum": 11,
            "Minimum": 1,
            "Maximum": 3,
        }


def batch_of(content: dict[str, Any]) -> Batch:
    """A batch of one datum with this content."""
    datum = {"MetricName": "a", "Dimensions": [], "Unit": "None", "Timestamp": 1, **content}
    return Batch.from_body(json.dumps({"Namespace": "Shop", "MetricData": [datum]}).encode())
