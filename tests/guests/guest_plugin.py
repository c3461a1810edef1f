"""A pytest plugin that adds this package to every Flask app or meter provider of another project's test suite.

Its directory is on the Python path of the suite. It is not imported as a module of ``tests``, because the suite may
have a package of that name.

At the end of the session it writes to ``--report`` which tests failed, what the tests recorded, and what was published.
"""

import functools
import gc
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader, Metric

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader, CloudWatchMetricsReporter
from otel_cloudwatch_flask.sdk.reader import live_readers
from otel_cloudwatch_flask.testing import FakeCloudWatch

Totals = dict[str, tuple[float, float]]
"""The number of samples of each metric, and their sum."""

_PATIENCE_SECONDS: Final = 60.0

cloudwatch: Final = FakeCloudWatch()
memories: Final[list[InMemoryMetricReader]] = []
"""OpenTelemetry's own readers, which record the metrics independently of this package."""
calls: Final = Counter[str]()
"""The number of calls of ``add_metric`` by the metric's name."""
outcomes: Final[dict[str, set[str]]] = {"passed": set(), "failed": set()}
_lock: Final = threading.Lock()


def provider_with_memory() -> MeterProvider:
    """Return a provider whose measurements are also kept in memory."""
    memories.append(InMemoryMetricReader())
    return MeterProvider(metric_readers=[memories[-1]], shutdown_on_exit=False)


def after(owner: Any, name: str, then: Callable[[Any], object]) -> None:
    """Call ``then`` with the object whenever the method ``name`` of a class returns."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def both(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        then(self)
        return result

    setattr(owner, name, both)


def instrument_apps(provider: MeterProvider) -> None:
    """Instrument every app with OpenTelemetry, without this package."""
    instrumentor: Any = FlaskInstrumentor()
    after(Flask, "__init__", lambda app: instrumentor.instrument_app(app, meter_provider=provider))


def report_from_apps(provider: MeterProvider, **options: Any) -> None:
    """Create a reporter for every app, and record a metric in every request and at the end of every app context."""

    def create_reporter(app: Flask) -> None:
        CloudWatchMetricsReporter(app, "Guests", cloudwatch, meter_provider=provider, **options)

    def record(name: str) -> None:
        with _lock:
            calls[name] += 1
        CloudWatchMetricsReporter.add_metric(name, 1, "Count", {"Guest": "Flask"})

    after(Flask, "__init__", create_reporter)
    after(Flask, "preprocess_request", lambda _app: record("GuestRequests"))
    after(Flask, "do_teardown_appcontext", lambda _app: record("GuestTeardowns"))


def read_providers() -> None:
    """Add a CloudWatch reader and an in-memory reader to every meter provider."""
    original = MeterProvider.__init__

    @functools.wraps(original)
    def with_readers(self: MeterProvider, metric_readers: Any = (), *args: Any, **kwargs: Any) -> None:
        memories.append(InMemoryMetricReader())
        ours = CloudWatchMetricReader(CloudWatchMetricExporter("Guests", client=cloudwatch))
        original(self, [*metric_readers, ours, memories[-1]], *args, **kwargs)

    MeterProvider.__init__ = with_readers  # type: ignore[method-assign]


ADDITIONS: Final[dict[str, Callable[[], object]]] = {
    "nothing": lambda: None,
    "instrumentation": lambda: instrument_apps(provider_with_memory()),
    "reporter": lambda: report_from_apps(provider_with_memory()),
    "sync": lambda: report_from_apps(provider_with_memory(), flush="sync"),
    "instrument": lambda: report_from_apps(provider_with_memory(), instrument=True),
    "reader": read_providers,
}
"""What can be added to a test suite. The first two additions show how the suite behaves without this package."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
    parser.addoption("--add", choices=ADDITIONS, default="nothing", help="what to add to each app or provider")
    parser.addoption("--report", type=Path, help="the JSON file for the results")


def pytest_configure(config: pytest.Config) -> None:
    """Apply the addition given by ``--add`` before any test module is imported."""
    ADDITIONS[config.getoption("add")]()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record the outcome of each test, which has failed if its setup, call or teardown has failed."""
    if report.failed or (report.passed and report.when == "call"):
        outcomes[report.outcome].add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Flush all readers, and write the report."""
    gc.collect()  # Apps are in reference cycles. The readers of garbage-collected apps flush and end by themselves.
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not is_complete() and published() and time.monotonic() < deadline:
        time.sleep(0.05)
    report = {
        "passed": len(outcomes["passed"] - outcomes["failed"]),
        "failed": sorted(outcomes["failed"]),
        "recorded": recorded(),
        "published": published(),
        "refused": [str(each) for each in cloudwatch.validation_errors],
    }
    session.config.getoption("report").write_text(json.dumps(report), "utf-8")


def is_complete() -> bool:
    """Flush the readers that still run, and return whether all recorded metrics are published."""
    flushed = [each.flush() for each in live_readers()]
    wanted, found = recorded(), published()
    return all(flushed) and all(are_close(wanted[name], found.get(name, (0, 0))) for name in wanted)


def are_close(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether the sample counts are equal, and the sums equal within the promised rounding."""
    return one[0] == other[0] and math.isclose(one[1], other[1], rel_tol=1e-9, abs_tol=1e-9)


def recorded() -> Totals:
    """Return the totals of ``add_metric`` calls, and those of the histograms in OpenTelemetry's readers."""
    totals: Totals = {name: (number, number) for name, number in calls.items()}
    for metric in metrics_in_memory():
        for point in metric.data.data_points if isinstance(metric.data, Histogram) else ():
            count, total = totals.get(metric.name, (0, 0))
            totals[metric.name] = count + point.count, total + point.sum
    return totals


def metrics_in_memory() -> Iterator[Metric]:
    """Yield the metrics that were not recorded through ``add_metric``."""
    for data in filter(None, (each.get_metrics_data() for each in memories)):
        for scope in [scope for resource in data.resource_metrics for scope in resource.scope_metrics]:
            yield from (each for each in scope.metrics if not each.name.startswith("guest"))


def published() -> Totals:
    """Return the totals of each metric in CloudWatch."""
    names = {each.name for each in cloudwatch.metrics()}
    return {name: (cloudwatch.count(name), cloudwatch.sum(name)) for name in names}
