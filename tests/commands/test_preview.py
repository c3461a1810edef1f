import json
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask

from otel_cloudwatch_flask.cli import main
from otel_cloudwatch_flask.commands.preview import visitable_paths
from otel_cloudwatch_flask.commands.shared.document import document_from
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.support.command_runs import SHOP, run_flask


def app_file(folder: Path, config: str = "", views: str = "", **arguments: str) -> Path:
    """A program with an app, and a metric in its only view."""
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


def test_nothing_reaches_cloudwatch() -> None:
    """Every route without a variable part is visited; what is shown is what production would publish."""
    with LocalCloudWatch() as cloudwatch:
        ended = run_flask(SHOP, "preview", environment=cloudwatch.environment())
        assert cloudwatch.traffic.put_requests == 0
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("GET / 200\nGET /search 200\nGET /slow 200\n\nNamespace Shop\n")
    assert "Nothing was sent." in ended.stdout
    for name in ("Report Time in Milliseconds", "RequestCount in Count", "http.server.duration in Milliseconds"):
        assert f"\n{name}\n" in ended.stdout


def test_the_document_has_what_was_visited() -> None:
    """As often as was asked for, and cost reads it."""
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


def test_an_app_that_insists_on_sending_is_not_visited(tmp_path: Path) -> None:
    """A dry run is what the command promises."""
    path = app_file(tmp_path, config='app.config["CLOUDWATCH_DRY_RUN"] = False')
    ended = run_flask(path, "preview")
    assert ended.returncode == 2
    assert ended.stderr == (
        'Error: app.config["CLOUDWATCH_DRY_RUN"] is false, so that a preview would be sent to CloudWatch: '
        "leave it out.\n"
    )


def test_an_app_that_publishes_nothing_says_why(tmp_path: Path) -> None:
    """Switched off, or without a reporter."""
    path = app_file(tmp_path, config='app.config["CLOUDWATCH_ENABLED"] = False')
    ended = run_flask(path, "preview")
    assert ended.returncode == 2
    assert 'app.config["CLOUDWATCH_ENABLED"] is false' in ended.stderr
    (tmp_path / "plain.py").write_text("from flask import Flask\napp = Flask(__name__)\n", "utf-8")
    assert "it has no CloudWatchMetricsReporter" in run_flask(tmp_path / "plain.py", "preview", "/").stderr


def test_views_that_fail_and_hostile_names(tmp_path: Path) -> None:
    """What a view raises is shown beside its path; what it calls its metrics cannot harm a terminal."""
    views = r"""
        @app.get("/broken")
        def broken():
            raise ValueError("\x1b[2J")

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
    assert "[red]Orders[/] in Count" in ended.stdout
    assert all(character.isprintable() or character == "\n" for character in ended.stdout)
    assert max(map(len, ended.stdout.splitlines())) <= 100


def test_views_that_measure_nothing(tmp_path: Path) -> None:
    """The exit code says that nothing would be published."""
    path = app_file(tmp_path, views="@app.get('/quiet')\n        def quiet():\n            return ''")
    ended = run_flask(path, "preview", "/quiet")
    assert ended.returncode == 1
    assert ended.stdout.endswith("Nothing would be published: no view that was visited measured anything.\n")


def test_without_an_app_there_is_nothing_to_look_at() -> None:
    """The message says how to give one."""
    result = CliRunner().invoke(main, ["preview"])
    assert result.exit_code == 2
    assert "run flask --app YOUR_APP cloudwatch preview" in result.output


@pytest.mark.parametrize("methods", [["GET"], ["GET", "POST"]])
def test_only_routes_that_can_be_visited_are(methods: list[str]) -> None:
    """With GET, and without a variable part; static files have one."""
    app = Flask("shop")
    app.add_url_rule("/b", "b", lambda: "", methods=methods)
    app.add_url_rule("/a/", "a", lambda: "", methods=methods)
    app.add_url_rule("/post", "post", lambda: "", methods=["POST"])
    app.add_url_rule("/item/<item>", "item", lambda item: item)
    assert visitable_paths(app) == ["/a/", "/b"]
