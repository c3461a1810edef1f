"""``preview``: what CloudWatch would get of an app's requests."""

import logging
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import click
from flask import Flask
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from werkzeug.routing import Rule

from otel_cloudwatch_flask.commands.shared.document import document_from
from otel_cloudwatch_flask.commands.shared.terminal import echo_table, inert, number, terminal_width
from otel_cloudwatch_flask.commands.shared.usage import EXIT_PROBLEM, Command, Unusable, echo_json, json_option
from otel_cloudwatch_flask.commands.shared.user_app import UserApp, loaded_app
from otel_cloudwatch_flask.flask_extension.reporter_reader import programs_exporters
from otel_cloudwatch_flask.observation.record import Observation
from otel_cloudwatch_flask.sdk.exporter import live_exporters
from otel_cloudwatch_flask.sdk.reader import live_readers

_FIGURES = ("samples", "sum", "p50", "p90", "p99")
_LIVE_PAGE = "cloudwatch_live_page."
_FLUSH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Visit:
    """A path that was visited, and the status of the answer; ``error`` is what the view raised instead of one."""

    path: str
    status: int | None
    error: str | None = None


@click.command(cls=Command)
@click.argument("paths", nargs=-1)
@click.option("--times", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Visits of each path.")
@json_option("the document that cost, dashboard and alarms read")
@click.pass_context
def command(context: click.Context, paths: tuple[str, ...], times: int, *, as_json: bool) -> None:
    """See what CloudWatch would get of your app.

    Visits each PATH, or without one every route of the app that has GET and no variable part, through Flask's test
    client. What the app measures goes the whole way that it goes in production, but for the network: nothing is sent
    to CloudWatch. The views themselves do what they do: only GET is used, so give the PATHS if a GET of yours changes
    something. Other exporters of the app work as ever.

    \b
        flask --app shop cloudwatch preview
        flask --app shop cloudwatch preview / "/search?q=tea" --times 20
        flask --app shop cloudwatch preview --json | flask cloudwatch cost --from -

    Exits with 0, with 1 if nothing would be published, or with 2 if there is nothing to look at.
    """  # noqa: D301 - click takes \b for "do not wrap"
    user_app = loaded_app(context)
    app = user_app.app
    if app is None:
        raise Unusable("There is no app to look at: run flask --app YOUR_APP cloudwatch preview.")
    _require_dry_run(user_app)
    visits, document = observe(app, paths or visitable_paths(app), times)
    if as_json:
        # How often production will call CloudWatch is nothing that a preview could know.
        echo_json({**document, "requests_per_second": None, "visits": [asdict(visit) for visit in visits]})
    else:
        _show(visits, document)
    context.exit(0 if document["series"] else EXIT_PROBLEM)


def visitable_paths(app: Flask) -> list[str]:
    """The paths of the routes that have GET and no variable part, of which there must be one."""
    paths = sorted({rule.rule for rule in app.url_map.iter_rules() if _is_visitable(rule)})
    if not paths:
        raise Unusable("The app has no route with GET and no variable part: give the paths to visit.")
    return paths


def _is_visitable(rule: Rule) -> bool:
    """The live page is none of the app's."""
    return "GET" in (rule.methods or ()) and not rule.arguments and not rule.endpoint.startswith(_LIVE_PAGE)


def observe(app: Flask, paths: Sequence[str], times: int) -> tuple[list[Visit], dict[str, Any]]:
    """Visit the paths, and look at what every CloudWatch exporter of the process has published of that."""
    observation = Observation()
    for exporter in live_exporters():
        exporter.watch(observation.observe)
    visits = [_visit(app, path) for _ in range(times) for path in paths]
    _flush()
    return visits, observation.document()


def _visit(app: Flask, path: str) -> Visit:
    try:
        with app.test_client() as client, client.get(path) as response:
            return Visit(path, response.status_code)
    except Exception as error:  # noqa: BLE001 - the boundary to the user's views, which raise whatever they like
        return Visit(path, None, f"{type(error).__name__}: {error}")


def _flush() -> None:
    """Export what was measured: our readers, and the SDK's own if they have an exporter of ours."""
    for reader in live_readers():
        reader.flush(_FLUSH_SECONDS)
    provider = metrics.get_meter_provider()
    are_under_other_readers = {*programs_exporters()} - {reader.exporter for reader in live_readers()}
    if are_under_other_readers and isinstance(provider, MeterProvider):
        provider.force_flush()


def _require_dry_run(user_app: UserApp) -> None:
    exporters = live_exporters()
    if not all(exporter.settings.dry_run for exporter in exporters):
        source = user_app.source("DRY_RUN")
        raise Unusable(f"{source} is false, so that a preview would be sent to CloudWatch: leave it out.")
    if not user_app.value("ENABLED") or not exporters:
        source = user_app.source("ENABLED")
        reason = f"{source} is false" if source else "it has no CloudWatchMetricsReporter and no exporter"
        raise Unusable(f"The app publishes nothing: {reason}. flask cloudwatch doctor says more.")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)


def _show(visits: Sequence[Visit], document: Mapping[str, Any]) -> None:
    for line in _visit_lines(visits):
        click.echo(line)
    for namespace, series in groupby(document["series"], lambda each: each["namespace"]):
        _show_namespace(namespace, list(series))
    click.echo()
    click.echo(_summary(document))


def _visit_lines(visits: Sequence[Visit]) -> Iterator[str]:
    for visit, count in Counter(visits).items():
        outcome = inert(visit.error, 60) if visit.error else str(visit.status)
        times = f" ({count} times)" if count > 1 else ""
        yield f"GET {inert(visit.path, terminal_width() - 40)} {outcome}{times}"


def _show_namespace(namespace: str, series: Iterable[Mapping[str, Any]]) -> None:
    click.echo()
    click.secho(f"Namespace {inert(namespace, 60)}", bold=True)
    every = sorted(series, key=lambda each: (each["metric_name"], each["unit"], sorted(each["dimensions"].items())))
    for (name, unit), group in groupby(every, lambda each: (each["metric_name"], each["unit"])):
        _show_metric(name, unit, list(group))


def _show_metric(name: str, unit: str, series: list[Mapping[str, Any]]) -> None:
    """A title with what all series have in common, and a table by what tells them from each other."""
    measured = "without unit" if unit == "None" else f"in {unit}"
    click.echo()
    click.echo(click.style(inert(name, 60), fg="cyan") + " " + inert(measured, 40))
    pairs = [set(each["dimensions"].items()) for each in series]
    common = set.intersection(*pairs)
    for line in _wrapped(sorted(common)):
        click.echo(f"  {line}")
    varying = sorted(dict(set.union(*pairs) - common))
    rows = [_row(each, varying) for each in series]
    right = range(len(varying), len(varying) + len(_FIGURES))
    echo_table([*(inert(key, 30) for key in varying), *_FIGURES], rows, right=right, indent=2)


def _row(series: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    values = [inert(series["dimensions"].get(name, "(none)"), 60) for name in names]
    return [*values, *map(number, map(series.get, _FIGURES))]


def _wrapped(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The dimensions that all series of a metric have, on as many lines as they need."""
    text = ", ".join(f"{inert(key, 40)}={inert(value, 60)}" for key, value in pairs)
    return textwrap.wrap(text, terminal_width() - 2)


def _summary(document: Mapping[str, Any]) -> str:
    metrics = {series.metric for series in document_from(document).series}
    if not metrics:
        return "Nothing would be published: no view that was visited measured anything."
    return (
        f"{len(metrics)} CloudWatch metrics in {document['requests']} PutMetricData requests, {document['bytes']:,} "
        "bytes. Nothing was sent."
    )
