"""Check the value and source of each setting, and look for misspelled names and a disabled SDK."""

import json
from collections.abc import Iterator, Mapping

from otel_cloudwatch_flask.commands.doctor_checks.check import Check
from otel_cloudwatch_flask.commands.shared.user_app import UserApp
from otel_cloudwatch_flask.config import KEYS, Key, misspelt_settings, sdk_is_disabled
from otel_cloudwatch_flask.errors import ConfigurationError


def settings_checks(user_app: UserApp) -> Iterator[Check]:
    """Report every setting's value and source, likely misspellings of settings, and whether the SDK is disabled."""
    _, app_config, environ = user_app.setting_sources
    yield from (_setting(user_app, key) for key in KEYS)
    for name, meant in misspelt_settings(app_config, environ).items():
        yield Check("problem", f"Unknown setting {name} is ignored.", f"Did you mean {meant}?")
    if sdk_is_disabled(environ):
        finding = "OTEL_SDK_DISABLED is true: nothing is recorded or sent."
        yield Check("unknown", finding, "Unset it to send metrics.")


def described(value: object) -> str:
    """Format the value of a setting for ``doctor``. Each rule is represented by its pattern."""
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
        return Check("problem", f"{key.name}: {error}", "The app does not start with this value.")
    source = user_app.source(key.name)
    finding = f"{key.name}: {described(value)} ({_described_source(key, source)})"
    return Check("ok", finding, is_default=source is None)


def _described_source(key: Key, source: str | None) -> str:
    if source is None:
        return "default"
    if source == key.field:
        return f"argument {source}"
    return f"environment {source}" if source.isupper() else source
