"""The claims of SECURITY.md that other tests do not cover: clients, operators and other users of the machine."""

import logging
import os
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from opentelemetry.sdk.metrics import MeterProvider

import otel_cloudwatch_flask
from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.config import Settings
from otel_cloudwatch_flask.delivery.batch import Batch
from otel_cloudwatch_flask.delivery.spool import Spool
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.model.rules import MetricRule
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch, client_error
from tests.support.fakes import ScriptedClient

ROOT = Path(__file__).parents[2]
SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


def instrumented_app(cloudwatch: FakeCloudWatch, **config: Any) -> tuple[Flask, CloudWatchMetricsReporter]:
    """Return an app with one route and instrumented requests, and its reporter."""
    app = Flask("shop")
    app.config.update(config)
    reporter = CloudWatchMetricsReporter(
        app, "Shop", cloudwatch, meter_provider=MeterProvider(shutdown_on_exit=False), instrument=True, flush="interval"
    )
    app.add_url_rule("/<page>", "page", lambda page: f"{page}: {request.method}", methods=["GET", "POST"])
    return app, reporter


CLIENTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "hosts": lambda number: {"path": "/a", "headers": {"Host": f"shop{number}"}},
    "paths of a route": lambda number: {"path": f"/{number}"},
    "paths that do not exist": lambda number: {"path": f"/no/{number}"},
    "queries": lambda number: {"path": "/a", "query_string": f"q={number}"},
    "methods": lambda number: {"path": "/a", "method": f"METHOD{number}"},
    "headers": lambda number: {
        "path": "/a",
        "headers": {
            "User-Agent": f"{number}",
            "X-Forwarded-For": f"10.0.0.{number}",
            "X-Forwarded-Proto": f"scheme{number}",
            "X-Forwarded-Host": f"host{number}",
            "Forwarded": f"for=10.0.0.{number}",
            "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01",
            "baggage": f"user={number}",
        },
    },
    "addresses": lambda number: {"path": "/a", "environ_overrides": {"REMOTE_ADDR": f"10.0.0.{number}"}},
}


@pytest.mark.parametrize("what", CLIENTS)
def test_clients_make_no_metrics(what: str) -> None:
    """Requests that differ only in client-controlled input count for the same metric."""
    cloudwatch = FakeCloudWatch()
    app, reporter = instrumented_app(cloudwatch)
    client = app.test_client()
    for number in range(20):
        client.open(**CLIENTS[what](number), buffered=True)
    assert reporter.flush()
    assert cloudwatch.count("http.server.duration") == 20
    assert [metric.name for metric in cloudwatch.metrics()].count("http.server.duration") == 1
    reporter.shutdown()


@pytest.mark.parametrize("variable", ["SERVER_PROTOCOL", "wsgi.url_scheme"])
def test_made_up_versions_and_schemes(variable: str) -> None:
    """Unknown HTTP versions and schemes, which a lax server accepts, create no metrics."""
    cloudwatch = FakeCloudWatch()
    app, reporter = instrumented_app(cloudwatch)
    client = app.test_client()
    client.get("/a", buffered=True)
    for number in range(50):
        client.get("/a", environ_overrides={variable: f"HTTP/7.{number}"}, buffered=True)
    assert reporter.flush()
    assert cloudwatch.count("http.server.duration") == 51
    assert [metric.name for metric in cloudwatch.metrics()].count("http.server.duration") == 1
    reporter.shutdown()


FORGED = "refused\n2026-01-01 ERROR shop: all is lost\x1b[2J\r\u2028\u202e"


def test_messages_of_others_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A response from CloudWatch or a proxy cannot forge log lines or control a terminal."""
    client = ScriptedClient(client_error("AccessDenied", FORGED, status=403), client_error("InvalidParameter", FORGED))
    reporter = CloudWatchMetricsReporter(Flask("shop"), "Shop", client, meter_provider=MeterProvider())
    reporter.add_metric("Orders", 1)
    reporter.flush()
    reporter.shutdown()
    assert client.calls
    assert "all is lost" in caplog.text
    for record in caplog.records:
        assert record.getMessage().isprintable(), record.getMessage()
    assert (reporter.stats().last_error or "").isprintable()


def test_what_is_logged_of_others_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """No text inserted into a log message can forge log lines or control a terminal."""
    RateLimitedLog(logging.getLogger(__name__)).warning("key", "%s was refused %d times", FORGED, 5)
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert record.getMessage().endswith("was refused 5 times")


def test_names_of_metrics_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Metric names, units and dimensions cannot forge log lines."""
    app = Flask("shop")
    reporter = CloudWatchMetricsReporter(app, "Shop", FakeCloudWatch(), meter_provider=MeterProvider())
    for arguments in (
        (FORGED, 1),
        ("Orders", FORGED),
        ("Orders", 1, FORGED),
        ("Orders", 1, "Count", {FORGED: FORGED * 999}),
    ):
        reporter.add_metric(*arguments)
    reporter.shutdown()
    assert caplog.records
    assert all(len(record.getMessage().splitlines()) == 1 for record in caplog.records)
    assert all("\x1b" not in record.getMessage() for record in caplog.records)


def test_secrets_are_nowhere_to_be_seen(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret key is not in the ``repr`` of any object, in the log, or in the statistics."""
    caplog.set_level(logging.DEBUG, logger="otel_cloudwatch_flask")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_SELF_METRICS", "true")
    app = Flask("shop")
    reporter = CloudWatchMetricsReporter.new_reporter(app, "Shop", "eu-west-1", "AKIDEXAMPLE", SECRET)
    reporter.add_metric("Orders", 1)
    assert not reporter.flush(timeout_seconds=1.0)
    exporter = app.extensions["cloudwatch_metrics"].registration.exporter
    texts = [
        repr(each) for each in (reporter, exporter, exporter.settings, reporter.stats(), app.extensions, app.config)
    ]
    reporter.shutdown(timeout_seconds=0.1)
    assert "EndpointConnectionError" in str(reporter.stats().last_error)
    assert SECRET not in "".join([*texts, caplog.text, str(reporter.stats())])


def test_errors_of_configuration_have_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration error contains the invalid key and its value, but no other settings."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    app = Flask("shop")
    app.config.update(SECRET_KEY=SECRET, CLOUDWATCH_MAX_METRICS="many")
    with pytest.raises(ConfigurationError) as caught:
        CloudWatchMetricsReporter(app, "Shop")
    assert caught.value.value == "many"
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_signature_tells_no_token() -> None:
    """The session token is masked in CloudWatch's signature error, which repeats the signed request."""
    message = f"does not match. The Canonical String was 'POST\n/\nhost:x\nx-amz-security-token:{SECRET}\n\nhost'"
    client = ScriptedClient(*[client_error("SignatureDoesNotMatch", message, status=403)] * 9)
    reporter = CloudWatchMetricsReporter(Flask("shop"), "Shop", client, meter_provider=MeterProvider())
    reporter.add_metric("Orders", 1)
    reporter.flush(timeout_seconds=0.2)
    assert "x-amz-security-token:***" in str(reporter.stats().last_error)
    reporter.shutdown(timeout_seconds=0.1)


@pytest.mark.parametrize("variable", ["RULES", "DEFAULT_DIMENSIONS"])
def test_nested_json_is_a_configuration_error(variable: str) -> None:
    """Deeply nested JSON in an environment variable is rejected like other invalid text."""
    nested = '{"a":' * 100_000
    with pytest.raises(ConfigurationError, match="is not JSON"):
        Settings.resolve(arguments={}, app_config={}, environ={f"OTEL_EXPORTER_CLOUDWATCH_{variable}": nested})


def test_globs_take_no_time() -> None:
    """Matching a rule's patterns takes bounded time for any name."""
    begun = time.monotonic()
    rule = MetricRule(match="*a" * 40 + "b", dimensions=["*a" * 40 + "b"])
    assert not rule.keeps("a" * 255)
    assert time.monotonic() - begun < 1.0


BODY = (
    b'{"Namespace":"Shop","MetricData":[{"MetricName":"Orders","Dimensions":[],"Unit":"Count","StorageResolution":60,'
    b'"Timestamp":1700000000,"Value":5}]}'
)

# Spool files that other users of the machine may have created.


@pytest.fixture
def spooled(tmp_path: Path) -> Path:
    """Create the spool directory of an ended process with one batch, and return its path."""
    spool = Spool(tmp_path)
    path = spool.write(Batch.from_body(BODY))
    spool.close()
    assert path is not None
    return path.parent


def taken_over(directory: Path) -> list[str]:
    """Return the names of the metrics that a new process adopts from the spool."""
    spool = Spool(directory)
    batches = [spool.read(path) for path in spool.adopt()]
    return [datum.series.name for each in batches if each is not None for datum in each.datums]


def test_the_spool_of_another_user_is_left_alone(
    spooled: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another user's files in a shared directory are not sent, moved or removed."""
    others = os.geteuid() + 1
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: others)
        assert taken_over(spooled.parent) == []
    assert "belongs to another user" in caplog.text
    assert len(list(spooled.glob("*.batch"))) == 1
    assert taken_over(spooled.parent) == ["Orders"]


def test_a_link_to_a_directory_is_not_followed(spooled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No directory outside the spool is adopted, locked or removed through a symbolic link."""
    outside = tmp_path_factory.mktemp("outside") / spooled.name
    spooled.rename(outside)
    spooled.symlink_to(outside)
    before = sorted(outside.iterdir())
    assert taken_over(spooled.parent) == []
    assert sorted(outside.iterdir()) == before


def test_a_link_in_place_of_the_lock_is_not_followed(spooled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No file is created at the target of a symbolic link."""
    target = tmp_path_factory.mktemp("outside") / "made"
    (spooled / "lock").unlink()
    (spooled / "lock").symlink_to(target)
    assert taken_over(spooled.parent) == []
    assert not target.exists()


def _link(path: Path) -> None:
    outside = path.parent.parent / "outside"
    shutil.copy(path, outside)
    path.unlink()
    path.symlink_to(outside)


def _grow(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(10 * 2**30)  # a sparse file, which uses no disk space


def _replace(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


BAD_FILES: dict[str, Callable[[Path], None]] = {
    "a link": _link,
    "a pipe": _replace(os.mkfifo),
    "a directory": _replace(Path.mkdir),
    "ten gigabytes": _grow,
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_what_is_no_file_of_a_batch_is_set_aside(spooled: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """Symbolic links are not followed, pipes are not read, and files larger than a batch are not loaded."""
    (file,) = spooled.glob("*.batch")
    BAD_FILES[what](file)
    begun = time.monotonic()
    assert taken_over(spooled.parent) == []
    assert time.monotonic() - begun < 2.0
    assert "as a batch of metrics" in caplog.text


def test_a_batch_of_nonsense_is_set_aside(tmp_path: Path) -> None:
    """A batch of invalid JSON of any form or depth is set aside, even if its checksum is correct."""
    from otel_cloudwatch_flask.delivery import spool as module  # noqa: PLC0415 - for the checksum function

    spool = Spool(tmp_path)
    for body in (
        b"[" * 500_000,
        b"[]",
        b"null",
        b'{"Namespace": 5}',
        b'{"Namespace": "a", "MetricData": [5]}',
        b"1" * 5000,
    ):
        path = spool.write(Batch.from_body(BODY))
        assert path is not None
        path.write_bytes(module._checked(body))
        assert spool.read(path) is None


def test_nothing_in_the_package_executes_data() -> None:
    """No module of the package unpickles data, evaluates code or starts a shell."""
    forbidden = re.compile(r"\b(pickle|marshal|shelve|eval|exec|os\.system|shell=True|yaml\.load)\b")
    found = {
        f"{path.name}: {line.strip()}"
        for path in Path(otel_cloudwatch_flask.__file__).parent.rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if forbidden.search(line) and not line.lstrip().startswith(("#", '"'))
    }
    assert found == set()


def test_only_loopback_is_listened_on() -> None:
    """The local CloudWatch listens only on the loopback interface."""
    program = (
        "from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch\n"
        "with LocalCloudWatch() as running: print(running.environment()['AWS_ENDPOINT_URL_CLOUDWATCH'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("http://127.0.0.1:")


def test_every_test_named_in_the_policy_exists() -> None:
    """Every test that SECURITY.md names for a claim exists."""
    policy = (ROOT / "SECURITY.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", policy))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", path.read_text("utf-8"))
    }
    assert named
    assert named - there == set()
