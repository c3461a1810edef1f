"""The user's app, as ``flask cloudwatch`` has it loaded, and what this package knows of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import click
from flask import Flask
from flask.cli import ScriptInfo

from otel_cloudwatch_flask.config import ENVIRONMENT_PREFIX, KEYS, Key
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.flask_extension.reporter import CloudWatchMetricsReporter
from otel_cloudwatch_flask.model.dimensions import namespace_of
from otel_cloudwatch_flask.sdk.exporter import live_exporters

DRY_RUN_VARIABLE: Final = ENVIRONMENT_PREFIX + "DRY_RUN"
_EXTENSION_NAME: Final = "cloudwatch_metrics"


@dataclass(frozen=True, slots=True)
class UserApp:
    """An app, if there is one, and the environment as it was before the app was loaded with a dry run."""

    app: Flask | None = None
    environ: Mapping[str, str] = field(default_factory=os.environ.copy)

    @property
    def reporter(self) -> CloudWatchMetricsReporter | None:
        """The reporter that serves the app."""
        installed = self.app and self.app.extensions.get(_EXTENSION_NAME)
        return installed.reporter if installed else None

    @property
    def places(self) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, str]]:
        """Where settings may be: what the reporter was told, the app's configuration, and the environment."""
        arguments = self.reporter._arguments if self.reporter else {}  # noqa: SLF001 - the package's own
        return arguments, self.app.config if self.app else {}, self.environ

    @property
    def client(self) -> Any:
        """The client that the program gave to the reporter, if it did."""
        return self.reporter._client if self.reporter else None  # noqa: SLF001 - the package's own

    @property
    def keys_given(self) -> tuple[str, ...]:
        """The keys that the reporter was given; never to be shown."""
        return tuple(self.reporter._credentials.values()) if self.reporter else ()  # noqa: SLF001 - the package's own

    def value(self, name: str) -> Any:
        """What a setting is, without the dry run; ``ConfigurationError`` if that cannot be used."""
        return key_named(name).resolve(*self.places)

    def usable_value(self, name: str) -> Any:
        """The same, or the default where that cannot be used."""
        try:
            return self.value(name)
        except ConfigurationError:
            return key_named(name).default

    def source(self, name: str) -> str | None:
        """Where that was found; ``None`` for the default."""
        return key_named(name).source(*self.places)


def loaded_app(context: click.Context, *, is_needed: bool = True) -> UserApp:
    """Load the app that flask was told of, with a dry run; there is none if this is not one of flask's commands.

    With a dry run, because nothing of what an app measures while a command looks at it belongs into CloudWatch. One
    that is not needed is loaded only if flask was told which one it is.
    """
    info = context.find_object(ScriptInfo)
    if info is None or not (is_needed or info.app_import_path or info.create_app):
        return UserApp()
    before = dict(os.environ)
    os.environ[DRY_RUN_VARIABLE] = "true"
    context.call_on_close(lambda: _restore(before))
    return UserApp(info.load_app(), before)


def namespaces_of(user_app: UserApp) -> list[str]:
    """Where what is measured goes: by the exporters there are or, without any, by what is set."""
    exporters = live_exporters() if user_app.app else []
    named = [each.settings.namespace for each in exporters] or [user_app.value("NAMESPACE")]
    fallback = _namespace_of_service()
    return list(dict.fromkeys(filter(None, [name or fallback for name in named])))


def _namespace_of_service() -> str | None:
    service = os.environ.get("OTEL_SERVICE_NAME")
    return namespace_of(service) if service else None


def key_named(name: str) -> Key:
    """The setting of that name."""
    return next(key for key in KEYS if key.name == name)


def _restore(environ: Mapping[str, str]) -> None:
    if DRY_RUN_VARIABLE in environ:
        os.environ[DRY_RUN_VARIABLE] = environ[DRY_RUN_VARIABLE]
    else:
        os.environ.pop(DRY_RUN_VARIABLE, None)
