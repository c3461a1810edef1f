"""The app that the tested servers run: it counts requests and sums their numbers."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, stream_with_context

from otel_cloudwatch_flask import CloudWatchMetricsReporter


def create_app() -> Flask:
    """Return an app with every kind of metric, recorded by ``add_metric`` and by OpenTelemetry's instrumentation."""
    app = Flask("counting")
    reporter = CloudWatchMetricsReporter(app, "Counting", instrument=True)

    @app.get("/count/<int:number>")
    def count(number: int) -> dict[str, int]:
        reporter.add_metric("Requests", 1, "Count")
        reporter.add_metric("Numbers", number)
        return {"pid": os.getpid()}

    @app.get("/stream/<int:number>")
    def stream(number: int) -> Response:
        reporter.add_metric("Requests", 1, "Count")

        def body() -> Iterator[str]:
            yield '{"pid": '
            reporter.add_metric("Numbers", number)
            yield f"{os.getpid()}}}"

        return Response(stream_with_context(body()), mimetype="application/json")

    @app.get("/stats")
    def stats() -> dict[str, Any]:
        return {"pid": os.getpid(), **dataclasses.asdict(reporter.stats())}

    return app


def create_a2wsgi_app() -> Any:
    """Return the app for an ASGI server, wrapped by a2wsgi, which closes response bodies."""
    from a2wsgi import WSGIMiddleware  # noqa: PLC0415 - only servers that need it import it

    return WSGIMiddleware(create_app())  # type: ignore[arg-type]  # its own types for WSGI


def create_asgiref_app() -> Any:
    """Return the app for an ASGI server, wrapped by asgiref, which never closes response bodies."""
    from asgiref.wsgi import WsgiToAsgi  # noqa: PLC0415 - only servers that need it import it

    return WsgiToAsgi(create_app())  # type: ignore[no-untyped-call]


application = create_app() if os.environ.get("COUNTING_APP") == "loaded" else None
