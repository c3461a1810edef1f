"""What the server at hand needs, so that threads run and forks are seen: the doctor's third page.

Found by what lies in the directory and stands in the environment; nothing of it is run.
"""

import configparser
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from otel_cloudwatch_flask.commands.doctor_checks.check import Check
from otel_cloudwatch_flask.config import is_in_lambda

SECTION: Final = "Server"
_THREAD_OPTIONS: Final = ("enable-threads", "threads")
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def server_checks(environ: Mapping[str, str], directory: Path, *, flush: str) -> Iterator[Check]:
    """One finding for each server that there are traces of, or one that says what the known ones need."""
    found = [
        *_lambda_checks(environ, flush),
        *_uwsgi_checks(directory, flush),
        *_gunicorn_checks(environ, directory),
        *_gevent_checks(),
    ]
    if not found:
        finding = "No server's configuration here. Threads and forks are looked after; only uWSGI needs an option."
        found = [Check(SECTION, "right", finding + " It is enable-threads.")]
    yield from found


def _lambda_checks(environ: Mapping[str, str], flush: str) -> Iterator[Check]:
    if not is_in_lambda(environ):
        return
    if flush == "sync":
        yield Check(SECTION, "right", "AWS Lambda: each invocation sends its metrics before it ends.")
    else:
        remedy = "Leave FLUSH out, and it is sync."
        yield Check(SECTION, "wrong", f"AWS Lambda with FLUSH={flush}: nothing runs between invocations.", remedy)


def _uwsgi_checks(directory: Path, flush: str) -> Iterator[Check]:
    for path in sorted(directory.glob("*.ini")):
        if (options := _uwsgi_options(path)) is not None:
            yield _thread_check(path, options, flush)
        if options and "die-on-term" in options and "hook-master-start" not in options:
            finding = f"uWSGI ({path.name}) has die-on-term: busy workers end without their last flush."
            yield Check(SECTION, "wrong", finding, "Write hook-master-start = unix_signal:15 gracefully_kill_them_all.")


def _thread_check(path: Path, options: Mapping[str, str], flush: str) -> Check:
    if any(options.get(name, "false").lower() not in _FALSE for name in _THREAD_OPTIONS):
        return Check(SECTION, "right", f"uWSGI ({path.name}): threads run.")
    if flush == "sync":
        return Check(SECTION, "right", f"uWSGI ({path.name}): no threads, and FLUSH=sync needs none.")
    remedy = "Write enable-threads = true, or set FLUSH to sync."
    return Check(SECTION, "wrong", f"uWSGI ({path.name}) has no enable-threads: nothing is sent.", remedy)


def _uwsgi_options(path: Path) -> dict[str, str] | None:
    parser = configparser.ConfigParser(strict=False, allow_no_value=True, interpolation=None)
    try:
        parser.read(path, "utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        return None
    return {name: value or "true" for name, value in parser["uwsgi"].items()} if "uwsgi" in parser else None


def _gunicorn_checks(environ: Mapping[str, str], directory: Path) -> Iterator[Check]:
    traces = [
        *(["gunicorn.conf.py"] if (directory / "gunicorn.conf.py").exists() else []),
        *(["GUNICORN_CMD_ARGS"] if environ.get("GUNICORN_CMD_ARGS") else []),
        *(["installed"] if importlib.util.find_spec("gunicorn") else []),
    ]
    if traces:
        finding = f"gunicorn ({', '.join(traces)}): any worker class, with and without preload, needs nothing."
        yield Check(SECTION, "right", finding + " Each worker has its own thread and connection.")


def _gevent_checks() -> Iterator[Check]:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return
    if monkey.is_module_patched("threading"):
        yield Check(SECTION, "right", "gevent: threading is patched, and the reader is a greenlet.")
    else:
        remedy = "Call gevent.monkey.patch_all() before everything else, if the server does not."
        yield Check(SECTION, "unknown", "gevent is imported, and threading is not patched.", remedy)
