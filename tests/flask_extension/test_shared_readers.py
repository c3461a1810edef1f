"""One reader per destination: a reporter shares a reader that the program created if its settings agree."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from otel_cloudwatch_flask import (
    CloudWatchMetricExporter,
    CloudWatchMetricReader,
    CloudWatchMetricsReporter,
    MetricRule,
)
from otel_cloudwatch_flask.commands.doctor_checks.instrumentation import duplicate_checks, instrumentation_checks
from otel_cloudwatch_flask.commands.shared.user_app import UserApp
from otel_cloudwatch_flask.sdk.reader import readers_on
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch

NEVER_SECONDS = 3600.0
STREAM = io.StringIO()
CLIENT = FakeCloudWatch()
NAMESPACES = ("Both", "Other", "Third", "Alone")
READER = "A reader (thread CloudWatchMetricReader) sends to"
OF_REPORTER = "It publishes the metrics of the reporter"


class Program:
    """An app, and a provider to which readers and reporters are added."""

    def __init__(self) -> None:
        self.app = Flask("shop")
        self.provider = MeterProvider(resource=Resource({"service.name": "Service"}), shutdown_on_exit=False)
        self.reporters: list[CloudWatchMetricsReporter] = []
        self.readers: list[MetricReader] = []

    def add_reader(self, namespace: str | None = "Both", **exporter: Any) -> CloudWatchMetricReader:
        """Add a reader as a program would."""
        exports = CloudWatchMetricExporter(namespace, **exporter)
        reader = CloudWatchMetricReader(exports, export_interval_seconds=NEVER_SECONDS)
        self._add(reader)
        return reader

    def add_other_reader(self, namespace: str, **exporter: Any) -> None:
        """Add another exporter under the SDK's reader."""
        exports = CloudWatchMetricExporter(namespace, **exporter)
        self._add(PeriodicExportingMetricReader(exports, NEVER_SECONDS * 1000))

    def _add(self, reader: MetricReader) -> None:
        self.provider.add_metric_reader(reader)
        self.readers.append(reader)

    def add_reporter(self, namespace: str | None = "Both", **options: Any) -> CloudWatchMetricsReporter:
        """Add the app's reporter."""
        reporter = CloudWatchMetricsReporter(self.app, namespace, meter_provider=self.provider, **options)
        self.reporters.append(reporter)
        return reporter

    def findings(self) -> list[str]:
        """Return doctor's findings about the readers of this module's namespaces."""
        found = [each.finding for each in instrumentation_checks(UserApp(self.app))]
        return [each for each in found if any(f"namespace {name} " in each for name in NAMESPACES)]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """A program whose readers are shut down after the test."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_DRY_RUN", "true")
    program = Program()
    yield program
    for reporter in program.reporters:
        reporter.shutdown(timeout_seconds=1)
    for reader in program.readers:
        reader.shutdown(timeout_millis=1000)


def test_one_thread_and_one_call_a_flush(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a request, one reader sends ``add_metric`` and the app's own counter in one call."""
    monkeypatch.delenv("OTEL_EXPORTER_CLOUDWATCH_DRY_RUN")
    cloudwatch = FakeCloudWatch()
    reader = program.add_reader(client=cloudwatch)
    reporter = program.add_reporter(cloudwatch_client=cloudwatch, flush="sync")
    counter = program.provider.get_meter("app").create_counter("views")

    @program.app.get("/")
    def view() -> str:
        counter.add(1)
        reporter.add_metric("Orders", 1, "Count")
        return "ordered"

    for requests in (1, 2):
        program.app.test_client().get("/", buffered=True)
        assert [cloudwatch.sum(name, namespace="Both") for name in ("Orders", "views")] == [requests, requests]
        assert len(cloudwatch.requests) == requests
    assert readers_on(program.provider) == [reader]


@pytest.mark.parametrize(
    ("given", "options", "readers"),
    [
        ({}, {"namespace": None}, 1),
        ({}, {}, 1),
        ({"namespace": None}, {"namespace": "Service"}, 1),
        ({}, {"region_name": "eu-west-1"}, 1),
        ({}, {"export_interval_seconds": NEVER_SECONDS, "flush_min_interval_seconds": 10.0}, 1),
        ({"rules": [MetricRule(match="a", drop=True)]}, {"rules": [{"match": "a", "drop": True}]}, 1),
        ({"rules": [MetricRule(match="a", drop=True)]}, {}, 1),
        ({"client": CLIENT}, {"cloudwatch_client": CLIENT}, 1),
        ({"client": CLIENT}, {}, 1),
        ({"output": "emf", "stream": STREAM}, {"output": "emf", "stream": STREAM}, 1),
        ({}, {"namespace": "Other"}, 2),
        ({"namespace": None}, {"namespace": "Both"}, 2),
        ({}, {"region_name": "eu-west-3"}, 2),
        ({"client": CLIENT}, {"region_name": "eu-west-1"}, 2),
        ({}, {"cloudwatch_client": CLIENT}, 2),
        ({}, {"export_interval_seconds": 60.0}, 2),
        ({}, {"rules": [MetricRule(match="a", drop=True)]}, 2),
        ({"output": "emf"}, {"output": "emf", "stream": STREAM}, 2),
    ],
)
def test_what_a_reporter_shares(program: Program, given: dict[str, Any], options: dict[str, Any], readers: int) -> None:
    """A reporter shares a reader only if it has the client and every setting that the reporter was given."""
    program.add_reader(**given)
    program.add_reporter(**options)
    assert len(readers_on(program.provider)) == readers


def test_the_first_that_agrees(program: Program) -> None:
    """Of several readers that agree with its settings, the reporter shares the first."""
    readers = [program.add_reader(namespace) for namespace in ("Other", "Both")]
    program.add_reporter()
    assert readers_on(program.provider) == readers
    assert [bool(each.exporter.reporters) for each in readers] == [False, True]


def test_own_credentials(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reporter with explicit credentials does not share the program's reader."""
    monkeypatch.setattr("opentelemetry.metrics.get_meter_provider", lambda: program.provider)
    program.add_reader()
    keys = ("AKIAIOSFODNN7EXAMPLE", "secret")
    program.reporters.append(CloudWatchMetricsReporter.new_reporter(program.app, "Both", "eu-west-1", *keys))
    assert len(readers_on(program.provider)) == 2


def test_doctor_names_each_reader(program: Program) -> None:
    """For each reader, doctor reports its thread, where it sends metrics, and which metrics it publishes."""
    program.add_reader()
    program.add_reporter("Other", cloudwatch_client=CLIENT)
    program.add_other_reader("Third", output="emf")
    assert program.findings() == [
        f"{READER} the namespace Both in eu-west-1. It publishes all metrics that belong to no reporter.",
        f"{READER} the namespace Other with the program's FakeCloudWatch. {OF_REPORTER} Other.",
        "Another library's reader sends all metrics to the namespace Third in EMF lines in its own thread.",
    ]
    assert [each.status for each in duplicate_checks({})] == ["ok"]


def test_doctor_names_a_shared_reader(program: Program) -> None:
    """A shared reader publishes the reporter's metrics and all others."""
    program.add_reader("Alone")
    program.add_reporter("Alone")
    published = "the metrics of the reporter Alone, and all metrics that belong to no reporter"
    assert program.findings() == [f"{READER} the namespace Alone in eu-west-1. It publishes {published}."]


def test_doctor_finds_two_readers_of_one_destination(program: Program) -> None:
    """Two readers with the same destination are a problem; the remedy names the order and the settings that differ."""
    program.add_reader()
    program.add_reporter(export_interval_seconds=30.0)
    (check,) = duplicate_checks({})
    assert (check.status, check.finding, check.remedy) == (
        "problem",
        "Two readers send to the namespace Both in eu-west-1: the reporter's own and the program's.",
        "To share one, add the program's reader before the reporter and give both the same export_interval_seconds.",
    )


def test_doctor_finds_a_reader_that_came_too_late(program: Program) -> None:
    """A reader added after the reporter cannot be shared, and doctor reports this."""
    program.add_reporter()
    program.add_reader()
    (check,) = duplicate_checks({})
    assert check.status == "problem"
    assert "add the program's reader before the reporter" in check.remedy


def test_doctor_finds_an_exporter_under_another_reader(program: Program) -> None:
    """A reporter cannot share another library's reader, and doctor reports this."""
    program.add_other_reader("Both")
    program.add_reporter()
    (check,) = duplicate_checks({})
    assert check.remedy.startswith("Give the program's exporter to a CloudWatchMetricReader")
