"""The jobs that the workers run: each counts itself with ``add_metric`` and with an OpenTelemetry instrument."""

import os
from pathlib import Path

from flask import Flask
from opentelemetry.metrics import get_meter

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.sdk import reader

# Longer than in production, because on a busy machine the first call of a new process can take longer than 10 seconds.
reader.EXIT_TIMEOUT_SECONDS = 50.0  # type: ignore[misc]

reporter = CloudWatchMetricsReporter(Flask("jobs"), "Jobs", flush="interval")
counter = get_meter("tests").create_counter("counted")


def count() -> None:
    """Count a job, and then record in a file that it has finished."""
    reporter.add_metric("Jobs", 1, "Count")
    counter.add(1)
    with Path(os.environ["FINISHED_JOBS"]).open("a") as finished:
        finished.write(".")
