"""Load the app that a command inspects, and find its reporter and settings."""

import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import click
from flask import Flask
from flask.cli import NoAppException, ScriptInfo

from otel_cloudwatch_flask.commands.shared.command import CommandError
from otel_cloudwatch_flask.config import ENVIRONMENT_PREFIX, KEYS
from otel_cloudwatch_flask.errors import CloudWatchMetricsError, ConfigurationError
from otel_cloudwatch_flask.flask_extension.reporter_reader import programs_exporters
from otel_cloudwatch_flask.model.dimensions import namespace_of
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter, live_exporters
from otel_cloudwatch_flask.sdk.reader import live_readers
from otel_cloudwatch_flask.terminal import escaped

_TRACEBACK_KEY: Final = f"{__name__}.traceback"
_DRY_RUN_VARIABLE: Final = ENVIRONMENT_PREFIX + "DRY_RUN"
_KEYS: Final = {key.name: key for key in KEYS}
_EXTENSION_NAME: Final = "cloudwatch_metrics"


@dataclass(frozen=True, slots=True)
class UserApp:
    """The loaded app, if any, and a copy of the environment made before dry-run mode was enabled."""

    app: Flask | None = None
    environ: Mapping[str, str] = field(default_factory=os.environ.copy)

    @property
    def has_reporter(self) -> bool:
        """Whether the app has a reporter."""
        return bool(self._installed)

    @property
    def _installed(self) -> Any:
        return self.app and self.app.extensions.get(_EXTENSION_NAME)

    @property
    def _options(self) -> Mapping[str, Any]:
        options: Mapping[str, Any] = self._installed.options if self._installed else {}
        return options

    @property
    def setting_sources(self) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, str]]:
        """The reporter's arguments, the app's config and the environment, in order of precedence."""
        return self._options, self.app.config if self.app else {}, self.environ

    @property
    def client(self) -> Any:
        """The client passed to the reporter, if any."""
        return self._options.get("cloudwatch_client")

    @property
    def keys(self) -> Mapping[str, str]:
        """The access keys passed to the reporter, if any. They are secret and must never be printed."""
        keys: Mapping[str, str] = self._options.get("credentials", {})
        return keys

    def value(self, name: str) -> Any:
        """Return the value that a setting has outside dry-run mode. Raises ``ConfigurationError`` if it is invalid."""
        return _KEYS[name].resolve(*self.setting_sources)

    def value_or_default(self, name: str) -> Any:
        """Return the value of a setting, or its default if the value is invalid."""
        try:
            return self.value(name)
        except ConfigurationError:
            return _KEYS[name].default

    def source(self, name: str) -> str | None:
        """Return the name of the argument, config key or variable that sets ``name``, or ``None`` if it is not set."""
        return _KEYS[name].source(*self.setting_sources)


traceback_option: Final = click.option(
    "--traceback",
    is_flag=True,
    expose_value=False,
    callback=lambda context, _parameter, value: context.meta.update({_TRACEBACK_KEY: value}),
    help="Print the traceback if the app cannot be loaded.",
)
"""The option ``--traceback`` for commands that load the app. :func:`load_user_app` reads it from the context."""


def load_user_app(context: click.Context, *, is_needed: bool = True) -> UserApp:
    """Load the app that ``flask`` finds, in dry-run mode unless the app itself sets ``DRY_RUN``.

    The result has no app if the command was not run with ``flask``. If the app cannot be loaded, raises
    :class:`CommandError` with the last line of the error message, unless ``is_needed`` is false and no app was selected
    explicitly.
    """
    info = context.find_object(ScriptInfo)
    if info is None:
        return UserApp()
    before = dict(os.environ)
    # Set before the app is loaded, because loading it may create exporters.
    os.environ[_DRY_RUN_VARIABLE] = "true"
    context.call_on_close(lambda: _restore(before))
    try:
        return UserApp(info.load_app(), before)
    except Exception as error:  # the user's program may raise anything
        if is_needed or info.app_import_path or info.create_app:
            raise _load_error(context, error) from error
        return UserApp(environ=before)


def _load_error(context: click.Context, error: Exception) -> CommandError:
    # These exceptions have clear messages. If an import failed, NoAppException's message contains the traceback.
    has_message = isinstance(error, (NoAppException, CloudWatchMetricsError))
    text = str(error) if has_message else "".join(traceback.format_exception(error))
    lines, hint = text.strip().splitlines(), ""
    if context.meta.get(_TRACEBACK_KEY):
        click.echo(text, err=True)
    elif len(lines) > 1:
        hint = " Pass --traceback for details."
    return CommandError(f"The app cannot be loaded: {escaped(lines[-1], 500)}{hint}")


def namespaces_of(user_app: UserApp) -> list[str]:
    """Return the namespaces of all exporters in the process or, if there are none, the configured namespace.

    A namespace that is not set is derived from ``OTEL_SERVICE_NAME``.
    """
    exporters = live_exporters() if user_app.app else []
    named = [each.settings.namespace for each in exporters] or [user_app.value("NAMESPACE")]
    service = os.environ.get("OTEL_SERVICE_NAME")
    fallback = namespace_of(service) if service else None
    return list(dict.fromkeys(filter(None, [name or fallback for name in named])))


def exporters_without_reader() -> list[CloudWatchMetricExporter]:
    """Return the program's exporters that no :class:`CloudWatchMetricReader` uses. Another reader may use them."""
    of_readers = {reader.exporter for reader in live_readers()}
    return [each for each in programs_exporters() if each not in of_readers]


def _restore(environ: Mapping[str, str]) -> None:
    # Only this variable is restored, because loading the app may have set others on purpose.
    if _DRY_RUN_VARIABLE in environ:
        os.environ[_DRY_RUN_VARIABLE] = environ[_DRY_RUN_VARIABLE]
    else:
        os.environ.pop(_DRY_RUN_VARIABLE, None)
