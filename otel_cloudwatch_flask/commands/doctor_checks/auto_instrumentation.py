"""Check that ``opentelemetry-instrument`` finds a distribution and the selected trace and log exporters."""

import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Final

from otel_cloudwatch_flask.commands.doctor_checks.check import Check

_COMMANDS_MODULE: Final = "opentelemetry.instrumentation.auto_instrumentation"
_EXPORTER_GROUPS: Final = {
    "OTEL_TRACES_EXPORTER": "opentelemetry_traces_exporter",
    "OTEL_LOGS_EXPORTER": "opentelemetry_logs_exporter",
}


def is_auto_instrumented() -> bool:
    """Return whether the process was started by ``opentelemetry-instrument``."""
    return _COMMANDS_MODULE in sys.modules


def is_exporter_selected(environ: Mapping[str, str]) -> bool:
    """Return whether ``OTEL_METRICS_EXPORTER`` lists ``cloudwatch``."""
    return "cloudwatch" in _names(environ.get("OTEL_METRICS_EXPORTER", ""))


def auto_instrumentation_checks(environ: Mapping[str, str]) -> Iterator[Check]:
    """Check the distribution and the trace and log exporters.

    Yields nothing unless ``opentelemetry-instrument`` started the process or the environment selects ``cloudwatch``.
    """
    if not is_auto_instrumented() and not is_exporter_selected(environ):
        return
    if is_auto_instrumented():
        yield Check("ok", "The process was started by opentelemetry-instrument.")
    yield _distribution_check()
    for variable, group in _EXPORTER_GROUPS.items() if not environ.get("OTEL_CONFIG_FILE") else ():
        yield _exporter_check(variable, group, environ)


def _distribution_check() -> Check:
    # The distribution's configurator creates the providers. Without it, only the instrumentations are loaded.
    if entry_points(group="opentelemetry_configurator"):
        return Check("ok", "An OpenTelemetry distribution is installed.")
    finding = "No OpenTelemetry distribution is installed, so opentelemetry-instrument publishes nothing."
    return Check("problem", finding, 'Run pip install "otel-cloudwatch-flask[auto]".')


def _exporter_check(variable: str, group: str, environ: Mapping[str, str]) -> Check:
    named = environ.get(variable, "otlp")  # the distribution's default
    installed = {each.name for each in entry_points(group=group)}
    missing = [name for name in _names(named) if _entry_point(name, variable, environ) not in {*installed, "none"}]
    if not missing:
        return Check("ok", f"{variable} is {named}.")
    finding = f"{variable} lists {', '.join(missing)}, which is not installed, so opentelemetry-instrument fails."
    return Check("problem", finding, f"Set {variable}=none, or install the exporter.")


def _entry_point(name: str, variable: str, environ: Mapping[str, str]) -> str:
    """Return the name of the entry point that OpenTelemetry loads if ``variable`` lists the exporter ``name``."""
    if name != "otlp":
        return name
    of_signal = variable.replace("_EXPORTER", "_PROTOCOL").replace("OTEL_", "OTEL_EXPORTER_OTLP_")
    protocol = environ.get(of_signal) or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    is_http = protocol.strip().startswith("http")
    return "otlp_proto_http" if is_http else "otlp_proto_grpc"


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]
