"""Rules and settings of any shape are either parsed or rejected with their key."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_cloudwatch_flask.config import KEYS, Settings
from otel_cloudwatch_flask.delivery.spool import check_directory
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.model.rules import MetricRule, Rules, parse_rules
from tests.support.fuzzing import effort

Result = TypeVar("Result")

FIELDS = ["match", "dimensions", "exclude", "rollups", "keep_original", "storage_resolution", "distribution", "drop"]

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=10,
)
RULES = st.lists(
    st.dictionaries(st.sampled_from(FIELDS), st.one_of(JSON, st.sampled_from([1, 60, True, "*", "values", [], [[]]]))),
    max_size=3,
)

TEXTS = st.one_of(
    st.text(),
    st.sampled_from(
        ["1", "0", "-1", "nan", "inf", "1e400", "true", "off", "sync", "a=b,c=d", "a=", "=", ",", "{", "[]"]
    ),
    JSON.map(json.dumps),
    RULES.map(json.dumps),
)
ANYTHING = st.one_of(
    TEXTS,
    JSON,
    RULES,
    st.binary(),
    st.integers(),
    st.floats(),
    st.tuples(JSON),
    st.sets(st.integers()),
    st.just(object()),
)


def attempt(parse: Callable[[], Result]) -> Result | ConfigurationError:
    """Return the parsed result, or the ``ConfigurationError``."""
    try:
        return parse()
    except ConfigurationError as error:
        return error


@given(st.one_of(JSON, RULES))
@example([{"match": "["}, {"dimensions": [None]}])
@effort(200)
def test_rules_of_any_json(rules: Any) -> None:
    """Either all rules are parsed, and every name has a rule, or the error names the invalid rule."""
    parsed = attempt(lambda: parse_rules(rules))
    if isinstance(parsed, ConfigurationError):
        assert parsed.key is not None
        assert parsed.key.startswith("rules")
        assert parsed.key.partition(".")[0] in str(parsed)
        return
    assert len(parsed) == len(rules)
    for name in ("", "http.server.request.duration", "[", "*"):
        rule = Rules(parsed).of(name)
        assert isinstance(rule, MetricRule)
        assert all(isinstance(each, frozenset) for each in rule.attribute_sets({"a", "b"}))
        assert isinstance(rule.keeps("a"), bool)


def resolved(place: str, resolve: Callable[[], Settings]) -> Settings | None:
    """Return the settings, or check the error that rejects them and return ``None``."""
    settings = attempt(resolve)
    if isinstance(settings, Settings):
        return settings
    assert settings.key == place
    assert str(settings).startswith(f"{place}=")
    assert str(settings).endswith(".")
    return None


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
@given(text=TEXTS)
@effort(15)
def test_any_text_in_the_environment(key: Any, text: str) -> None:
    """The text is parsed or rejected with the variable's name; an empty variable counts as unset."""
    settings = resolved(
        key.variable, lambda: Settings.resolve(arguments={}, app_config={}, environ={key.variable: text})
    )
    if settings is not None and not text:
        assert settings == Settings.resolve(arguments={}, app_config={}, environ={})


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
@given(value=ANYTHING)
@example(value=10**400)
@example(value=10**5000)
@effort(15)
def test_anything_in_code(key: Any, value: Any) -> None:
    """An argument or ``app.config`` value is parsed or rejected with its source."""
    given_as_argument = resolved(
        key.field, lambda: Settings.resolve(arguments={key.field: value}, app_config={}, environ={})
    )
    given_in_config = resolved(
        f'app.config["{key.app_config_name}"]',
        lambda: Settings.resolve(arguments={}, app_config={key.app_config_name: value}, environ={}),
    )
    assert repr(given_as_argument) == repr(given_in_config)


@pytest.mark.parametrize("brackets", ["[", '{"a":'], ids=["lists", "objects"])
@pytest.mark.parametrize(
    "key", [key for key in KEYS if key.name in {"RULES", "DEFAULT_DIMENSIONS"}], ids=lambda key: key.name
)
def test_brackets_without_end(key: Any, brackets: str) -> None:
    """JSON nested too deeply for the parser is rejected like other invalid values."""
    with pytest.raises(ConfigurationError, match=key.variable) as caught:
        Settings.resolve(arguments={}, app_config={}, environ={key.variable: brackets * 100_000})
    assert caught.value.key == key.variable


@pytest.mark.parametrize("name", ["\0", "half \ud800", "x" * 300], ids=["zero", "surrogate", "too long"])
def test_a_directory_that_no_file_system_has(tmp_path: Any, name: str) -> None:
    """A directory name that no file system accepts is rejected with its key."""
    with pytest.raises(ConfigurationError, match="spool_directory=") as caught:
        check_directory(tmp_path / name)
    assert caught.value.key == "spool_directory"
