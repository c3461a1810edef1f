import json
import os
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from botocore.config import Config
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.cli import flask_commands
from otel_cloudwatch_flask.commands.doctor_checks import aws as aws_checks
from otel_cloudwatch_flask.commands.doctor_checks import publishing as publishing_checks
from otel_cloudwatch_flask.commands.doctor_checks.aws import Destination
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
    """What the doctor's JSON says in a section: each status with its finding."""
    return [(each["status"], each["finding"]) for each in json.loads(ended)["checks"] if each["section"] == section]


def test_a_healthy_app() -> None:
    """Nothing is wrong, and nothing was sent; each setting has a line with its source."""
    with LocalCloudWatch() as cloudwatch:
        ended = run_flask(SHOP, "doctor", environment=cloudwatch.environment())
        assert cloudwatch.traffic.put_requests == 0
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "✗" not in ended.stdout
    assert "  ✓ NAMESPACE: Shop (argument namespace)\n" in ended.stdout
    assert "  ✓ REGION: us-east-1 (environment AWS_DEFAULT_REGION)\n" in ended.stdout
    assert "  ✓ DRY_RUN: False (default)\n" in ended.stdout
    for key in KEYS:
        assert f"✓ {key.name}: " in ended.stdout
    assert ended.stdout.endswith("nothing is wrong.\n")


def test_a_probe_is_sent_if_it_is_wanted() -> None:
    """One datum, to the app's namespace."""
    with LocalCloudWatch() as cloudwatch:
        ended = run_flask(MINIMAL, "doctor", "--send", "--json", environment=cloudwatch.environment())
        assert [str(metric) for metric in cloudwatch.published.metrics()] == [
            "Shop: otel_cloudwatch_flask.doctor {} in Count"
        ]
    assert ended.returncode == 0, ended.stdout
    assert findings(ended.stdout, "AWS")[-1] == (
        "right",
        "CloudWatch took a probe, otel_cloudwatch_flask.doctor in Shop.",
    )


def test_no_secret_is_printed_whatever_goes_wrong() -> None:
    """Also where AWS itself repeats them, as it does for a wrong signature."""

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


def test_messages_are_redacted() -> None:
    """Keys, tokens and passwords in URLs; those given to a reporter too."""
    hidden = aws.secrets(SECRETS, ["given-key"])
    text = f"String-to-sign: x-amz-security-token:{SECRETS['AWS_SESSION_TOKEN']} given-key http://me:pw@proxy:80/"
    assert aws.redacted(text, hidden) == "String-to-sign: x-amz-security-token:*** *** http://***@proxy:80/"


def test_an_app_that_does_not_start_is_a_finding() -> None:
    """Its error is the remedy; everything else is looked at all the same."""
    ended = run_flask(MINIMAL, "doctor", "--json", environment={"OTEL_EXPORTER_CLOUDWATCH_FLUSH": "often"})
    assert ended.returncode == 1, ended.stderr
    (app,) = [each for each in json.loads(ended.stdout)["checks"] if each["section"] == "App"]
    assert (app["status"], app["finding"]) == ("wrong", "The app does not start.")
    assert app["remedy"].startswith("OTEL_EXPORTER_CLOUDWATCH_FLUSH='often' is not a flush policy;")
    assert ("right", "MAX_METRICS: 1000 (default)") in findings(ended.stdout, "Settings")


def test_without_anything_set_up() -> None:
    """What is missing, each with what to do; ASCII where the terminal has nothing else."""
    ended = run(
        "doctor", environment={"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "AWS_EC2_METADATA_DISABLED": "true"}
    )
    assert ended.returncode == 1
    assert "  ! boto3 finds no credentials. Give the server a role; or on your own machine, " in ended.stdout
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
        ({}, {"CLOUDWATCH_NAMESPCE": "S"}, {}, "CLOUDWATCH_NAMESPCE is no setting, and is ignored."),
    ],
)
def test_every_setting_says_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    config: dict[str, Any],
    environ: dict[str, str],
    line: str,
) -> None:
    """The place that counts."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    app = Flask("shop")
    app.config.update(config)
    reporter = CloudWatchMetricsReporter(app, "Shop", FakeCloudWatch(), meter_provider=MeterProvider(), **arguments)
    result = CliRunner().invoke(flask_commands, ["doctor", "--json"], obj=ScriptInfo(create_app=lambda *_: app))
    reporter.shutdown()
    assert line in [finding for _, finding in findings(result.output, "Settings")]
    assert "OTEL_EXPORTER_CLOUDWATCH_DRY_RUN" not in os.environ


def test_a_setting_that_cannot_be_used_is_wrong() -> None:
    """With the message that the app would die of."""
    checks = list(settings_checks(UserApp(environ={"OTEL_EXPORTER_CLOUDWATCH_MAX_METRICS": "-1"})))
    (wrong,) = [check for check in checks if check.status == "wrong"]
    assert "OTEL_EXPORTER_CLOUDWATCH_MAX_METRICS='-1' is not a count" in wrong.finding


def test_a_client_of_the_programs_own() -> None:
    """Credentials and network are its matter; a probe goes through it."""
    cloudwatch = FakeCloudWatch()
    destination = Destination(cloudwatch, has_own_keys=False, region_name=None, namespace="Shop")
    first, probe = aws_checks.aws_checks(destination, sends=True)
    assert (first.status, probe.status) == ("right", "right")
    assert cloudwatch.count(aws.PROBE_METRIC) == 1
    with LocalCloudWatch() as local:
        theirs = Destination(local.client(), has_own_keys=False, region_name=None, namespace="Shop")
        said = [check.finding for check in aws_checks.aws_checks(theirs, sends=False)]
    assert said[0] == "Credentials are those of the client that the program gives."
    assert said[1].startswith("Region us-east-1, endpoint http://127.0.0.1:")


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (Fault("AccessDenied", 403), "Attach the policy that the command policy prints"),
        (Fault("Throttling", 400), "call less often"),
        (Fault("InternalServiceError", 500), "CloudWatch's own trouble"),
    ],
)
def test_a_refused_probe_says_what_to_do(fault: Fault, remedy: str) -> None:
    """By why it was refused."""
    with LocalCloudWatch() as cloudwatch:
        cloudwatch.fail_next(fault)
        client = cloudwatch.client(config=Config(retries={"total_max_attempts": 1}))
        destination = Destination(client, has_own_keys=False, region_name=None, namespace="Shop")
        *_, probe = aws_checks.aws_checks(destination, sends=True)
    assert probe.status == "wrong"
    assert fault.code in probe.finding
    assert remedy in probe.remedy


@pytest.mark.parametrize(
    ("ahead", "status", "words"),
    [
        (0.4, "right", "agrees"),
        (-59.0, "right", "agrees"),
        (61.0, "wrong", "61 s slow"),
        (-400.0, "wrong", "400 s fast"),
        (None, "unknown", "does not say"),
    ],
)
def test_clocks_are_compared(monkeypatch: pytest.MonkeyPatch, ahead: float | None, status: str, words: str) -> None:
    """A minute is tolerated: metrics are by the minute."""
    monkeypatch.setattr(aws, "ask_endpoint", lambda _url: aws.Answer(0.01, ahead))
    monkeypatch.setattr(aws, "credentials", lambda: aws.Credentials("env", None))
    with LocalCloudWatch() as cloudwatch:
        destination = Destination(cloudwatch.client(), has_own_keys=False, region_name=None, namespace=None)
        clock = [
            check for check in aws_checks.aws_checks(destination, sends=False) if "clock" in check.finding or not ahead
        ]
    assert any(check.status == status and words in check.finding for check in clock)


def test_temporary_credentials_say_until_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where from and how long, never what."""
    expires = datetime.now(timezone.utc) + timedelta(minutes=30, seconds=10)
    monkeypatch.setattr(aws, "credentials", lambda: aws.Credentials("assume-role", expires))
    monkeypatch.setattr(aws, "cloudwatch_client", lambda _region: FakeCloudWatch())
    monkeypatch.setattr(aws, "ask_endpoint", lambda _url: aws.Answer(0.01, 0.0))
    first, *_ = aws_checks.aws_checks(
        Destination(None, has_own_keys=False, region_name=None, namespace=None), sends=False
    )
    assert first.finding == "Credentials from assume-role; they expire in 30 minutes, and are renewed before."


INI = "[uwsgi]\nmodule = shop:app\n"


@pytest.mark.parametrize(
    ("files", "environ", "flush", "status", "words"),
    [
        ({"uwsgi.ini": INI}, {}, "background", "wrong", "has no enable-threads"),
        ({"uwsgi.ini": INI}, {}, "sync", "right", "FLUSH=sync needs none"),
        ({"uwsgi.ini": INI + "enable-threads = true\n"}, {}, "background", "right", "threads run"),
        ({"uwsgi.ini": INI + "enable-threads\n"}, {}, "background", "right", "threads run"),
        ({"uwsgi.ini": INI + "enable-threads = false\n"}, {}, "background", "wrong", "has no enable-threads"),
        ({"app.ini": INI + "threads = 4\n"}, {}, "background", "right", "(app.ini): threads run"),
        ({"uwsgi.ini": INI + "threads=2\ndie-on-term=true\n"}, {}, "background", "wrong", "die-on-term"),
        (
            {"tox.ini": "[tox]\n", "bad.ini": "\x00[", "gunicorn.conf.py": ""},
            {},
            "background",
            "right",
            "gunicorn.conf.py",
        ),
        ({}, {"GUNICORN_CMD_ARGS": "--preload"}, "background", "right", "GUNICORN_CMD_ARGS"),
        ({}, {"AWS_LAMBDA_FUNCTION_NAME": "f"}, "sync", "right", "before it ends"),
        ({}, {"AWS_LAMBDA_FUNCTION_NAME": "f"}, "background", "wrong", "nothing runs between invocations"),
    ],
)
def test_servers_are_told_by_their_traces(
    tmp_path: Path, *, files: dict[str, str], environ: dict[str, str], flush: str, status: str, words: str
) -> None:
    """Configuration in the folder, variables in the environment."""
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    found = list(server_checks(environ, tmp_path, flush=flush))
    assert any(check.status == status and words in check.finding for check in found)
    assert not any(check.status == "wrong" for check in found) or status == "wrong"


def test_without_traces_of_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the only one needs that needs anything."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.delitem(sys.modules, "gevent.monkey", raising=False)
    (check,) = server_checks({}, tmp_path, flush="background")
    assert "enable-threads" in check.finding


@pytest.mark.parametrize(("is_patched", "status"), [(True, "right"), (False, "unknown")])
def test_gevent_must_be_patched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_patched: bool, status: str
) -> None:
    """If it is there."""
    monkey = ModuleType("gevent.monkey")
    monkey.is_module_patched = lambda _name: is_patched  # type: ignore[attr-defined]  # as gevent has it
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    assert [each.status for each in server_checks({}, tmp_path, flush="sync") if "gevent" in each.finding] == [status]


def test_what_would_be_published_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two exporters on one provider; the environment's beside the program's; the predecessor beside this package."""
    readers = [CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=FakeCloudWatch())) for _ in range(2)]
    provider = MeterProvider(readers, shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry.metrics.get_meter_provider", lambda: provider)
    monkeypatch.setitem(sys.modules, "flask_cloudwatch_metric", ModuleType("flask_cloudwatch_metric"))
    found = {check.finding for check in publishing_checks.twice_checks({"OTEL_METRICS_EXPORTER": "otlp,cloudwatch"})}
    provider.shutdown()
    assert found == {
        "2 CloudWatch exporters are on the global MeterProvider, for namespace Shop.",
        "OTEL_METRICS_EXPORTER has cloudwatch, and the program makes an exporter of its own.",
        "The program imports flask_cloudwatch_metric too, which sends its metrics on its own.",
    }


def test_nothing_is_measured(tmp_path: Path) -> None:
    """An app without a reporter, in a program without an exporter."""
    (tmp_path / "plain.py").write_text("from flask import Flask\napp = Flask(__name__)\n", "utf-8")
    ended = run_flask(tmp_path / "plain.py", "doctor", "--json", folder=tmp_path)
    assert ended.returncode == 1
    said = findings(ended.stdout, "Measured")
    assert said[0] == ("wrong", "There is neither a CloudWatchMetricsReporter nor an exporter.")
    assert said[2] == ("unknown", "No global MeterProvider is set.")
