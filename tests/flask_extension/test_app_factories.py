"""App factories: thousands of apps created and dropped in one process."""

import json
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import gc, json, logging, sys, threading, time
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from otel_cloudwatch_flask import CloudWatchMetricsReporter

class Counting:
    orders = requests = 0
    lock = threading.Lock()

    def put_metric_data(self, **request):
        with self.lock:
            for datum in request["MetricData"]:
                self.orders += sum(datum["Counts"]) if datum["MetricName"] == "Orders" else 0
                self.requests += sum(datum["Counts"]) if datum["MetricName"] == "http.server.duration" else 0

class Warnings(logging.Handler):
    messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())

def memory_mib():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

logging.getLogger().addHandler(Warnings(logging.WARNING))
cloudwatch, provider, apps = Counting(), MeterProvider(shutdown_on_exit=False), int(sys.argv[1])
for number in range(apps):
    app = Flask("shop")
    reporter = CloudWatchMetricsReporter(app, "Shop", cloudwatch, meter_provider=provider, instrument=True)
    app.add_url_rule("/", view_func=lambda reporter=reporter: reporter.add_metric("Orders", 1) or "ordered")
    app.test_client().get("/", buffered=True)
    del app, reporter
    if number % 20 == 0:
        gc.collect()
    if number == apps // 4:
        before = memory_mib()
gc.collect()
deadline = time.monotonic() + 20
while time.monotonic() < deadline and (cloudwatch.requests < apps or threading.active_count() > 1):
    time.sleep(0.01)
gc.collect()
print(json.dumps([cloudwatch.orders, cloudwatch.requests, threading.active_count(), memory_mib() - before,
                  Warnings.messages]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_two_thousand_apps() -> None:
    """Every metric is delivered, no thread remains, memory does not grow, and no warning is logged."""
    apps = 2000
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(apps)],
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    orders, requests, threads, grown_mib, warnings = json.loads(ended.stdout)
    assert (orders, requests, threads, warnings) == (apps, apps, 1, [])
    assert grown_mib < 5


DROPPED_AT_THE_END = """
import gc, threading, time
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from otel_cloudwatch_flask import CloudWatchMetricsReporter

is_called = threading.Event()

class Slow:
    def put_metric_data(self, **request):
        is_called.set()
        time.sleep(0.5)
        print(*(datum["MetricName"] for datum in request["MetricData"]), flush=True)

app, provider = Flask("shop"), MeterProvider(shutdown_on_exit=False)
reporter = CloudWatchMetricsReporter(app, "Shop", Slow(), meter_provider=provider, flush="interval")
reporter.add_metric("Orders", 1)
del app, reporter
gc.collect()
assert is_called.wait(30)
"""


def test_the_exit_waits_for_dropped_apps() -> None:
    """Metrics of a dropped app are delivered even if the process exits while they are being flushed."""
    ended = subprocess.run(
        [sys.executable, "-c", DROPPED_AT_THE_END], capture_output=True, text=True, check=True, timeout=60
    )
    assert (ended.stdout.split(), ended.stderr) == (["Orders"], "")
