"""Run the vectors with exporters that OpenTelemetry creates from configuration files, and print the errors as JSON.

Usage: python -m tests.vectors.from_file periodic|pull
"""

import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from opentelemetry.configuration import OpenTelemetryConfiguration, load_config_file
from opentelemetry.configuration._meter_provider import create_meter_provider
from opentelemetry.sdk.resources import Resource

from otel_cloudwatch_flask import CloudWatchMetricExporter
from otel_cloudwatch_flask.sdk.exporter import live_exporters
from tests.vectors.expectations import NAMESPACE
from tests.vectors.harness import RecordingClient, faults_of, load_cases
from tests.vectors.inputs import Json

NEVER_MILLIS = 3_600_000


def configuration(form: str, fields: Json) -> dict[str, Any]:
    """Return the content of a configuration file with the CloudWatch exporter in a reader of this form."""
    reader: dict[str, Any] = {"exporter": {"cloudwatch": fields}}
    if form == "periodic":
        reader["interval"] = NEVER_MILLIS
    return {"file_format": "1.0", "meter_provider": {"readers": [{form: reader}]}}


@cache
def loaded(content: str) -> OpenTelemetryConfiguration:
    """Load a configuration file with this content. Cached, because OpenTelemetry takes 0.1 seconds to load a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "otel.json")
        file.write_text(content, "utf-8")
        return load_config_file(file)


def faults_by_case(form: str) -> dict[str, list[str]]:
    """Run every vector that tests the exporter, and return the errors by case ID."""
    providers = []

    def create_exporter(client: RecordingClient, case_input: Json) -> CloudWatchMetricExporter:
        fields = {"namespace": NAMESPACE, "rules": case_input.get("rules", []), **case_input.get("exporter", {})}
        file = loaded(json.dumps(configuration(form, fields)))
        before = set(live_exporters())
        providers.append(create_meter_provider(file.meter_provider, Resource({})))
        (exporter,) = set(live_exporters()) - before
        exporter.use_client(client)
        return exporter

    cases = [case for case in load_cases() if "facade" not in case.input]
    faults = {case.id: faults_of(case, create_exporter) for case in cases}
    for provider in providers:
        provider.shutdown()
    return faults


if __name__ == "__main__":
    json.dump(faults_by_case(sys.argv[1]), sys.stdout)
