"""Check whether the server allows the reader's thread to run, and the final flush to complete at shutdown.

Servers are detected from configuration files in the working directory, environment variables, and installed or imported
modules. Configuration files are never executed.
"""

import configparser
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from otel_cloudwatch_flask.commands.doctor_checks.check import Check
from otel_cloudwatch_flask.config import is_in_lambda

_THREAD_OPTIONS: Final = ("enable-threads", "threads")
_LAMBDA_DELIVERY: Final = {
    "api": "sends its metrics before it ends. OUTPUT=emf would write them to the log instead, without the wait.",
    "emf": "writes its metrics to the log before it ends. If the log does not go to CloudWatch Logs, use OUTPUT=api.",
}
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def server_checks(environ: Mapping[str, str], directory: Path, *, flush: str, output: str = "api") -> Iterator[Check]:
    """Check every detected server.

    If none is detected, yield a single check, which says what uWSGI needs.
    """
    found = [
        *_lambda_checks(environ, flush, output),
        *_uwsgi_checks(directory, flush),
        *_gunicorn_checks(),
        *_gevent_checks(),
    ]
    finding = "No server configuration was found. If the app runs under uWSGI, set enable-threads."
    yield from found or [Check("ok", finding)]


def _lambda_checks(environ: Mapping[str, str], flush: str, output: str) -> Iterator[Check]:
    if not is_in_lambda(environ):
        return
    if flush == "sync":
        yield Check("ok", f"AWS Lambda: each invocation {_LAMBDA_DELIVERY[output]}")
    else:
        # Lambda freezes the process between invocations, so a background thread may never send.
        finding = f"AWS Lambda with FLUSH={flush}: no thread runs between invocations."
        yield Check("problem", finding, "Remove FLUSH; the default on Lambda is sync.")


def _uwsgi_checks(directory: Path, flush: str) -> Iterator[Check]:
    for path in sorted(directory.glob("*.ini")):
        options = _uwsgi_options(path)
        if options is None:
            continue
        yield _thread_check(path, options, flush)
        if "die-on-term" in options and "hook-master-start" not in options:
            finding = f"uWSGI ({path.name}) sets die-on-term: busy workers are killed before their final flush."
            yield Check("problem", finding, "Add hook-master-start = unix_signal:15 gracefully_kill_them_all.")


def _thread_check(path: Path, options: Mapping[str, str], flush: str) -> Check:
    if any(options.get(name, "false").lower() not in _FALSE for name in _THREAD_OPTIONS):
        return Check("ok", f"uWSGI ({path.name}): threads are enabled.")
    if flush == "sync":
        return Check("ok", f"uWSGI ({path.name}): threads are disabled, but FLUSH=sync needs none.")
    remedy = "Set enable-threads = true, or FLUSH=sync."
    return Check("problem", f"uWSGI ({path.name}) does not set enable-threads: nothing is sent.", remedy)


def _uwsgi_options(path: Path) -> dict[str, str] | None:
    # uWSGI allows repeated options and options without a value, and uses "%" for its own variables.
    parser = configparser.ConfigParser(strict=False, allow_no_value=True, interpolation=None)
    try:
        parser.read(path, "utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        # Other programs have .ini files that configparser cannot read.
        return None
    return {name: value or "true" for name, value in parser["uwsgi"].items()} if "uwsgi" in parser else None


def _gunicorn_checks() -> Iterator[Check]:
    if importlib.util.find_spec("gunicorn"):
        finding = "gunicorn is installed. It needs no configuration, but do not use --preload with UvicornWorker."
        yield Check("ok", finding)


def _gevent_checks() -> Iterator[Check]:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return
    if monkey.is_module_patched("threading"):
        yield Check("ok", "gevent: threading is patched, so the reader runs in a greenlet.")
    else:
        remedy = "Unless the server does it, call gevent.monkey.patch_all() before all other imports."
        yield Check("unknown", "gevent is imported, but threading is not patched.", remedy)
