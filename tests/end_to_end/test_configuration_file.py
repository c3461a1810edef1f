"""OpenTelemetry's configuration file, in both forms, in processes started by ``opentelemetry-instrument``."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.end_to_end.test_no_code import INSTRUMENT, REQUESTS, assert_published_once, flask_run
from tests.reliability.processes import PATIENCE_SECONDS, ROOT
from tests.support.doc_blocks import blocks
from tests.support.fakes import eventually

pytest.importorskip("opentelemetry.configuration", reason="needs opentelemetry-configuration")

FORMS = ["periodic", "pull"]


def write_file(folder: Path, form: str, **fields: Any) -> str:
    """Write a configuration file with the CloudWatch exporter in this form, and return its path."""
    reader = {form: {"exporter": {"cloudwatch": fields or None}}}
    content = {
        "file_format": "1.0",
        "resource": {"attributes": [{"name": "service.name", "value": "no-code-shop"}]},
        # Without a propagator, OpenTelemetry's Flask instrumentation fails on each request.
        "propagator": {"composite": [{"tracecontext": {}}, {"baggage": {}}]},
        "meter_provider": {"readers": [reader]},
    }
    file = folder / "otel.json"
    file.write_text(json.dumps(content))
    return str(file)


@pytest.fixture
def cloudwatch() -> Iterator[LocalCloudWatch]:
    """A strict CloudWatch emulator on loopback."""
    with LocalCloudWatch() as running:
        yield running


def sums_to(cloudwatch: LocalCloudWatch, orders: int) -> bool:
    """Wait for this number of orders, and return whether they arrived."""
    return eventually(lambda: cloudwatch.published.sum("Orders") == orders, within_seconds=PATIENCE_SECONDS)


@pytest.mark.parametrize("fields", [{}, {"flush_min_interval_seconds": 1, "max_metrics": 500}])
@pytest.mark.parametrize("form", FORMS)
def test_everything_is_published_once(
    cloudwatch: LocalCloudWatch, tmp_path: Path, form: str, fields: dict[str, Any]
) -> None:
    """With and without fields, the app's requests and the reporter's metrics are published once."""
    file = write_file(tmp_path, form, **fields)
    with flask_run(cloudwatch, tmp_path / "log", OTEL_CONFIG_FILE=file) as run:
        run.visit()
        assert sums_to(cloudwatch, REQUESTS)
        run.interrupt()
    assert_published_once(cloudwatch)
    assert "Traceback" not in run.said()


def test_a_reporter_shares_the_reader(cloudwatch: LocalCloudWatch, tmp_path: Path) -> None:
    """In the pull form, the end of a request flushes the reader, and the reporter uses the fields that apply to it."""
    fields = {
        "namespace": "File",
        "flush": "sync",
        "default_dimensions": {"Stage": "test"},
        "rules": [{"match": "http.server.duration", "dimensions": []}],
    }
    with flask_run(cloudwatch, tmp_path / "log", OTEL_CONFIG_FILE=write_file(tmp_path, "pull", **fields)) as run:
        run.visit()
        assert eventually(lambda: cloudwatch.published.count("http.server.duration") == REQUESTS)
        run.interrupt()
    assert cloudwatch.published.sum("Orders", namespace="File", Stage="test") == REQUESTS
    assert cloudwatch.published.count("http.server.duration", {}, namespace="File") == REQUESTS


def test_the_documented_file(cloudwatch: LocalCloudWatch, tmp_path: Path) -> None:
    """The configuration file in the documentation works unchanged."""
    (text,) = [block.text for block in blocks("yaml") if block.page == "integration"]
    file = tmp_path / "otel.yaml"
    file.write_text(text, "utf-8")
    with flask_run(cloudwatch, tmp_path / "log", OTEL_CONFIG_FILE=str(file)) as run:
        run.visit()
        assert cloudwatch.published.sum("Orders", namespace="Shop") == REQUESTS
        run.interrupt()
    assert cloudwatch.published.count("http.server.duration", namespace="Shop") == REQUESTS


@pytest.mark.parametrize("form", FORMS)
def test_a_misspelt_field(cloudwatch: LocalCloudWatch, tmp_path: Path, form: str) -> None:
    """The error names the unknown field, suggests the probable one, and lists all fields."""
    file = write_file(tmp_path, form, namspace="Shop")
    with flask_run(cloudwatch, tmp_path / "log", OTEL_CONFIG_FILE=file) as run:
        run.url()
        run.interrupt()
    message = "ConfigurationError: The cloudwatch exporter has no field 'namspace'. Did you mean 'namespace'?"
    assert f"{message} Its fields are namespace, region_name, flush, " in run.said()


@pytest.mark.parametrize("form", FORMS)
def test_an_invalid_field(cloudwatch: LocalCloudWatch, tmp_path: Path, form: str) -> None:
    """The program does not start, and the error names the field and the allowed values."""
    file = write_file(tmp_path, form, max_metrics=-1)
    with flask_run(cloudwatch, tmp_path / "log", OTEL_CONFIG_FILE=file) as run:
        assert run.process.wait(PATIENCE_SECONDS) != 0
    assert "configuration file: max_metrics=-1 is not a positive integer; use 1 or more." in run.said()


@pytest.mark.parametrize("form", FORMS)
def test_the_vectors(tmp_path: Path, form: str) -> None:
    """Exporters from configuration files send exactly what the test vectors expect."""
    command = [str(INSTRUMENT), sys.executable, "-m", "tests.vectors.from_file", form]
    with isolated_environment():
        environment = {**os.environ, "OTEL_CONFIG_FILE": write_file(tmp_path, form, dry_run=True)}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
        )
    assert done.returncode == 0, done.stderr
    faults = json.loads(done.stdout)
    assert len(faults) > 100
    assert {case: found for case, found in faults.items() if found} == {}
