"""``preview``: show what an app would send to CloudWatch."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import click
from flask import Flask
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from werkzeug.routing import Rule

from otel_cloudwatch_flask.commands.shared.command import EXIT_PROBLEM, Command, CommandError, echo_json, json_option
from otel_cloudwatch_flask.commands.shared.document import document_from
from otel_cloudwatch_flask.commands.shared.request_file import Request, read_requests
from otel_cloudwatch_flask.commands.shared.user_app import (
    UserApp,
    exporters_without_reader,
    load_user_app,
    traceback_option,
)
from otel_cloudwatch_flask.config import sdk_is_disabled
from otel_cloudwatch_flask.observation.record import Observation
from otel_cloudwatch_flask.sdk.exporter import live_exporters
from otel_cloudwatch_flask.sdk.reader import live_readers
from otel_cloudwatch_flask.terminal import counted, echo_table, escaped, number, terminal_width

_FIGURES = ("samples", "sum", "p50", "p90", "p99")
_LIVE_PAGE = "cloudwatch_live_page."
_FLUSH_SECONDS = 10.0
_heading_of = itemgetter("namespace", "metric_name", "unit")


@dataclass(frozen=True, slots=True)
class RequestResult:
    """The response status of a request. If it raised an exception, ``status`` is ``None``, and ``error`` is set."""

    method: str
    path: str
    status: int | None
    error: str | None = None


@click.command(cls=Command)
@click.argument("paths", nargs=-1)
@click.option(
    "--requests", "file", metavar="FILE", help="File with one request per line (METHOD /path [body]), or a HAR file."
)
@click.option("--times", type=click.IntRange(1, 10_000), default=1, help="Number of times to make each request.")
@json_option("the metrics")
@traceback_option
@click.pass_context
def command(context: click.Context, paths: tuple[str, ...], file: str | None, times: int, *, as_json: bool) -> None:
    """Preview what your app would send to CloudWatch.

    Uses Flask's test client to send a GET request to each of PATHS, and to send the requests in the --requests file. If
    neither is given, makes a request to every GET route that has no variable part. Your views really run: choose paths
    without side effects, or use a test database.

    Nothing is sent to CloudWatch, but the app's other exporters export as usual.

    \b
        flask --app shop cloudwatch preview
        flask --app shop cloudwatch preview / "/search?q=tea" --times 20
        flask --app shop cloudwatch preview --requests requests.txt
        flask --app shop cloudwatch preview --json | flask cloudwatch cost --from -

    Exit status: 0 if metrics would be published, 1 if not, 2 if the preview cannot run.
    """  # noqa: D301 - click takes \b for "do not wrap"
    user_app = load_user_app(context)
    app = user_app.app
    if app is None:
        raise CommandError("No app to preview: run flask --app YOUR_APP cloudwatch preview.")
    _require_dry_run(user_app)
    requests = [*map(Request, paths), *(() if file is None else read_requests(file))]
    results, document = observe(app, requests or [*map(Request, requestable_paths(app))], times)
    if as_json:
        # A preview cannot know how often the app will call CloudWatch in production.
        echo_json({**document, "requests_per_second": None, "visits": list(map(asdict, results))})
    else:
        _show(results, document)
    context.exit(0 if document["series"] else EXIT_PROBLEM)


def requestable_paths(app: Flask) -> list[str]:
    """Return the paths of all routes that accept GET and have no variable part, except the live page's.

    Raises :class:`CommandError` if the app has no such route.
    """
    paths = sorted({rule.rule for rule in app.url_map.iter_rules() if _is_requestable(rule)})
    if not paths:
        raise CommandError("The app has no GET route without a variable part: pass the paths to request.")
    return paths


def _is_requestable(rule: Rule) -> bool:
    # The live page is part of this package, not of the app.
    return "GET" in (rule.methods or ()) and not rule.arguments and not rule.endpoint.startswith(_LIVE_PAGE)


def observe(app: Flask, requests: Sequence[Request], times: int) -> tuple[list[RequestResult], dict[str, Any]]:
    """Make all requests ``times`` times, and observe the metrics.

    Returns the results, and a document of the series that would be published.
    """
    observation = Observation()
    # Measurements made during the requests may reach any exporter in the process, not only the reporter's.
    for exporter in live_exporters():
        exporter.watch(observation.observe)
    results = [_result(app, request) for _ in range(times) for request in requests]
    _flush()
    return results, observation.document()


def _result(app: Flask, request: Request) -> RequestResult:
    try:
        with app.test_client().open(**request._asdict()) as response:
            return RequestResult(request.method, request.path, response.status_code)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's views may raise anything
        return RequestResult(request.method, request.path, None, f"{type(error).__name__}: {error}")


def _flush() -> None:
    """Export all measurements, including any that the SDK's own readers collect for a CloudWatch exporter.

    Raises :class:`CommandError` if any of the global meter provider's readers fails, because they are flushed together.
    """
    for reader in live_readers():
        reader.flush(_FLUSH_SECONDS)
    provider = metrics.get_meter_provider()
    if exporters_without_reader() and isinstance(provider, MeterProvider):
        try:
            provider.force_flush()
        except Exception as error:  # the SDK raises no subclass, and lists the readers' errors in several lines
            message = escaped(" ".join(str(error).split()), 500)
            raise CommandError(f"The metrics of the app cannot be collected: {message}") from error


def _require_dry_run(user_app: UserApp) -> None:
    exporters = live_exporters()
    if not all(exporter.settings.dry_run for exporter in exporters):
        source = user_app.source("DRY_RUN")
        raise CommandError(f"{source} is false, so the preview would be sent to CloudWatch: remove that setting.")
    if sdk_is_disabled(user_app.environ):
        reason = "OTEL_SDK_DISABLED is true"
    elif not user_app.value("ENABLED"):
        reason = f"{user_app.source('ENABLED')} is false"
    elif not exporters:
        reason = "it has no CloudWatchMetricsReporter and no exporter"
    else:
        return
    raise CommandError(f"The app publishes nothing: {reason}. Run flask --app YOUR_APP cloudwatch doctor for details.")


def _show(results: Sequence[RequestResult], document: Mapping[str, Any]) -> None:
    _show_results(results)
    # Sorted first, because exporters with different namespaces may have sent their series in turns.
    series = sorted(document["series"], key=lambda each: (_heading_of(each), sorted(each["dimensions"].items())))
    for namespace, of_namespace in groupby(series, itemgetter("namespace")):
        click.echo()
        click.secho(f"Namespace {escaped(namespace, 60)}", bold=True)
        for (_, name, unit), group in groupby(of_namespace, _heading_of):
            _show_metric(name, unit, list(group))
    click.echo()
    click.echo(_summary(document))


def _show_results(results: Sequence[RequestResult]) -> None:
    for result, count in Counter(results).items():
        outcome = escaped(result.error, 60) if result.error else str(result.status)
        times = f" ({count} times)" if count > 1 else ""
        click.echo(f"{escaped(result.method, 10)} {escaped(result.path, terminal_width() - 40)} {outcome}{times}")


def _show_metric(name: str, unit: str, series: list[Mapping[str, Any]]) -> None:
    """Print the dimensions that all series have in common, and a table of the series with their other dimensions."""
    unit_text = "without unit" if unit == "None" else f"in {unit}"
    click.echo()
    click.echo(click.style(escaped(name, 60), fg="cyan") + " " + escaped(unit_text, 40))
    pairs = [set(each["dimensions"].items()) for each in series]
    common = set.intersection(*pairs)
    if common:
        text = ", ".join(f"{escaped(key, 40)}={escaped(value, 60)}" for key, value in sorted(common))
        click.echo(click.wrap_text(text, terminal_width(), "  ", "  "))
    varying = sorted(dict(set.union(*pairs) - common))
    rows = [_row(each, varying) for each in series]
    right = range(len(varying), len(varying) + len(_FIGURES))
    echo_table([*(escaped(key, 30) for key in varying), *_FIGURES], rows, right=right, indent=2)


def _row(series: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    values = [escaped(series["dimensions"].get(name, "(none)"), 60) for name in names]
    return [*values, *map(number, map(series.get, _FIGURES))]


def _summary(document: Mapping[str, Any]) -> str:
    metrics = {series.metric for series in document_from(document).series}
    if not metrics:
        return "These requests would publish no metrics."
    writes_emf = any(exporter.writes_emf for exporter in live_exporters())
    requests = "EMF lines" if writes_emf else counted(document["requests"], "PutMetricData request")
    return f"{counted(len(metrics), 'CloudWatch metric')} in {requests}, {document['bytes']:,} bytes. Nothing was sent."
