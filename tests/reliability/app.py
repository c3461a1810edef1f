"""The app that the servers run: it counts requests and sums their numbers."""

import dataclasses
import os
from typing import Any

from flask import Flask

from otel_cloudwatch_flask import CloudWatchMetricsReporter


def create_app() -> Flask:
    """Make an app with every kind of metric, recorded by ``add_metric`` and by OpenTelemetry's instrumentation."""
    app = Flask("counting")
    reporter = CloudWatchMetricsReporter(app, "Counting", instrument=True)

    @app.get("/count/<int:number>")
    def count(number: int) -> dict[str, int]:
        reporter.add_metric("Requests", 1, "Count")
        reporter.add_metric("Numbers", number)
        return {"pid": os.getpid()}

    @app.get("/stats")
    def stats() -> dict[str, Any]:
        return {"pid": os.getpid(), **dataclasses.asdict(reporter.stats())}

    return app


application = create_app() if os.environ.get("COUNTING_APP") == "loaded" else None
