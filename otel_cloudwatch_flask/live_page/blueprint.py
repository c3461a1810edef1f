"""Serve the page, its assets and its JSON data under one path. Unauthorized requests get a 404 response."""

import json
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any, Final

from flask import Blueprint, Flask, Response, abort, current_app, request
from markupsafe import escape
from werkzeug.exceptions import MethodNotAllowed, NotFound

from otel_cloudwatch_flask.config import Settings
from otel_cloudwatch_flask.facade.wsgi import disable_flush
from otel_cloudwatch_flask.live_page.access import is_authorized
from otel_cloudwatch_flask.live_page.messages import MESSAGES
from otel_cloudwatch_flask.live_page.observations import observation_of
from otel_cloudwatch_flask.live_page.page_data import page_document
from otel_cloudwatch_flask.model.rules import Rules
from otel_cloudwatch_flask.observation.record import Observation
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter

_NAME: Final = "cloudwatch_live_page"
_ASSETS: Final = {
    "live.css": "text/css",
    "uplot.css": "text/css",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(
        [f"{name}.js" for name in ("live", "text", "model", "links", "table", "charts", "detail", "uplot")],
        "text/javascript",
    ),
}

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
}


def serve_live_page(app: Flask, settings: Settings, exporter: CloudWatchMetricExporter | None) -> None:
    """Register the page with ``app``. If ``exporter`` is ``None``, the page shows that metrics are disabled."""
    MESSAGES.attach()
    app.register_blueprint(LivePage(settings, exporter).blueprint())


def url_pattern(settings: Settings) -> str:
    """Return a regular expression that matches the page's URLs, for excluding them from instrumentation."""
    return f"^https?://[^/]+/(?:[^?]*/)?{re.escape(settings.live_page_path[1:])}(?:[/?]|$)"


class LivePage:
    """The live page of one app."""

    def __init__(self, settings: Settings, exporter: CloudWatchMetricExporter | None) -> None:
        self._settings = settings
        self._views: dict[str, Callable[[], Response]] = {
            "": self._page,
            "data.json": partial(_json, {"enabled": False}),
            **{name: partial(_asset, name) for name in _ASSETS},
        }
        if exporter is not None:
            observation, rules = observation_of(exporter), Rules(exporter.settings.rules)
            self._views["data.json"] = partial(self._data, exporter, observation, rules)
            self._views["series.json"] = partial(_series, exporter, observation)

    def blueprint(self) -> Blueprint:
        """Return the blueprint that serves the page, its data and its assets."""
        blueprint = Blueprint(_NAME, __name__, url_prefix=self._settings.live_page_path)
        for rule in ("", "/<path:resource>"):
            blueprint.add_url_rule(
                rule,
                "page",
                self._respond,
                methods=("GET", "HEAD"),
                provide_automatic_options=False,
                # A redirect from "/_cloudwatch/" or "//_cloudwatch" would reveal that the page exists.
                strict_slashes=True,
                merge_slashes=False,
            )
        blueprint.before_app_request(self._hide_from_other_methods)
        return blueprint

    def _hide_from_other_methods(self) -> None:
        """Answer methods other than GET and HEAD with 404, as for an unknown path. A 405 would reveal the page."""
        is_own = f"{request.path}/".startswith(f"{self._settings.live_page_path}/")
        if is_own and isinstance(request.routing_exception, MethodNotAllowed):
            request.routing_exception = NotFound()

    def _respond(self, resource: str = "") -> Response:
        if not is_authorized(self._settings.live_page_check, reads_data=resource.endswith(".json")):
            abort(404)
        # Polling the page must not cause flushes, which are billed.
        disable_flush(request.environ)
        view = self._views.get(resource) or abort(404)
        response = view()
        response.headers.update(_HEADERS)
        return response

    def _page(self) -> Response:
        root = request.script_root + self._settings.live_page_path
        html = _read("page.html").decode().replace("{{root}}", escape(root))
        return Response(html, mimetype="text/html")

    def _data(self, exporter: CloudWatchMetricExporter, observation: Observation, rules: Rules) -> Response:
        begun = time.perf_counter()
        # The page sends the latest sequence number of each process. The next request may reach any of them.
        observed = observation.changes(since=request.args.get(observation.instance, 0, type=int))
        messages = MESSAGES.documents()
        document = page_document(observed, self._settings, exporter, rules, messages, is_debug=current_app.debug)
        # Doubled, because encoding the document takes about as long as computing it. The page polls less often if this
        # number is high.
        return _json({"enabled": True, **document, "work_seconds": 2 * (time.perf_counter() - begun)})


def _series(exporter: CloudWatchMetricExporter, observation: Observation) -> Response:
    """Return the requested series, or only this process's instance ID if the series is unknown here.

    Series IDs are specific to a process, and the next request may reach another process.
    """
    try:
        series = observation.series(request.args.get("id", -1, type=int))
    except LookupError:
        return _json({"instance": observation.instance})
    return _json({**series, "kind": exporter.kind_of(series["metric_name"])})


def _json(document: Mapping[str, Any]) -> Response:
    return Response(json.dumps(document, separators=(",", ":")), mimetype="application/json")


def _asset(name: str) -> Response:
    return Response(_read(name), mimetype=_ASSETS[name])


@lru_cache
def _read(name: str) -> bytes:
    return (files("otel_cloudwatch_flask.live_page") / "assets" / name).read_bytes()
