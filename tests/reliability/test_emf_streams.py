"""EMF lines from processes that are killed, and from many processes that share a pipe."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

from otel_cloudwatch_flask.testing import FakeCloudWatch
from tests.reliability.processes import PATIENCE_SECONDS, ROOT

ENVIRONMENTS = """
import os, signal, sys
import apig_wsgi
from flask import Flask
from tests.flask_extension.test_lambda import event
from otel_cloudwatch_flask import CloudWatchMetricsReporter

def invoke():
    app = Flask("shop")
    reporter = CloudWatchMetricsReporter(app)
    @app.get("/orders")
    def orders():
        reporter.add_metric("Orders", 1, "Count", {"Page": "Index"})
        return "ordered"
    answer = apig_wsgi.make_lambda_handler(app)(event("/orders"), None)
    os.kill(os.getpid(), signal.SIGKILL)

for number in range(int(sys.argv[1])):
    child = os.fork()
    if not child:
        invoke()
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
assert "boto3" not in sys.modules
"""

WRITERS = """
import sys, threading
from otel_cloudwatch_flask.delivery.emf import EmfEnvelope, EmfPut
from otel_cloudwatch_flask.model.datum import Datum, Series

process, documents = int(sys.argv[1]), int(sys.argv[2])

def write(thread):
    put, envelope = EmfPut(None), EmfEnvelope("Shop")
    for number in range(documents):
        text = "x" * (number * 37 % 1000)
        pairs = [(f"d{each}", text) for each in range(number % 4)]
        series = Series("Orders", (*pairs, ("writer", f"{process}-{thread}-{number}")), "Count")
        put(next(envelope.batches([Datum(series, 1_800_000_000, 1.0)])))

threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


def test_environments_that_are_killed_after_the_answer(scale: float, figures: Callable[..., None]) -> None:
    """Each Lambda environment is killed as soon as the handler returns, and every invocation is still counted."""
    number = int(20 * scale)
    environment = {
        **os.environ,
        "AWS_LAMBDA_FUNCTION_NAME": "shop",
        "AWS_REGION": "eu-west-1",
        "CLOUDWATCH_OUTPUT": "emf",
        "CLOUDWATCH_NAMESPACE": "Shop",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ENVIRONMENTS, str(number)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS * max(scale, 1),
        check=True,
    )
    cloudwatch = FakeCloudWatch()
    cloudwatch.stream.write(done.stdout)
    assert cloudwatch.validation_errors == []
    assert cloudwatch.sum("Orders", Page="Index") == number
    figures(invocations=number, counted=int(cloudwatch.sum("Orders")))


def test_many_processes_and_threads_write_to_one_pipe(scale: float, figures: Callable[..., None]) -> None:
    """No line is torn, lost or written twice."""
    processes, documents = 8, int(125 * scale)
    reader, writer = os.pipe()
    command = [sys.executable, "-c", WRITERS]
    children = [
        subprocess.Popen([*command, str(number), str(documents)], cwd=ROOT, stdout=writer)
        for number in range(processes)
    ]
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as output:
            lines = output.read().splitlines()
        assert [each.wait(PATIENCE_SECONDS) for each in children] == [0] * processes
    finally:
        for each in children:
            each.send_signal(signal.SIGKILL)
    names = Counter(json.loads(line)["writer"] for line in lines)
    assert len(names) == processes * 4 * documents
    assert set(names.values()) == {1}
    figures(documents=len(lines), bytes=sum(map(len, lines)), longest=max(map(len, lines)))
