"""Exit codes, the ``--json`` option, the type of numeric options, and base classes for commands and their group."""

import importlib
import io
import json
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Final, TypeVar

import click

from otel_cloudwatch_flask.errors import CloudWatchMetricsError

_F = TypeVar("_F", bound=Callable[..., Any])

_JSON_OPTION: Final = "--json"
_IS_JSON_KEY: Final = f"{__name__}.is_json"
_STREAM_KEY: Final = f"{__name__}.stream"
_COMMANDS: Final = ("alarms", "cost", "dashboard", "demo", "doctor", "policy", "preview", "scaling")
"""The names of the commands, each of which is also the name of a module in ``commands``."""

EXIT_PROBLEM: Final = 1
"""The exit code of a command that ran and found a problem."""
EXIT_ERROR: Final = 2
"""The exit code of a command that could not run, which is also click's code for usage errors."""
EXIT_INTERRUPTED: Final = 130
"""The exit code that shells report for a program interrupted by Ctrl-C."""


class CommandError(click.ClickException):
    """Raised if a command cannot run. Click prints the message, preceded by "Error: "."""

    exit_code = EXIT_ERROR


class StoppedError(CommandError):
    """Raised if a command is interrupted by Ctrl-C."""

    exit_code = EXIT_INTERRUPTED

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message without "Error: ", because an interruption is not an error."""
        click.echo(self.message, file=file, err=True)


class FloatRange(click.FloatRange):
    """A range of finite numbers. Click's ranges include NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert the value of an option to a float. If it is NaN or infinite, the command fails."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


class Command(click.Command):
    """A command that lists its options if one is unknown, and reports this package's exceptions without a traceback."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. If an option is unknown, the error lists the available options."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            names = sorted(name for each in self.get_params(ctx) for name in each.opts if name.startswith("--"))
            message = f"No such option: {error.option_name}. Available: {', '.join(names)}."
            raise click.NoSuchOption(error.option_name, message, ctx=ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and report Ctrl-C and this package's exceptions without a traceback."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            # The encoding may lack some letters of names and paths.
            sys.stdout.reconfigure(errors="backslashreplace")
        if ctx.params.get("as_json"):
            ctx.meta[_IS_JSON_KEY] = True  # an environment variable may set the option too
            _reserve_stdout(ctx)
        if os.environ.get("NO_COLOR"):  # https://no-color.org
            ctx.color = False
        try:
            return super().invoke(ctx)
        except CloudWatchMetricsError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise StoppedError("Stopped.") from None


class LazyGroup(click.Group):
    """A group that imports each command only when it is used, and lists the commands if a name is unknown.

    With ``--json``, the standard output of a command is one JSON document, even if the command fails.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments of the group, and remember whether those of the command include ``--json``."""
        ctx.meta[_IS_JSON_KEY] = _JSON_OPTION in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. With ``--json``, an exception is printed as JSON before it is re-raised."""
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except BaseException as error:
            if ctx.meta[_IS_JSON_KEY]:
                echo_json({"error": _message(error)})
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands in alphabetical order."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command. If the name is unknown, the error lists the commands."""
        if cmd_name not in _COMMANDS:
            if ctx.resilient_parsing:  # a shell completes a command line
                return None
            ctx.fail(f"No such command: {cmd_name}. Available: {', '.join(_COMMANDS)}.")
        command: click.Command = importlib.import_module(f"otel_cloudwatch_flask.commands.{cmd_name}").command
        return command


def echo_json(value: object) -> None:
    """Print a value as indented JSON. If the command fails later, its error is not printed as another document."""
    meta = click.get_current_context().meta
    meta[_IS_JSON_KEY] = False
    stream = meta.get(_STREAM_KEY)
    try:
        click.echo(json.dumps(value, indent=2), file=stream)
    except BrokenPipeError:  # which click handles; Python would report it again when it flushes the stream at exit
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
        raise


def json_option(what: str) -> Callable[[_F], _F]:
    """Return the option ``--json``, whose help text is "Print ``what`` as JSON, for scripts."."""
    return click.option(_JSON_OPTION, "as_json", is_flag=True, help=f"Print {what} as JSON, for scripts.")


def _reserve_stdout(context: click.Context) -> None:
    """Reserve standard output for :func:`echo_json`; other output goes to standard error until the process exits.

    The app and its exporters, such as OpenTelemetry's console exporter, may write to standard output, even at exit.
    Does nothing if standard output is closed or has no file descriptor, as in tests.
    """
    if sys.stdout is None:
        return
    with suppress(OSError):
        output = sys.stdout.fileno()
        error = os.open(os.devnull, os.O_WRONLY) if sys.stderr is None else sys.stderr.fileno()
        sys.stdout.flush()
        context.meta[_STREAM_KEY] = os.fdopen(os.dup(output), "w", encoding="utf-8")
        os.dup2(error, output)


def _message(error: BaseException) -> str:
    return error.format_message() if isinstance(error, click.ClickException) else f"{type(error).__name__}: {error}"
