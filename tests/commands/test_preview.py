import json
import re
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask

from otel_cloudwatch_flask.cli import main
from otel_cloudwatch_flask.commands.preview import requestable_paths
from otel_cloudwatch_flask.commands.shared.command import CommandError
from otel_cloudwatch_flask.commands.shared.document import document_from
from otel_cloudwatch_flask.commands.shared.request_file import read_requests
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.support.command_runs import SHOP, run_flask


def app_file(folder: Path, config: str = "", views: str = "", **arguments: str) -> Path:
    """Write a program with an app whose only view records a metric, and return its path."""
    given = "".join(f", {name}={value}" for name, value in arguments.items())
    program = f"""
        from flask import Flask
        from otel_cloudwatch_flask import CloudWatchMetricsReporter

        app = Flask(__name__)
        {config}
        metrics = CloudWatchMetricsReporter(app, "Shop"{given})

        @app.get("/")
        def index():
            metrics.add_metric("Visits", 1, "Count")
            return ""
        {views}
        """
    path = folder / "shop_app.py"
    path.write_text(textwrap.dedent(program), "utf-8")
    return path


def test_nothing_is_sent_to_cloudwatch() -> None:
    """Every route without variable parts is requested, and the metrics of production are shown."""
    with LocalCloudWatch() as cloudwatch:
        ended = run_flask(SHOP, "preview", environment=cloudwatch.environment())
        assert cloudwatch.traffic.put_requests == 0
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("GET / 200\nGET /search 200\nGET /slow 200\n\nNamespace Shop\n")
    assert "Nothing was sent." in ended.stdout
    for name in ("Report Time in Milliseconds", "RequestCount in Count", "http.server.duration in Milliseconds"):
        assert f"\n{name}\n" in ended.stdout


def test_an_app_with_emf_output(tmp_path: Path) -> None:
    """The metrics are shown, but no EMF line is written."""
    ended = run_flask(app_file(tmp_path, output="'emf'"), "preview")
    assert ended.returncode == 0, ended.stderr
    assert "Visits in Count" in ended.stdout
    assert re.search(r"1 CloudWatch metric in EMF lines, \d+ bytes. Nothing was sent.", ended.stdout)
    assert "_aws" not in ended.stdout


def test_the_document_describes_the_requests() -> None:
    """Each path is requested as often as --times says, and other commands accept the document."""
    ended = run_flask(SHOP, "preview", "/", "/search?q=tea", "/products/99", "--times", "3", "--json")
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert [(each["path"], each["status"]) for each in result["visits"]] == [
        ("/", 200),
        ("/search?q=tea", 200),
        ("/products/99", 404),
    ] * 3
    by_name = {each["metric_name"]: each for each in result["series"]}
    assert (by_name["RequestCount"]["samples"], by_name["RequestCount"]["sum"]) == (3, 3)
    assert sum(each["samples"] for each in result["series"] if each["metric_name"] == "http.server.duration") == 9
    document = document_from(result)
    assert document.requests_per_second is None
    assert document.namespaces == ["Shop"]


def test_an_app_that_disables_dry_run_is_not_previewed(tmp_path: Path) -> None:
    """An app that disables dry runs is not previewed, because it would send the preview to CloudWatch."""
    path = app_file(tmp_path, config='app.config["CLOUDWATCH_DRY_RUN"] = False')
    ended = run_flask(path, "preview")
    assert ended.returncode == 2
    assert ended.stderr == (
        'Error: app.config["CLOUDWATCH_DRY_RUN"] is false, so the preview would be sent to CloudWatch: '
        "remove that setting.\n"
    )


def test_an_app_that_cannot_publish(tmp_path: Path) -> None:
    """The message says that the app or the SDK is disabled, or that the app has no reporter."""
    path = app_file(tmp_path, config='app.config["CLOUDWATCH_ENABLED"] = False')
    ended = run_flask(path, "preview")
    assert ended.returncode == 2
    assert 'app.config["CLOUDWATCH_ENABLED"] is false' in ended.stderr
    (tmp_path / "plain.py").write_text("from flask import Flask\napp = Flask(__name__)\n", "utf-8")
    enabled = {"OTEL_EXPORTER_CLOUDWATCH_ENABLED": "true"}
    for environment in ({}, enabled):
        ended = run_flask(tmp_path / "plain.py", "preview", "/", environment=environment)
        assert "it has no CloudWatchMetricsReporter" in ended.stderr
    ended = run_flask(app_file(tmp_path), "preview", environment={"OTEL_SDK_DISABLED": "true"})
    assert "OTEL_SDK_DISABLED is true" in ended.stderr


def test_failing_views_and_untrusted_names(tmp_path: Path) -> None:
    """The exception of a view is shown after its path, and metric names are escaped."""
    views = r"""
        @app.get("/broken")
        def broken():
            raise ValueError("\x1b[2J")

        @app.get("/exit")
        def leave():
            raise SystemExit(3)

        @app.get("/hostile")
        def hostile():
            metrics.add_metric("[red]Orders[/]", 1, "Count", {"Page": "\x1b[31m" + "x" * 1000})
            return ""
        """
    path = app_file(
        tmp_path,
        config="app.config['PROPAGATE_EXCEPTIONS'] = True",
        views=textwrap.dedent(views).replace("\n", "\n        "),
        strict="False",
    )
    ended = run_flask(path, "preview")
    assert ended.returncode == 0, ended.stderr
    assert "GET /broken ValueError: \\x1b[2J\n" in ended.stdout
    assert "GET /exit SystemExit: 3\n" in ended.stdout
    assert "[red]Orders[/] in Count" in ended.stdout
    assert all(character.isprintable() or character == "\n" for character in ended.stdout)
    assert max(map(len, ended.stdout.splitlines())) <= 100


def test_each_namespace_is_shown_once(tmp_path: Path) -> None:
    """The metrics of a namespace are shown together, even if metrics of another namespace were sent in between."""
    program = """
        from flask import Flask
        from otel_cloudwatch_flask import CloudWatchMetricsReporter

        app = Flask(__name__)
        shop = CloudWatchMetricsReporter(app, "Shop", flush="sync")
        cafe = CloudWatchMetricsReporter(Flask("cafe"), "Cafe")

        @app.get("/<name>")
        def view(name):
            (cafe if name == "b" else shop).add_metric(name, 1)
            cafe.flush()
            return ""
        """
    (tmp_path / "shop_app.py").write_text(textwrap.dedent(program), "utf-8")
    ended = run_flask(tmp_path / "shop_app.py", "preview", "/a", "/b", "/c")
    assert re.findall(r"^(?:Namespace (\w+)|(\w) without unit)$", ended.stdout, re.MULTILINE) == [
        ("Cafe", ""),
        ("", "b"),
        ("Shop", ""),
        ("", "a"),
        ("", "c"),
    ]


def test_a_reader_that_fails(tmp_path: Path) -> None:
    """If a reader of the app fails, the metrics may be incomplete, so its error is printed instead."""
    program = """
        from flask import Flask
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
        from otel_cloudwatch_flask import CloudWatchMetricExporter

        class BrokenReader(InMemoryMetricReader):
            def force_flush(self, timeout_millis=10_000):
                raise RuntimeError("unreachable")

        readers = [BrokenReader(), PeriodicExportingMetricReader(CloudWatchMetricExporter("Shop"))]
        metrics.set_meter_provider(MeterProvider(readers))
        app = Flask(__name__)

        @app.get("/")
        def index():
            metrics.get_meter("shop").create_counter("visits").add(1)
            return ""
        """
    (tmp_path / "shop_app.py").write_text(textwrap.dedent(program), "utf-8")
    ended = run_flask(tmp_path / "shop_app.py", "preview")
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "Error: The metrics of the app cannot be collected: MeterProvider.force_flush failed"
    )
    assert ended.stderr.endswith("BrokenReader: RuntimeError('unreachable')\n")


def test_views_that_record_nothing(tmp_path: Path) -> None:
    """The exit status says that no metrics would be published."""
    path = app_file(tmp_path, views="@app.get('/unmeasured')\n        def unmeasured():\n            return ''")
    ended = run_flask(path, "preview", "/unmeasured")
    assert ended.returncode == 1
    assert ended.stdout.endswith("These requests would publish no metrics.\n")


def test_an_empty_file_name(tmp_path: Path) -> None:
    """An empty name is an error, so that not all routes are requested instead."""
    ended = run_flask(app_file(tmp_path), "preview", "--requests", "")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "Error: Cannot read requests from the file: its name is empty.\n"


def test_an_app_is_required() -> None:
    """The message says how to select an app."""
    result = CliRunner().invoke(main, ["preview"])
    assert result.exit_code == 2
    assert "run flask --app YOUR_APP cloudwatch preview" in result.output


@pytest.mark.parametrize("methods", [["GET"], ["GET", "POST"]])
def test_requestable_paths(methods: list[str]) -> None:
    """Requestable paths accept GET and have no variable parts, which excludes static files."""
    app = Flask("shop")
    app.add_url_rule("/b", "b", lambda: "", methods=methods)
    app.add_url_rule("/a/", "a", lambda: "", methods=methods)
    app.add_url_rule("/post", "post", lambda: "", methods=["POST"])
    app.add_url_rule("/item/<item>", "item", lambda item: item)
    assert requestable_paths(app) == ["/a/", "/b"]


ORDERS_VIEW = """
        @app.post("/orders")
        def order():
            from flask import request
            item = (request.get_json(silent=True) or request.form)["item"]
            metrics.add_metric("Orders", 1, "Count", {"Item": str(item)})
            return "", 201
        """
LINES = """
# What a customer does:
GET /
POST /orders {"item": 3}
POST /orders item=4&quantity=1
"""
HAR = {
    "log": {
        "entries": [
            {"request": {"method": "GET", "url": "https://shop.example"}},
            {
                "request": {
                    "method": "POST",
                    "url": "https://shop.example/orders?from=cart",
                    "postData": {"mimeType": "application/json", "text": '{"item": 3}'},
                }
            },
        ]
    }
}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (LINES, ["GET / 200", "POST /orders 201", "POST /orders 201"]),
        (json.dumps(HAR), ["GET / 200", "POST /orders?from=cart 201"]),
        ("\ufeffPOST /orders item=3", ["POST /orders 201"]),
    ],
)
def test_requests_of_a_file(tmp_path: Path, text: str, lines: list[str]) -> None:
    """The requests of a text or HAR file are sent, with their methods and bodies."""
    (tmp_path / "requests.txt").write_text(text, "utf-8")
    path = app_file(tmp_path, views=ORDERS_VIEW)
    ended = run_flask(path, "preview", "--requests", str(tmp_path / "requests.txt"), "--json")
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert [f"{each['method']} {each['path']} {each['status']}" for each in result["visits"]] == lines
    assert {"Item": "3"} in [each["dimensions"] for each in result["series"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GET /\nFETCH /orders", "line 2 is not METHOD /path [body], with one of GET, HEAD,"),
        ("GET https://shop.example/", "line 1 is not METHOD /path [body]"),
        ("# nothing\n", "contains no requests. Write one per line, such as GET /search?q=tea."),
        ('{"log": 3}', "it is JSON, but not a HAR file."),
        ('{"log', "Cannot read requests from"),
        (None, "No such file or directory."),
    ],
)
def test_a_file_without_usable_requests(tmp_path: Path, text: str | None, message: str) -> None:
    """The message names the file, and says what is wrong and what is expected."""
    path = tmp_path / "requests.txt"
    if text is not None:
        path.write_text(text, "utf-8")
    with pytest.raises(CommandError, match=re.escape(message)) as error:
        read_requests(str(path))
    assert str(path) in str(error.value)
