import json
import os
import sys
from datetime import datetime, timedelta, timezone
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.config import Config
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.cli import flask_commands
from otel_cloudwatch_flask.commands.doctor_checks.auto_instrumentation import auto_instrumentation_checks
from otel_cloudwatch_flask.commands.doctor_checks.aws import Target, aws_checks
from otel_cloudwatch_flask.commands.doctor_checks.instrumentation import duplicate_checks
from otel_cloudwatch_flask.commands.doctor_checks.server import server_checks
from otel_cloudwatch_flask.commands.doctor_checks.settings import settings_checks
from otel_cloudwatch_flask.commands.shared import aws
from otel_cloudwatch_flask.commands.shared.user_app import UserApp
from otel_cloudwatch_flask.config import KEYS
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter
from otel_cloudwatch_flask.sdk.reader import CloudWatchMetricReader
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from otel_cloudwatch_flask.testing.local.server import Fault, LocalCloudWatch
from tests.support.command_runs import MINIMAL, SHOP, run, run_flask

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "IQoJb3JpZ2luX2VjEXAMPLETOKEN",
}


def findings(ended: str, section: str) -> list[tuple[str, str]]:
    """Return the status and text of each finding in a section of the JSON output."""
    return [(each["status"], each["finding"]) for each in json.loads(ended)["checks"] if each["section"] == section]


def test_a_healthy_app() -> None:
    """No problems are found, nothing is sent, and --verbose adds a line for each setting with its source."""
    with LocalCloudWatch() as cloudwatch:
        ended = run_flask(SHOP, "doctor", "--verbose", environment=cloudwatch.environment())
        assert cloudwatch.traffic.put_requests == 0
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "✗" not in ended.stdout
    assert "  ✓ NAMESPACE: Shop (argument namespace)\n" in ended.stdout
    assert "  ✓ REGION: us-east-1 (environment AWS_DEFAULT_REGION)\n" in ended.stdout
    assert "  ✓ DRY_RUN: False (default)\n" in ended.stdout
    for key in KEYS:
        assert f"✓ {key.name}: " in ended.stdout
    assert ended.stdout.endswith("checks: no problems.\n")


def test_news_come_first() -> None:
    """Sections with problems come first, and settings with default values are hidden."""
    variables = {"OTEL_EXPORTER_CLOUDWATCH_FLSH": "sync", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x"}
    credentials = {"AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL_CLOUDWATCH": "http://127.0.0.1:9"}
    lines = run_flask(MINIMAL, "doctor", environment={**variables, **credentials}).stdout.splitlines()
    sections = [line for line in lines if line and not line.startswith(" ")][:-1]
    assert sections == ["AWS", "Settings", "Server", "Instrumentation", "Duplicates"]
    assert lines[lines.index("AWS") + 1].startswith("  ✗ The endpoint does not respond")
    assert lines[lines.index("Settings") + 1].startswith("  ✗ Unknown setting OTEL_EXPORTER_CLOUDWATCH_FLSH")
    assert not any("(default)" in line for line in lines)
    assert "Pass --verbose to see" in lines[-1]


def test_send_publishes_one_data_point() -> None:
    """The data point is published to the app's namespace."""
    with LocalCloudWatch() as cloudwatch:
        ended = run_flask(MINIMAL, "doctor", "--send", "--json", environment=cloudwatch.environment())
        assert [str(metric) for metric in cloudwatch.published.metrics()] == [
            "Shop: otel_cloudwatch_flask.doctor {} in Count"
        ]
    assert ended.returncode == 0, ended.stdout
    assert findings(ended.stdout, "AWS")[-1] == (
        "ok",
        "CloudWatch accepted a data point of otel_cloudwatch_flask.doctor in Shop.",
    )


def test_secrets_are_never_printed() -> None:
    """Secrets are redacted, even in AWS's response to a wrong signature, which repeats them."""

    def answer(_parameters: object) -> Fault:
        return Fault("SignatureDoesNotMatch", 403)

    with LocalCloudWatch(answer_with=answer) as cloudwatch:
        where = cloudwatch.endpoint_url.replace("//", "//user:password@")
        environment = {**cloudwatch.environment(), **SECRETS, "AWS_ENDPOINT_URL_CLOUDWATCH": where}
        printed = [
            run("doctor", "--send", "--namespace", "Shop", *json_, environment=environment)
            for json_ in ([], ["--json"])
        ]
    for ended in printed:
        assert ended.returncode == 1
        assert "SignatureDoesNotMatch" in ended.stdout
        for secret in (*SECRETS.values(), "password"):
            assert secret not in ended.stdout + ended.stderr


def test_redaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, tokens, passwords in URLs, and keys passed to a reporter are redacted, but not the ID of the account."""
    for name, value in {**SECRETS, "AWS_ACCOUNT_ID": "111122223333"}.items():
        monkeypatch.setenv(name, value)
    arn = "arn:aws:iam::111122223333:user/shop"
    assert aws.redacted(arn, aws.secrets({}, [])) == arn
    hidden = aws.secrets(SECRETS, ["given-key"])
    text = f"String-to-sign: x-amz-security-token:{SECRETS['AWS_SESSION_TOKEN']} given-key http://me:pw@proxy:80/"
    assert aws.redacted(text, hidden) == "String-to-sign: x-amz-security-token:*** *** http://***@proxy:80/"


def test_an_app_that_does_not_start() -> None:
    """The configuration error is a finding; all other checks still run."""
    ended = run_flask(MINIMAL, "doctor", "--json", environment={"OTEL_EXPORTER_CLOUDWATCH_FLUSH": "often"})
    assert ended.returncode == 1, ended.stderr
    (app,) = [each for each in json.loads(ended.stdout)["checks"] if each["section"] == "App"]
    message = "The app cannot be loaded: OTEL_EXPORTER_CLOUDWATCH_FLUSH='often' is not a flush policy;"
    assert (app["status"], app["finding"][: len(message)]) == ("problem", message)
    assert {("ok", "MAX_METRICS: 1000 (default)"), ("ok", "DRY_RUN: False (default)")} <= {
        *findings(ended.stdout, "Settings")
    }


def test_without_any_configuration() -> None:
    """Everything that is missing is reported with its remedy, in ASCII if the terminal requires it."""
    ended = run(
        "doctor", environment={"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "AWS_EC2_METADATA_DISABLED": "true"}
    )
    assert ended.returncode == 1
    assert "  ! boto3 finds no credentials. Attach a role to the server or, on your own machine, " in ended.stdout
    assert "Set AWS_REGION" in ended.stdout
    assert ended.stdout.isascii()


@pytest.mark.parametrize(
    ("arguments", "config", "environ", "line"),
    [
        ({"flush": "sync"}, {"CLOUDWATCH_FLUSH": "interval"}, {}, "FLUSH: sync (argument flush)"),
        ({}, {"CLOUDWATCH_FLUSH": "interval"}, {}, 'FLUSH: interval (app.config["CLOUDWATCH_FLUSH"])'),
        (
            {},
            {},
            {"OTEL_EXPORTER_CLOUDWATCH_FLUSH": "sync"},
            "FLUSH: sync (environment OTEL_EXPORTER_CLOUDWATCH_FLUSH)",
        ),
        ({}, {}, {"AWS_LAMBDA_FUNCTION_NAME": "f"}, "FLUSH: sync (environment AWS_LAMBDA_FUNCTION_NAME)"),
        (
            {},
            {},
            {"OTEL_METRIC_EXPORT_INTERVAL": "5000"},
            "EXPORT_INTERVAL_SECONDS: 5.0 (environment OTEL_METRIC_EXPORT_INTERVAL)",
        ),
        ({"rules": [{"match": "a*"}, {"match": "b*"}]}, {}, {}, "RULES: a*, b* (argument rules)"),
        (
            {},
            {"CLOUDWATCH_DEFAULT_DIMENSIONS": {"Stage": "live"}},
            {},
            'DEFAULT_DIMENSIONS: {"Stage": "live"} (app.config["CLOUDWATCH_DEFAULT_DIMENSIONS"])',
        ),
        ({}, {"CLOUDWATCH_NAMESPCE": "S"}, {}, "Unknown setting CLOUDWATCH_NAMESPCE is ignored."),
    ],
)
def test_sources_of_settings(
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    config: dict[str, Any],
    environ: dict[str, str],
    line: str,
) -> None:
    """The source in the line is the one that takes precedence."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    app = Flask("shop")
    app.config.update(config)
    reporter = CloudWatchMetricsReporter(app, "Shop", FakeCloudWatch(), meter_provider=MeterProvider(), **arguments)
    result = CliRunner().invoke(flask_commands, ["doctor", "--json"], obj=ScriptInfo(create_app=lambda *_: app))
    reporter.shutdown()
    assert line in [finding for _, finding in findings(result.output, "Settings")]
    assert "OTEL_EXPORTER_CLOUDWATCH_DRY_RUN" not in os.environ


def test_the_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command, which loads the app in dry-run mode, leaves the program's own setting as it was."""
    monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_DRY_RUN", "false")
    CliRunner().invoke(flask_commands, ["doctor"], obj=ScriptInfo(create_app=lambda *_: Flask("shop")))
    assert os.environ["OTEL_EXPORTER_CLOUDWATCH_DRY_RUN"] == "false"


def test_emf_needs_no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """With EMF, credentials and the endpoint are not checked, and nothing is sent."""
    monkeypatch.setenv("CLOUDWATCH_OUTPUT", "emf")
    result = CliRunner().invoke(flask_commands, ["doctor", "--json", "--send"])
    (found,) = findings(result.output, "AWS")
    assert found == ("ok", "OUTPUT=emf writes metrics as log lines, so no credentials or Region are needed.")


def test_an_invalid_setting_is_a_problem() -> None:
    """The finding is the message of the ``ConfigurationError``."""
    checks = list(settings_checks(UserApp(environ={"OTEL_EXPORTER_CLOUDWATCH_MAX_METRICS": "-1"})))
    (problem,) = [check for check in checks if check.status == "problem"]
    assert "OTEL_EXPORTER_CLOUDWATCH_MAX_METRICS='-1' is not a positive integer" in problem.finding


def test_a_client_passed_by_the_app() -> None:
    """Credentials and network are left to the client, and the probe is sent with it."""
    cloudwatch = FakeCloudWatch()
    target = Target(cloudwatch, namespace="Shop")
    first, probe = aws_checks(target, sends=True)
    assert (first.status, probe.status) == ("ok", "ok")
    assert cloudwatch.count(aws.PROBE_METRIC) == 1
    with LocalCloudWatch() as local:
        theirs = Target(local.client())
        found = [check.finding for check in aws_checks(theirs, sends=False)]
    assert found[0] == "Credentials: from the client that the app passes."
    assert found[1].startswith("Region: us-east-1, endpoint: http://127.0.0.1:")


def test_keys_passed_by_the_app(tmp_path: Path) -> None:
    """The probe is sent with the access keys that the app passes to its reporter."""
    (tmp_path / "keys.py").write_text(
        "from flask import Flask\n"
        "from otel_cloudwatch_flask import CloudWatchMetricsReporter\n"
        "app = Flask(__name__)\n"
        'CloudWatchMetricsReporter.new_reporter(app, "Shop", "us-east-1", "given-id", "given-key")\n',
        "utf-8",
    )
    with LocalCloudWatch() as cloudwatch:
        environment = {"AWS_ENDPOINT_URL_CLOUDWATCH": cloudwatch.endpoint_url}
        ended = run_flask(tmp_path / "keys.py", "doctor", "--send", "--json", folder=tmp_path, environment=environment)
        assert cloudwatch.published.count(aws.PROBE_METRIC) == 1, ended.stdout
    assert ("ok", "Credentials: access keys that the app passes (no expiry).") in findings(ended.stdout, "AWS")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("http://me:secret@[::1]:4566", "http://[::1]:4566"),
        ("https://proxy.example/cloudwatch", "https://proxy.example/cloudwatch"),
    ],
)
def test_the_endpoint_is_shown_without_credentials(given: str, shown: str) -> None:
    """Only the user and the password of the endpoint's URL are removed."""
    client = boto3.client("cloudwatch", region_name="us-east-1", endpoint_url=given)
    assert aws.endpoint_of(client) == shown


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (Fault("AccessDenied", 403), "attach the policy that the policy command prints"),
        (Fault("Throttling", 400), "reduce the call rate"),
        (Fault("InternalServiceError", 500), "CloudWatch returned an internal error"),
    ],
)
def test_remedies_for_a_failed_probe(fault: Fault, remedy: str) -> None:
    """The remedy depends on the kind of failure."""
    with LocalCloudWatch() as cloudwatch:
        cloudwatch.fail_next(fault)
        client = cloudwatch.client(config=Config(retries={"total_max_attempts": 1}))
        target = Target(client, namespace="Shop")
        *_, probe = aws_checks(target, sends=True)
    assert probe.status == "problem"
    assert fault.code in probe.finding
    assert remedy in probe.remedy


@pytest.mark.parametrize(
    ("ahead", "status", "words"),
    [
        (0.4, "ok", "accurate"),
        (-59.0, "ok", "accurate"),
        (61.0, "problem", "61 s slow"),
        (-400.0, "problem", "400 s fast"),
        (None, "unknown", "sent no Date header"),
    ],
)
def test_the_system_clock(monkeypatch: pytest.MonkeyPatch, ahead: float | None, status: str, words: str) -> None:
    """A difference of up to a minute is accepted, because metrics have a resolution of a minute."""
    monkeypatch.setattr(aws, "call_endpoint", lambda _url: aws.EndpointResponse(0.01, ahead))
    monkeypatch.setattr(aws, "credentials", lambda: aws.Credentials("env", None))
    with LocalCloudWatch() as cloudwatch:
        target = Target(cloudwatch.client())
        clock = [check for check in aws_checks(target, sends=False) if "clock" in check.finding or not ahead]
    assert any(check.status == status and words in check.finding for check in clock)


def test_expiry_of_temporary_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The finding contains the provider and the remaining time, but no keys."""
    expires = datetime.now(timezone.utc) + timedelta(minutes=30, seconds=10)
    monkeypatch.setattr(aws, "credentials", lambda: aws.Credentials("assume-role", expires))
    monkeypatch.setattr(aws, "call_endpoint", lambda _url: aws.EndpointResponse(0.01, 0.0))
    target = Target(region_name="us-east-1")
    first, *_ = aws_checks(target, sends=False)
    assert first.finding == "Credentials: assume-role (expire in 30 minutes, refreshed automatically)."


INI = "[uwsgi]\nmodule = shop:app\n"


@pytest.mark.parametrize(
    ("files", "environ", "flush", "status", "words"),
    [
        ({"uwsgi.ini": INI}, {}, "background", "problem", "does not set enable-threads"),
        ({"uwsgi.ini": INI}, {}, "sync", "ok", "FLUSH=sync needs none"),
        ({"uwsgi.ini": INI + "enable-threads = true\n"}, {}, "background", "ok", "threads are enabled"),
        ({"uwsgi.ini": INI + "enable-threads\n"}, {}, "background", "ok", "threads are enabled"),
        ({"uwsgi.ini": INI + "enable-threads = false\n"}, {}, "background", "problem", "does not set enable-threads"),
        ({"app.ini": INI + "threads = 4\n"}, {}, "background", "ok", "(app.ini): threads are enabled"),
        ({"uwsgi.ini": INI + "threads=2\ndie-on-term=true\n"}, {}, "background", "problem", "die-on-term"),
        ({"tox.ini": "[tox]\n", "bad.ini": "\x00["}, {}, "background", "ok", "gunicorn is installed"),
        ({}, {"AWS_LAMBDA_FUNCTION_NAME": "f"}, "sync", "ok", "before it ends. OUTPUT=emf would"),
        ({}, {"AWS_LAMBDA_FUNCTION_NAME": "f"}, "background", "problem", "no thread runs between invocations"),
    ],
)
def test_server_detection(
    tmp_path: Path, *, files: dict[str, str], environ: dict[str, str], flush: str, status: str, words: str
) -> None:
    """Servers are detected by configuration files, environment variables and installed packages."""
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    found = list(server_checks(environ, tmp_path, flush=flush))
    assert any(check.status == status and words in check.finding for check in found)
    assert not any(check.status == "problem" for check in found) or status == "problem"


def test_without_a_detected_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The finding names the setting that uWSGI needs."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.delitem(sys.modules, "gevent.monkey", raising=False)
    (check,) = server_checks({}, tmp_path, flush="background")
    assert "enable-threads" in check.finding


@pytest.mark.parametrize(("is_patched", "status"), [(True, "ok"), (False, "unknown")])
def test_gevent_must_be_patched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_patched: bool, status: str
) -> None:
    """Without monkey patching, the finding is a problem, because the reader's thread would block the hub."""
    monkey = ModuleType("gevent.monkey")
    monkey.is_module_patched = lambda _name: is_patched  # type: ignore[attr-defined]  # as gevent has it
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    assert [each.status for each in server_checks({}, tmp_path, flush="sync") if "gevent" in each.finding] == [status]


@pytest.mark.parametrize(("namespace", "name"), [("Shop", "namespace Shop"), (None, "namespace of the service name")])
def test_duplicates(monkeypatch: pytest.MonkeyPatch, namespace: str | None, name: str) -> None:
    """Two exporters on one provider, one more from the environment, and the predecessor are each a problem."""
    readers = [CloudWatchMetricReader(CloudWatchMetricExporter(namespace, client=FakeCloudWatch())) for _ in range(2)]
    provider = MeterProvider(readers, shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry.metrics.get_meter_provider", lambda: provider)
    monkeypatch.setitem(sys.modules, "flask_cloudwatch_metric", ModuleType("flask_cloudwatch_metric"))
    found = {check.finding for check in duplicate_checks({"OTEL_METRICS_EXPORTER": "otlp,cloudwatch"})}
    provider.shutdown()
    assert found == {
        f"The global MeterProvider has 2 CloudWatch exporters for the {name}.",
        "OTEL_METRICS_EXPORTER lists cloudwatch, and the program creates a CloudWatch exporter itself.",
        "The program also imports flask_cloudwatch_metric, which publishes its metrics separately.",
    }


def test_an_app_without_instrumentation(tmp_path: Path) -> None:
    """An app without a reporter and without an exporter is reported."""
    (tmp_path / "plain.py").write_text("from flask import Flask\napp = Flask(__name__)\n", "utf-8")
    ended = run_flask(tmp_path / "plain.py", "doctor", "--json", folder=tmp_path)
    assert ended.returncode == 1
    found = findings(ended.stdout, "Instrumentation")
    assert found[0] == ("problem", "There is no CloudWatchMetricsReporter and no exporter.")
    assert found[2] == ("unknown", "No global MeterProvider is set.")


@pytest.mark.parametrize(
    ("installed", "environ", "problems"),
    [
        ({}, {}, []),
        ({}, {"OTEL_METRICS_EXPORTER": "otlp"}, []),
        (
            {},
            {"OTEL_METRICS_EXPORTER": "console, cloudwatch"},
            ["No OpenTelemetry distribution", "OTEL_TRACES_EXPORTER lists otlp", "OTEL_LOGS_EXPORTER lists otlp"],
        ),
        (
            {"configurator": "configurator", "traces_exporter": "console", "logs_exporter": "otlp_proto_http"},
            {
                "OTEL_METRICS_EXPORTER": "cloudwatch",
                "OTEL_TRACES_EXPORTER": "console,zipkin",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            },
            ["OTEL_TRACES_EXPORTER lists zipkin"],
        ),
        (
            {"configurator": "configurator", "traces_exporter": "otlp_proto_http", "logs_exporter": "otlp_proto_grpc"},
            {"OTEL_METRICS_EXPORTER": "cloudwatch", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            [],
        ),
        (
            {"configurator": "configurator"},
            {"OTEL_METRICS_EXPORTER": "cloudwatch", "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
            [],
        ),
    ],
)
def test_auto_instrumentation(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], environ: dict[str, str], problems: list[str]
) -> None:
    """If the environment lists cloudwatch, a missing distribution or a missing exporter is a problem."""

    def entry_points(group: str) -> list[EntryPoint]:
        names = installed.get(group.removeprefix("opentelemetry_"), "").split()
        return [EntryPoint(name, "module", group) for name in names]

    module = "otel_cloudwatch_flask.commands.doctor_checks.auto_instrumentation"
    monkeypatch.setattr(f"{module}.entry_points", entry_points)
    monkeypatch.setattr(f"{module}.is_auto_instrumented", lambda: False)
    found = [each.finding for each in auto_instrumentation_checks(environ) if each.status == "problem"]
    assert len(found) == len(problems)
    assert all(part in finding for part, finding in zip(problems, found, strict=True))
