"""Settings: sources, precedence, and messages for invalid values."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from docs.generated import setting_texts
from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader
from otel_cloudwatch_flask.config import (
    APP_CONFIG_PREFIX,
    DEFAULT_EXPORT_INTERVAL_SECONDS,
    DEFAULT_MAX_METRICS,
    ENVIRONMENT_PREFIX,
    KEYS,
    Settings,
    given_fields,
    misspelt_keys,
)
from otel_cloudwatch_flask.errors import CloudWatchMetricsError, ConfigurationError
from otel_cloudwatch_flask.model.rules import MetricRule
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch


def resolve(
    arguments: Mapping[str, object] | None = None,
    app_config: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Resolve the settings from three sources, each empty by default."""
    return Settings.resolve(arguments=arguments or {}, app_config=app_config or {}, environ=environ or {})


def test_nothing_given() -> None:
    """Without settings, the documented defaults apply."""
    assert resolve() == Settings(
        namespace=None,
        region_name=None,
        flush="background",
        flush_min_interval_seconds=10.0,
        export_interval_seconds=60.0,
        export_timeout_seconds=30.0,
        sync_timeout_seconds=2.0,
        default_dimensions={},
        max_metrics=1000,
        max_backlog_bytes=64 * 2**20,
        spool_directory=None,
        strict=None,
        enabled=True,
        rules=(),
        resource_dimensions=(),
        entity=False,
        self_metrics=False,
        dry_run=False,
        output="api",
        live_page=False,
        live_page_path="/_cloudwatch",
        live_page_check=None,
    )


PLACES = [
    # field, argument, app.config, environment, and the expected value from each source
    ("namespace", "A", "B", "C", ("A", "B", "C")),
    ("region_name", "eu-west-1", "eu-west-2", "eu-west-3", ("eu-west-1", "eu-west-2", "eu-west-3")),
    ("flush", "sync", "interval", "SYNC", ("sync", "interval", "sync")),
    ("dry_run", True, 1, "yes", (True, True, True)),
    ("output", "emf", "api", " EMF", ("emf", "api", "emf")),
    ("live_page", True, False, "on", (True, False, True)),
    ("live_page_path", "/a", "/b-c/d", "/~e", ("/a", "/b-c/d", "/~e")),
    ("live_page_check", len, "m:f", "a.b:c.d", (len, "m:f", "a.b:c.d")),
    ("flush_min_interval_seconds", 0, 2, "0.5", (0.0, 2.0, 0.5)),
    ("export_interval_seconds", 10, 20.5, "30", (10.0, 20.5, 30.0)),
    ("export_timeout_seconds", 1, 2.5, "3", (1.0, 2.5, 3.0)),
    ("sync_timeout_seconds", 0, 2.5, "3", (0.0, 2.5, 3.0)),
    ("default_dimensions", {"A": 1}, {"B": True}, "C=x, D = y", ({"A": "1"}, {"B": "true"}, {"C": "x", "D": "y"})),
    ("max_metrics", 1, "2", "3", (1, 2, 3)),
    ("max_backlog_bytes", 1000, 2000, "3000", (1000, 2000, 3000)),
    ("spool_directory", Path("/a"), "/b", "/c", (Path("/a"), Path("/b"), Path("/c"))),
    ("strict", True, "no", "1", (True, False, True)),
    ("enabled", False, 0, "off", (False, False, False)),
    (
        "rules",
        [MetricRule(match="a.*")],
        [{"match": "b", "rollups": [[]]}],
        '[{"match": "c", "drop": true}]',
        ((MetricRule(match="a.*"),), (MetricRule(match="b", rollups=[()]),), (MetricRule(match="c", drop=True),)),
    ),
    ("resource_dimensions", ["a"], ("b", "c"), "d, e", (("a",), ("b", "c"), ("d", "e"))),
    ("entity", True, "on", "1", (True, True, True)),
    ("self_metrics", True, "on", "1", (True, True, True)),
]


@pytest.mark.parametrize(("field", "argument", "configured", "variable", "meanings"), PLACES)
def test_precedence(field: str, argument: object, configured: object, variable: str, meanings: tuple[object]) -> None:
    """Arguments override app.config, which overrides the environment, and the value of each source is parsed."""
    key = next(key for key in KEYS if key.field == field)
    places: list[dict[str, Any]] = [
        {"arguments": {field: argument}},
        {"app_config": {APP_CONFIG_PREFIX + key.name: configured}},
        {"environ": {ENVIRONMENT_PREFIX + key.name: variable}},
    ]
    for number, meaning in enumerate(meanings):
        given: dict[str, Any] = {name: value for place in places[number:] for name, value in place.items()}
        assert getattr(resolve(**given), field) == meaning


def test_every_key_is_in_the_table_of_places() -> None:
    """The table of this module covers every key."""
    assert {key.field for key in KEYS} == {field for field, *_ in PLACES}


def test_a_default_is_not_given() -> None:
    """An argument left at its default gives way to other sources; an equal value passed explicitly does not."""
    environ = {"OTEL_EXPORTER_CLOUDWATCH_EXPORT_INTERVAL_SECONDS": "5", "OTEL_EXPORTER_CLOUDWATCH_MAX_METRICS": "7"}
    left = resolve(
        {"export_interval_seconds": DEFAULT_EXPORT_INTERVAL_SECONDS, "max_metrics": DEFAULT_MAX_METRICS},
        environ=environ,
    )
    written = resolve({"export_interval_seconds": 60.0, "max_metrics": 1000}, environ=environ)
    assert (left.export_interval_seconds, left.max_metrics) == (5.0, 7)
    assert (written.export_interval_seconds, written.max_metrics) == (60.0, 1000)


@pytest.mark.parametrize(
    ("environ", "field", "meaning"),
    [
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"}, "region_name", "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "us-east-1"}, "region_name", "us-east-1"),
        ({"AWS_REGION": "a", "OTEL_EXPORTER_CLOUDWATCH_REGION": "b"}, "region_name", "b"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "5000"}, "export_interval_seconds", 5.0),
        ({"OTEL_METRIC_EXPORT_TIMEOUT": "5000"}, "export_timeout_seconds", 5.0),
        ({"OTEL_METRIC_EXPORT_TIMEOUT": "0"}, "export_timeout_seconds", math.inf),
        ({"AWS_LAMBDA_FUNCTION_NAME": "shop"}, "flush", "sync"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "shop", "OTEL_EXPORTER_CLOUDWATCH_FLUSH": "interval"}, "flush", "interval"),
        ({"OTEL_SDK_DISABLED": "True "}, "enabled", False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_CLOUDWATCH_ENABLED": "true"}, "enabled", False),
        ({"OTEL_SDK_DISABLED": "1"}, "enabled", True),
        ({"OTEL_EXPORTER_CLOUDWATCH_MAX_METRICS": ""}, "max_metrics", 1000),
        ({"OTEL_EXPORTER_CLOUDWATCH_DEFAULT_DIMENSIONS": '{"A": 1}'}, "default_dimensions", {"A": "1"}),
        ({"OTEL_EXPORTER_CLOUDWATCH_DEFAULT_DIMENSIONS": "A=x=y,"}, "default_dimensions", {"A": "x=y"}),
    ],
)
def test_environment(environ: dict[str, str], field: str, meaning: object) -> None:
    """AWS and OpenTelemetry variables are used, and an empty variable counts as unset."""
    assert getattr(resolve(environ=environ), field) == meaning


@pytest.mark.parametrize(
    ("app_config", "rules", "expected"),
    [
        ({}, [MetricRule()], 10.0),
        ({"DEBUG": True}, [], 1.0),
        ({}, [MetricRule(match="a"), MetricRule(match="b", storage_resolution=1)], 1.0),
        ({"CLOUDWATCH_FLUSH_MIN_INTERVAL_SECONDS": 5, "DEBUG": True}, [], 5.0),
    ],
)
def test_default_of_the_time_between_flushes(
    app_config: dict[str, Any], rules: list[MetricRule], expected: float
) -> None:
    """The default minimum interval is 10 seconds, or 1 in debug mode or if a rule sets a resolution of one second."""
    resolved = resolve({"rules": rules}, app_config)
    assert resolved.flush_min_interval_seconds == expected
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=FakeCloudWatch(), rules=rules))
    assert reader.settings.flush_min_interval_seconds == (10.0 if app_config else expected)
    reader.shutdown()


REFUSED = [
    ("FLUSH", "often", "'often' is not a flush policy; use one of 'background', 'sync', 'interval'."),
    ("OUTPUT", "log", "'log' is not an output; use one of 'api', 'emf'."),
    ("MAX_METRICS", "-1", "'-1' is not a positive integer; use 1 or more."),
    ("MAX_METRICS", "1.5", "'1.5' is not a positive integer; use 1 or more."),
    ("MAX_METRICS", "many", "'many' is not a positive integer; use 1 or more."),
    ("MAX_BACKLOG_BYTES", "64MB", "'64MB' is not a positive integer; use 1 or more."),
    ("LIVE_PAGE_PATH", "ops", "'ops' is not a valid URL path; use one such as '/ops/cloudwatch', with letters"),
    ("LIVE_PAGE_PATH", "/a/../b", "'/a/../b' is not a valid URL path; use one such as"),
    (
        "LIVE_PAGE_CHECK",
        "is_admin",
        "'is_admin' is not an access check; use a function that takes no arguments, or its name",
    ),
    ("EXPORT_INTERVAL_SECONDS", "0", "'0' is not a positive duration; use a number of seconds greater than 0."),
    ("EXPORT_INTERVAL_SECONDS", "nan", "'nan' is not a positive duration; use a number of seconds greater than 0."),
    ("EXPORT_INTERVAL_SECONDS", "inf", "'inf' is not a positive duration; use a number of seconds greater than 0."),
    ("FLUSH_MIN_INTERVAL_SECONDS", "-1", "'-1' is not a duration; use a number of seconds, 0 or more."),
    ("NAMESPACE", "AWS/Shop", "is reserved for AWS's own services; use a name that does not start with 'AWS/'."),
    ("NAMESPACE", ":Shop", "':Shop' is not a valid namespace; use a name that does not start with a colon."),
    ("NAMESPACE", " ", "' ' is not a valid namespace; use a name such as 'Shop'."),
    ("NAMESPACE", "Läden", "'Läden' is not a valid namespace; use printable ASCII characters only."),
    ("NAMESPACE", "x" * 256, "is too long for a namespace; use at most 255 characters."),
    ("REGION", " ", "' ' is not a valid name; use a non-empty string."),
    ("STRICT", "maybe", "is neither true nor false; use one of true, 1, yes, on, false, 0, no, off."),
    ("ENABLED", "2", "'2' is neither true nor false"),
    ("DEFAULT_DIMENSIONS", "Stage", "is not a list of dimensions; use name=value,name=value or a JSON object."),
    ("DEFAULT_DIMENSIONS", "{", "is not JSON"),
    ("RULES", "[", "is not JSON"),
    ("RULES", '[{}, {"drops": true}]', "rules[1] has the unknown field 'drops'; use one of match,"),
    ("RULES", '[{"storage_resolution": 5}]', "rules[0]: storage_resolution=5 is invalid; use 1 or 60"),
    ("RULES", '{"match": "x"}', "is not a list of rules"),
    ("RESOURCE_DIMENSIONS", "a,,b", "use a list of names"),
    ("ENTITY", "maybe", "is neither true nor false"),
    ("DEFAULT_DIMENSIONS", "=x", "is invalid: dimension name '' is blank or not a string"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_refused(name: str, value: str, message: str) -> None:
    """The error for an invalid value contains the key, the value and the allowed values."""
    with pytest.raises(ConfigurationError) as caught:
        resolve(environ={ENVIRONMENT_PREFIX + name: value})
    assert str(caught.value).startswith(f"{ENVIRONMENT_PREFIX}{name}={value!r} ")
    assert message in str(caught.value)
    assert (caught.value.key, caught.value.value) == (ENVIRONMENT_PREFIX + name, value)
    assert isinstance(caught.value, (CloudWatchMetricsError, ValueError))


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"arguments": {"flush": "often"}}, "flush"),
        ({"app_config": {"CLOUDWATCH_FLUSH": 7}}, 'app.config["CLOUDWATCH_FLUSH"]'),
        ({"environ": {"OTEL_METRIC_EXPORT_INTERVAL": "soon"}}, "OTEL_METRIC_EXPORT_INTERVAL"),
        ({"arguments": {"max_metrics": True}}, "max_metrics"),
        ({"arguments": {"max_metrics": 10**400}}, "max_metrics"),
        ({"arguments": {"export_interval_seconds": math.nan}}, "export_interval_seconds"),
        ({"arguments": {"strict": 0.0}}, "strict"),
        ({"arguments": {"spool_directory": 7}}, "spool_directory"),
        ({"arguments": {"default_dimensions": [1]}}, "default_dimensions"),
        ({"arguments": {"default_dimensions": {"A": None}}}, "default_dimensions"),
    ],
)
def test_refused_with_its_place(given: dict[str, Any], key: str) -> None:
    """The error names the source of the value."""
    with pytest.raises(ConfigurationError) as caught:
        resolve(**given)
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key}=")


def test_settings_do_not_change() -> None:
    """Settings have an immutable copy of the dimensions."""
    mine = {"Stage": "test"}
    settings = resolve({"default_dimensions": mine})
    mine["Stage"] = "prod"
    assert settings.default_dimensions == {"Stage": "test"}
    with pytest.raises(TypeError):
        settings.default_dimensions["Stage"] = "prod"  # type: ignore[index]


def test_misspelt_keys() -> None:
    """Misspelled keys of this package are distinguished from unrelated keys with the same prefix."""
    app_config: dict[Any, object] = {
        "CLOUDWATCH_NAMESPCE": "Shop",
        "CLOUDWATCH_EXPORT_INTERVAL": 5,
        "CLOUDWATCH_FLUSH": "sync",
        "CLOUDWATCH_LOG_GROUP": "shop",
        "CLOUDWATCH_LOG_REGION": "eu-west-1",
        "NAMESPCE": "Shop",
        7: "Shop",
    }
    assert misspelt_keys(app_config, APP_CONFIG_PREFIX) == {
        "CLOUDWATCH_NAMESPCE": "CLOUDWATCH_NAMESPACE",
        "CLOUDWATCH_EXPORT_INTERVAL": "CLOUDWATCH_EXPORT_INTERVAL_SECONDS",
    }


def test_what_was_given_to_one_app() -> None:
    """Only arguments and app.config count as settings of one app, but not defaults and the environment."""
    defaults = {"export_interval_seconds": DEFAULT_EXPORT_INTERVAL_SECONDS, "namespace": None}
    assert given_fields(arguments=defaults, app_config={}) == set()
    assert given_fields(arguments={"export_interval_seconds": 60.0}, app_config={}) == {"export_interval_seconds"}
    assert given_fields(arguments=defaults, app_config={"CLOUDWATCH_REGION": "eu-west-1"}) == {"region_name"}


def test_keys_are_documented() -> None:
    """Each key has a description, which the generated documentation uses."""
    texts = setting_texts()
    assert texts.keys() == {key.field for key in KEYS}
    assert all(text.endswith(".") for text in texts.values())
