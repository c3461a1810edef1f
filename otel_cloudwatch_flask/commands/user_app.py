"""The user's app, as ``flask cloudwatch`` has it loaded, and what this package knows of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import click
from flask import Flask
from flask.cli import ScriptInfo

from otel_cloudwatch_flask.config import ENVIRONMENT_PREFIX, KEYS, Key
from otel_cloudwatch_flask.dimensions import namespace_of
from otel_cloudwatch_flask.exporter import live_exporters
from otel_cloudwatch_flask.extension import CloudWatchMetricsReporter

DRY_RUN_VARIABLE: Final = ENVIRONMENT_PREFIX + "DRY_RUN"
_EXTENSION_NAME: Final = "cloudwatch_metrics"


@dataclass(frozen=True, slots=True)
class UserApp:
    """An app, and the environment as it was before the app was loaded with a dry run."""

    app: Flask
    environ: Mapping[str, str]

    @property
    def reporter(self) -> CloudWatchMetricsReporter | None:
        """The reporter that serves the app."""
        installed = self.app.extensions.get(_EXTENSION_NAME)
        return installed.reporter if installed else None

    @property
    def arguments(self) -> Mapping[str, object]:
        """What the reporter was told, by the names of the settings' fields."""
        return self.reporter._arguments if self.reporter else {}  # noqa: SLF001 - the package's own

    @property
    def client(self) -> Any:
        """The client that the program gave to the reporter, if it did."""
        return self.reporter._client if self.reporter else None  # noqa: SLF001 - the package's own

    @property
    def keys_given(self) -> tuple[str, ...]:
        """The keys that the reporter was given; never to be shown."""
        return tuple(self.reporter._credentials.values()) if self.reporter else ()  # noqa: SLF001 - the package's own

    def value(self, key: Key) -> Any:
        """What a setting is, without the dry run; ``ConfigurationError`` if that cannot be used."""
        return key.resolve(self.arguments, self.app.config, self.environ)

    def source(self, key: Key) -> str | None:
        """Where that was found; ``None`` for the default."""
        return key.source(self.arguments, self.app.config, self.environ)


def loaded_app(context: click.Context) -> UserApp | None:
    """Load the app that flask was told of, with a dry run; ``None`` if this is not one of flask's commands.

    With a dry run, because nothing of what an app measures while a command looks at it belongs into CloudWatch.
    """
    info = context.find_object(ScriptInfo)
    if info is None:
        return None
    before = dict(os.environ)
    os.environ[DRY_RUN_VARIABLE] = "true"
    context.call_on_close(lambda: _restore(before))
    return UserApp(info.load_app(), before)


def namespaces_of(user_app: UserApp | None) -> list[str]:
    """Where what is measured goes: by the exporters there are or, without any, by what is set."""
    service = os.environ.get("OTEL_SERVICE_NAME")
    fallback = namespace_of(service) if service else None
    named = [each.settings.namespace or fallback for each in live_exporters()] if user_app else []
    if not named:
        named = [_namespace_set(user_app) or fallback]
    return list(dict.fromkeys(filter(None, named)))


def key_named(name: str) -> Key:
    """The setting of that name."""
    return next(key for key in KEYS if key.name == name)


def _namespace_set(user_app: UserApp | None) -> str | None:
    key = key_named("NAMESPACE")
    value = user_app.value(key) if user_app else key.resolve({}, {}, os.environ)
    return str(value) if value else None


def _restore(environ: Mapping[str, str]) -> None:
    if DRY_RUN_VARIABLE in environ:
        os.environ[DRY_RUN_VARIABLE] = environ[DRY_RUN_VARIABLE]
    else:
        os.environ.pop(DRY_RUN_VARIABLE, None)
