"""Edge cases of the pure modules that no other test covers, and the contents of their errors."""

import enum
import json
from typing import Any

import pytest

from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.delivery.compaction import compacted
from otel_cloudwatch_flask.delivery.error_codes import Kind, failure
from otel_cloudwatch_flask.errors import ConfigurationError, InvalidMetricError
from otel_cloudwatch_flask.facade.arguments import parse_arguments
from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.temporality import RunningSum
from otel_cloudwatch_flask.model.datum import Series
from otel_cloudwatch_flask.model.dimension_arguments import dimension_texts
from otel_cloudwatch_flask.model.entity import Entity
from otel_cloudwatch_flask.model.rules import MetricRule, parse_rules
from otel_cloudwatch_flask.model.units import ScaledUnit, from_ucum
from tests.support.fakes import FakeClock
from tests.support.fuzzing import datum_of

SHOP = Envelope("Shop")

HUGE = 10**5000
UNWRITTEN = "<unprintable int object>"
NO_UNIT = (
    "metric 'a': None is not a CloudWatch unit; "
    "for a metric without a unit, pass the string 'None', or omit the argument"
)


class TestUnits:
    """Composite units."""

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
        """The last slash is the division, and both sides must be present."""
        assert from_ucum(unit) == meant


class Colour(enum.Enum):
    """An application's enum."""

    RED = "red"


class TestFacadeDimensions:
    """Valid dimensions."""

    @pytest.mark.parametrize(
        ("value", "text"), [(True, "true"), (False, "false"), (Colour.RED, "red"), (0, "0"), (1.5, "1.5"), ("", "")]
    )
    def test_values(self, value: object, text: str) -> None:
        """Booleans, enum members, and falsy numbers and strings are valid values."""
        assert dimension_texts({"a": value}) == {"a": text}
        assert dimension_texts([{"Name": "a", "Value": value}]) == {"a": text}

    def test_longest_and_most(self) -> None:
        """A name of 255 characters and a set of 30 dimensions are allowed, but not one more."""
        assert dimension_texts({"n" * 255: 1}) == {"n" * 255: "1"}
        with pytest.raises(ValueError, match=r"^dimension name 'n{20}'\.\.\. has 256 characters"):
            dimension_texts({"n" * 256: 1})
        assert len(dimension_texts({str(number): 1 for number in range(30)})) == 30
        with pytest.raises(ValueError, match=r"^31 dimensions are given"):
            dimension_texts({str(number): 1 for number in range(31)})


class TestEntries:
    """The attributes and messages of ``InvalidMetricError``."""

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
        """The error contains the metric name and the invalid argument."""
        with pytest.raises(InvalidMetricError) as caught:
            parse_arguments(*call, {})
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
        """The message contains the given value, the allowed values and the correct form."""
        with pytest.raises(InvalidMetricError) as caught:
            parse_arguments(name, 1, unit, {}, {})
        assert str(caught.value) == message

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ((HUGE, 1, "Count", {}), f"metric {UNWRITTEN}: the name must be a string"),
            (("a", HUGE, "Count", {}), f"metric 'a': the value {UNWRITTEN} is not a number that CloudWatch can store"),
            (("a", 1, HUGE, {}), f"metric 'a': {UNWRITTEN} is not a CloudWatch unit; use one of Seconds"),
            (("a", 1, "Count", HUGE), f"metric 'a': dimensions {UNWRITTEN} are neither a mapping nor a list of pairs"),
            (("a", 1, "Count", (HUGE,)), f"metric 'a': dimension {UNWRITTEN} is not a name-value pair"),
            (("a", 1, "Count", {HUGE: 1}), f"metric 'a': dimension name {UNWRITTEN} is blank or not a string"),
            (("a", 1, "Count", {"b": HUGE}), f"metric 'a': dimension 'b' has the value {UNWRITTEN}: pass a string"),
        ],
    )
    def test_what_cannot_be_written_out(self, call: tuple[Any, Any, Any, Any], message: str) -> None:
        """An int too large for Python to format is rejected like any other invalid value, in any argument."""
        with pytest.raises(InvalidMetricError) as caught:
            parse_arguments(*call, {})
        assert str(caught.value).startswith(message)


class TestRules:
    """The attributes and messages of ``ConfigurationError``."""

    @pytest.mark.parametrize(
        ("rules", "key", "value", "allowed"),
        [
            (5, "rules", 5, "rules=5 is not a list of rules"),
            ("*", "rules", "*", "rules='*' is not a list of rules"),
            ([{}, 5], "rules[1]", 5, "neither a MetricRule nor a mapping of its fields"),
            ([{"drops": 1}], "rules[0]", "drops", "use one of match, dimensions"),
            ([{"match": ""}], "rules[0].match", "", "use a glob such as 'http.server.*'"),
            ([{"dimensions": "a"}], "rules[0].dimensions", "a", "use a list of names."),
            ([{"exclude": [1]}], "rules[0].exclude", [1], "use a list of names."),
            ([{"rollups": 1}], "rules[0].rollups", 1, "use a list of lists of names"),
            ([{"rollups": ["a"]}], "rules[0].rollups", ["a"], "use a list of lists of names"),
            ([{"drop": 1}], "rules[0].drop", 1, "use True or False"),
            pytest.param([{"drop": HUGE}], "rules[0].drop", HUGE, f"drop={UNWRITTEN} is invalid; use", id="huge field"),
            pytest.param([HUGE], "rules[0]", HUGE, f"rules[0] is {UNWRITTEN}, which is neither", id="huge rule"),
            ([{"distribution": "x"}], "rules[0].distribution", "x", "use 'values' or 'statistics'"),
            ([{"storage_resolution": True}], "rules[0].storage_resolution", True, "use 1 or 60."),
        ],
    )
    def test_key_and_value(self, rules: Any, key: str, value: object, allowed: str) -> None:
        """The error contains the key, the value and the allowed values."""
        with pytest.raises(ConfigurationError) as caught:
            parse_rules(rules)
        assert (caught.value.key, caught.value.value) == (key, value)
        assert allowed in str(caught.value)

    def test_the_overflow_attribute_is_always_kept(self) -> None:
        """The attribute that marks an overflow series is kept, whatever a rule excludes."""
        rule = MetricRule(dimensions=["a"], exclude=["*"])
        assert rule.keeps("otel.metric.overflow")
        assert rule.keeps("a")
        assert not rule.keeps("b")


class TestPlaces:
    """The cardinality guard at the exact time when a series becomes idle or a minute ends."""

    def test_an_hour(self) -> None:
        """A series is active for less than an hour, and then makes room for another."""
        clock = FakeClock(0)
        guard = CardinalityGuard(2, clock)
        assert guard.admit(Series("a", (), "None")) == Series("a", (), "None")
        clock.advance(3600)
        assert guard.active() == 0
        assert guard.admit(Series("b", (), "None")) == Series("b", (), "None")
        assert guard.active() == 1

    def test_idle_ones_are_looked_for_every_ten_seconds(self) -> None:
        """The guard searches for idle series only every ten seconds, because each search visits every series."""
        clock = FakeClock(0)
        guard = CardinalityGuard(2, clock)
        assert not guard.admit(Series("a", (), "None")).dimensions
        for now, has_place in ((3595, False), (3600, False), (3604.9, False), (3605, True)):
            clock.now = now
            assert bool(guard.admit(Series("b", (), "None")).dimensions) is not has_place

    def test_renewal(self) -> None:
        """An admitted series can be renewed, and the epoch is the number of the minute."""
        clock = FakeClock(0)
        guard = CardinalityGuard(2, clock)
        guard.admit(Series("a", (), "None"))
        assert guard.renew(Series("a", (), "None")) is True
        assert guard.renew(Series("b", (), "None")) is False
        clock.advance(59.9)
        assert repr(guard.epoch()) == "0"
        clock.advance(0.1)
        assert repr(guard.epoch()) == "1"


class TestTotals:
    """Cumulative sums."""

    @pytest.mark.parametrize(("now", "before", "added"), [(5, 3, RunningSum(2)), (3, 3, RunningSum(0)), (2, 3, None)])
    def test_what_was_added(self, now: float, before: float, added: RunningSum | None) -> None:
        """The difference from an equal sum is 0; a lower sum is a reset."""
        assert RunningSum(now).minus(RunningSum(before)) == added


def test_an_answer_without_a_code() -> None:
    """Without an error code, the HTTP status determines the kind of failure."""

    class Error(Exception):
        response = {"Error": {}, "ResponseMetadata": {"HTTPStatusCode": 429}}  # noqa: RUF012 - as in botocore

    assert failure(Error()).kind is Kind.THROTTLED


def test_an_entity_comes_back() -> None:
    """An entity parsed from its JSON member equals the original."""
    entity = Entity((("Type", "Service"), ("Name", "shop")), (("PlatformType", "Generic"),))
    assert Entity.from_member(entity.member()) == entity


class TestCompaction:
    """Merging datums of one series."""

    def test_each_keeps_its_name_and_the_newest_time(self) -> None:
        """A merged datum keeps the metric's name, and has the latest timestamp."""
        (batch,) = compacted([Batch(SHOP, (datum_of("a", value, unix_seconds=value),)) for value in (1, 2)])
        (datum,) = batch.datums
        assert (datum.series.name, datum.unix_seconds) == ("a", 2)
        assert batch.envelope == SHOP

    def test_values_with_statistics(self) -> None:
        """When values are merged with a statistic set, minimum and maximum are correct."""
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
    """Return a batch of one datum with this content."""
    datum = {"MetricName": "a", "Dimensions": [], "Unit": "None", "Timestamp": 1, **content}
    return Batch.from_body(json.dumps({"Namespace": "Shop", "MetricData": [datum]}).encode())
