from typing import Any

import pytest

from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.model.rules import CLIENT_CONTROLLED, MetricRule, Rules, parse_rules


class TestMatching:
    """Which rule applies to a metric."""

    RULES = Rules(
        [
            MetricRule(match="http.server.duration", dimensions=["route"]),
            MetricRule(match="http.*", drop=True),
            MetricRule(match="*[0-9]xx", storage_resolution=1),
        ]
    )

    @pytest.mark.parametrize(
        ("name", "match"),
        [
            ("http.server.duration", "http.server.duration"),
            ("http.server.active_requests", "http.*"),
            ("HTTP.server.duration", "*"),
            ("2xx", "*[0-9]xx"),
            ("http.5xx", "http.*"),
            ("orders", "*"),
            ("", "*"),
        ],
    )
    def test_first_match_wins(self, name: str, match: str) -> None:
        """The first rule whose glob matches case-sensitively applies, or else the default rule."""
        assert self.RULES.of(name).match == match

    def test_default_rule(self) -> None:
        """Without rules, all attributes are published except those that clients control."""
        rule = Rules().of("anything")
        assert rule == MetricRule()
        assert rule.keeps("http.route")
        assert not any(rule.keeps(attribute) for attribute in CLIENT_CONTROLLED)

    def test_in_order(self) -> None:
        """Rules are kept in the given order, followed by the default rule."""
        assert [rule.match for rule in self.RULES] == ["http.server.duration", "http.*", "*[0-9]xx", "*"]

    def test_not_every_name_is_remembered(self) -> None:
        """The cache of matched names is bounded, since names may be derived from client input."""
        rules = Rules()
        for number in range(5000):
            rules.of(f"Login {number}")
        assert rules.of.cache_info().currsize < 5000


class TestKeeps:
    """Which attributes become dimensions."""

    @pytest.mark.parametrize(
        ("fields", "kept", "dropped"),
        [
            ({}, ["http.route", "x"], ["http.host", "server.address", "server.port", "net.host.name", "net.host.port"]),
            ({"exclude": ()}, ["http.route", "http.host", "server.port"], []),
            ({"exclude": ["http.*"]}, ["x", "server.address"], ["http.route", "http.host"]),
            ({"dimensions": ["http.route"]}, ["http.route"], ["http.method", "x", "http.host"]),
            ({"dimensions": ["http.*"]}, ["http.route", "http.method"], ["x", "http.host", "http.server_name"]),
            ({"dimensions": ["http.host"]}, ["http.host"], ["http.route", "server.address"]),
            ({"dimensions": ["http.*", "http.host"]}, ["http.route", "http.host"], ["http.server_name"]),
            ({"dimensions": ["*"], "exclude": ["user.*"]}, ["x", "http.host"], ["user.id"]),
            ({"dimensions": ["user.id"], "exclude": ["user.*"]}, ["user.id"], ["user.name", "x"]),
            ({"dimensions": []}, [], ["x", "http.route"]),
            ({}, ["http.method"], ["http.flavor", "http.scheme", "url.scheme", "network.protocol.version"]),
            ({"dimensions": ["http.*", "http.flavor"]}, ["http.flavor"], ["http.scheme"]),
            ({"dimensions": ["http.route"]}, ["http.target"], ["http.method", "http.status_code"]),
            ({"dimensions": ["http.request.m*"]}, ["http.method"], ["http.target"]),
            ({"dimensions": ["http.status_code"]}, ["http.response.status_code"], ["http.route"]),
            ({"exclude": ["http.request.method"]}, ["http.status_code"], ["http.method"]),
        ],
    )
    def test_keeps(self, fields: dict[str, Any], kept: list[str], dropped: list[str]) -> None:
        """Globs include and exclude; exact names are always kept; the safe list is the default."""
        rule = MetricRule(**fields)
        assert [name for name in kept if not rule.keeps(name)] == []
        assert [name for name in dropped if rule.keeps(name)] == []


@pytest.mark.parametrize(
    ("dimensions", "attributes", "missing"),
    [
        (["http.route", "plan"], ["http.target", "paln"], ["plan"]),
        (["http.request.*", "plan"], ["plan"], []),
        (["http.route"], [], []),
        (None, ["plan"], []),
    ],
)
def test_missing(dimensions: list[str] | None, attributes: list[str], missing: list[str]) -> None:
    """Names in ``dimensions`` that no attribute has are reported, except globs; without attributes, none are."""
    assert MetricRule(dimensions=dimensions).missing(attributes) == missing


class TestAttributeSets:
    """The sets of dimensions with which a point is published."""

    @pytest.mark.parametrize(
        ("fields", "attributes", "sets"),
        [
            ({}, "ab", ["ab"]),
            ({"rollups": [["a"], []]}, "ab", ["ab", "a", ""]),
            ({"rollups": [["a"], ["a"], ["b", "a"]]}, "ab", ["ab", "a"]),
            ({"rollups": [["a", "c"], ["b"]]}, "ab", ["ab", "b"]),
            ({"rollups": [[]], "keep_original": False}, "ab", [""]),
            ({"rollups": [["c"]], "keep_original": False}, "ab", ["ab"]),
            ({"keep_original": False}, "ab", ["ab"]),
            ({"rollups": [[]]}, "", [""]),
            ({"rollups": [["a", "b"]], "keep_original": False}, "ab", ["ab"]),
            ({"rollups": [["a"], ["a", "b"]], "keep_original": False}, "ab", ["a", "ab"]),
        ],
    )
    def test_sets(self, fields: dict[str, Any], attributes: str, sets: list[str]) -> None:
        """A point is published at least once, with its own set and with each applicable rollup, without duplicates."""
        assert list(MetricRule(**fields).attribute_sets(attributes)) == [frozenset(each) for each in sets]

    def test_sets_of_the_other_conventions(self) -> None:
        """A rollup can name the attributes of HTTP requests by the old or the new semantic conventions."""
        rule = MetricRule(rollups=[["http.route"], ["http.status_code", "plan"]], keep_original=False)
        old = {"http.target", "http.status_code", "plan"}
        assert list(rule.attribute_sets(old)) == [{"http.target"}, {"http.status_code", "plan"}]
        new = {"http.route", "http.response.status_code", "plan"}
        assert list(rule.attribute_sets(new)) == [{"http.route"}, {"http.response.status_code", "plan"}]


class TestErrors:
    """Invalid rules are rejected at setup, with an error that names them."""

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("match", ""),
            ("match", 5),
            ("match", None),
            ("dimensions", "http.route"),
            ("dimensions", [1]),
            ("dimensions", [""]),
            ("dimensions", 5),
            ("exclude", "http.host"),
            ("exclude", b"http.host"),
            ("exclude", [None]),
            ("rollups", "route"),
            ("rollups", ""),
            ("rollups", b""),
            ("rollups", ["route"]),
            ("rollups", [["route"], 5]),
            ("rollups", None),
            ("properties", None),
            ("keep_original", "yes"),
            ("keep_original", 1),
            ("storage_resolution", 5),
            ("storage_resolution", True),
            ("storage_resolution", "1"),
            ("storage_resolution", 1.0),
            ("storage_resolution", None),
            ("distribution", "buckets"),
            ("distribution", None),
            ("drop", "false"),
        ],
    )
    def test_field(self, field: str, value: object) -> None:
        """The error names the field and repeats the value; in a list of rules, it also names the rule's index."""
        with pytest.raises(ConfigurationError) as raised:
            MetricRule(**{field: value})  # type: ignore[arg-type]
        assert str(raised.value).startswith(f"{field}={value!r} ")
        assert (raised.value.key, raised.value.value) == (field, value)
        with pytest.raises(ConfigurationError) as raised:
            parse_rules([MetricRule(), {"match": "orders"}, {field: value}])
        assert str(raised.value).startswith("rules[2]: ")
        assert raised.value.key == f"rules[2].{field}"

    def test_unknown_field(self) -> None:
        """The error for an unknown field names it and lists the valid ones."""
        message = r"rules\[1\] has the unknown field 'dimension'.*dimensions.*drop"
        with pytest.raises(ConfigurationError, match=message) as raised:
            parse_rules([{}, {"dimension": ["route"]}])
        assert (raised.value.key, raised.value.value) == ("rules[1]", "dimension")

    @pytest.mark.parametrize("rules", ["rules", {"match": "*"}, 5, None, MetricRule()])
    def test_not_a_list(self, rules: Any) -> None:
        """A single rule must also be given in a list."""
        with pytest.raises(ConfigurationError, match="not a list of rules"):
            parse_rules(rules)

    def test_not_a_rule(self) -> None:
        """An item that is neither a rule nor a mapping is reported by its index."""
        with pytest.raises(ConfigurationError, match=r"rules\[0\] is 'drop'"):
            parse_rules(["drop"])  # type: ignore[list-item]


def test_mappings_are_rules() -> None:
    """A rule may be written as a mapping of its fields, as in JSON."""
    written = {"match": "http.*", "dimensions": ["route"], "rollups": [[], ["route"]], "storage_resolution": 1}
    (rule,) = parse_rules([written])
    assert rule == MetricRule(match="http.*", dimensions=("route",), rollups=((), ("route",)), storage_resolution=1)


def test_a_rule_does_not_change() -> None:
    """Changing the arguments afterwards does not change the rule, which is hashable."""
    names = ["route"]
    rule = MetricRule(dimensions=names, rollups=[names])
    names.append("user")
    assert not rule.keeps("user")
    assert hash(rule) == hash(MetricRule(dimensions=("route",), rollups=(("route",),)))
