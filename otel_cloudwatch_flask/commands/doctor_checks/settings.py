"""What is set, and where: the doctor's first page."""

import json
from collections.abc import Iterator, Mapping

from otel_cloudwatch_flask.commands.doctor_checks.check import Check
from otel_cloudwatch_flask.commands.shared.user_app import UserApp
from otel_cloudwatch_flask.config import (
    APP_CONFIG_PREFIX,
    ENVIRONMENT_PREFIX,
    KEYS,
    Key,
    misspelt_keys,
    sdk_is_disabled,
)
from otel_cloudwatch_flask.errors import ConfigurationError

SECTION = "Settings"


def settings_checks(user_app: UserApp) -> Iterator[Check]:
    """Every setting with its value and its source, then what was meant to be one."""
    _, app_config, environ = user_app.places
    yield from (_setting(user_app, key) for key in KEYS)
    misspelt = {**misspelt_keys(app_config, APP_CONFIG_PREFIX), **misspelt_keys(environ, ENVIRONMENT_PREFIX)}
    for name, meant in misspelt.items():
        yield Check(SECTION, "wrong", f"{name} is no setting, and is ignored.", f"Write {meant}.")
    if sdk_is_disabled(environ):
        yield Check(SECTION, "unknown", "OTEL_SDK_DISABLED is true: nothing is measured or sent.", "Unset it to send.")


def described(value: object) -> str:
    """A setting's value in a few words."""
    if value in (None, (), {}):
        return "not set"
    if isinstance(value, Mapping):
        return json.dumps(dict(value))
    if isinstance(value, tuple):
        return ", ".join(str(getattr(each, "match", each)) for each in value)
    return str(value)


def _setting(user_app: UserApp, key: Key) -> Check:
    try:
        value = user_app.value(key.name)
    except ConfigurationError as error:
        return Check(SECTION, "wrong", f"{key.name}: {error}", "The app does not start with it.")
    place = _place(key, user_app.source(key.name))
    return Check(SECTION, "right", f"{key.name}: {described(value)} ({place})")


def _place(key: Key, source: str | None) -> str:
    if source is None:
        return "default"
    if source == key.field:
        return f"argument {source}"
    return source if source.startswith("app.config") else f"environment {source}"
