"""The time that metrics add to the invocations of a Lambda function, with both outputs.

Each process is an execution environment: it imports the app, and handles invocations through ``apig-wsgi``. The API
output calls a CloudWatch emulator on loopback, so its network time is almost zero. Processes alternate, and figures
are medians.
"""

import os
import subprocess
import sys
from functools import partial
from typing import Final

from rich.table import Table

from benchmarks.harness import interleaved, medians
from benchmarks.report import Claim, Report, table
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch

_NONE: Final = "no metrics"
_WAYS: Final = (_NONE, "emf", "api")
_WARM_INVOCATIONS: Final = 50
_PROGRAM: Final = """
import time
begun = time.perf_counter()
import statistics, sys
import apig_wsgi
from flask import Flask
app = Flask("shop")
if sys.argv[1] == "no metrics":
    def add_metric(*arguments): pass
else:
    from otel_cloudwatch_flask import CloudWatchMetricsReporter
    add_metric = CloudWatchMetricsReporter(app, "Shop", output=sys.argv[1]).add_metric
@app.get("/")
def index():
    add_metric("Orders", 1, "Count", {"Page": "Index"})
    return "ordered"
handle = apig_wsgi.make_lambda_handler(app)
event = {"version": "1.0", "httpMethod": "GET", "path": "/", "headers": {}, "multiValueHeaders": {}, "body": None,
         "queryStringParameters": {}, "multiValueQueryStringParameters": {}, "requestContext": {},
         "isBase64Encoded": False}
handle(event, None)
cold, warm = time.perf_counter() - begun, []
for _ in range(int(sys.argv[2])):
    begun = time.perf_counter()
    handle(event, None)
    warm.append(time.perf_counter() - begun)
print(1000 * cold, 1000 * statistics.median(warm), file=sys.stderr)
"""


def run(*, short: bool) -> Report:
    """Start environments in alternation, and return the report."""
    with LocalCloudWatch() as cloudwatch:
        measures = {way: partial(_measured, way, cloudwatch) for way in _WAYS}
        # The first round compiles, as pip does during installation.
        figures = interleaved(measures, 3 if short else 15, warm_up_rounds=1)
    typical = {way: medians(each) for way, each in figures.items()}
    added = {way: [ms - without for ms, without in zip(typical[way], typical[_NONE], strict=True)] for way in _WAYS}
    claims = [
        Claim("Lambda, cold start: added by EMF / by the API", added["emf"][0] / added["api"][0], at_most=0.7),
        Claim("Lambda, warm invocation: added by EMF", added["emf"][1], at_most=1, unit=" ms"),
    ]
    return Report([_table(typical, added)], claims)


def _measured(way: str, cloudwatch: LocalCloudWatch) -> tuple[float, float]:
    """Return the time of the first invocation, including imports, and the median of the others, in milliseconds."""
    environment = {**os.environ, **cloudwatch.environment(), "AWS_LAMBDA_FUNCTION_NAME": "shop"}
    command = [sys.executable, "-W", "ignore", "-c", _PROGRAM, way, str(_WARM_INVOCATIONS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    cold, warm = map(float, done.stderr.split()[-2:])
    return cold, warm


def _table(typical: dict[str, list[float]], added: dict[str, list[float]]) -> Table:
    rows = (
        (way, f"{cold:.0f}", f"{added[way][0]:+.0f}", f"{warm:.2f}", f"{added[way][1]:+.2f}")
        for way, (cold, warm) in typical.items()
    )
    headings = ("", "cold start", "added", "warm invocation", "added")
    return table("Lambda invocations: milliseconds, medians", headings, rows)
