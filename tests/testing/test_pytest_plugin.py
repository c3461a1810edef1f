"""The pytest fixture in a user's project, which runs in a separate pytest process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = "pytester"

DOCS = (Path(__file__).parents[2] / "docs" / "testing.md").read_text("utf-8")
FILES = dict(re.findall(r"^```py\n# (\S+)\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with the documentation's shop, on a machine on which calls to AWS fail."""
    for variable in ("PYTEST_ADDOPTS", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    pytester.makepyfile(shop=FILES["shop.py"])
    return pytester


def run(project: pytest.Pytester) -> pytest.RunResult:
    """Run the project's tests with warnings as errors."""
    return project.runpytest_subprocess("-Werror", "-p", "no:cacheprovider")


def test_the_documentation(project: pytest.Pytester) -> None:
    """The example project of docs/testing.md passes."""
    for name, code in FILES.items():
        (project.path / name).write_text(code, "utf-8")
    result = run(project)
    result.assert_outcomes(passed=2)
    assert "cannot be sent" not in result.stderr.str()


def test_each_test_begins_with_nothing(project: pytest.Pytester) -> None:
    """Apps of module, session and function scope all publish to the fixture, and each test starts empty.

    Apps of earlier tests and their threads are gone, and no data is pending in the end.
    """
    project.makepyfile(
        """
        import threading

        import pytest
        from opentelemetry import metrics
        from shop import create_app

        from otel_cloudwatch_flask.testing.intercept import intercepted_cloudwatch

        module_app = create_app()
        module_counter = metrics.get_meter("module").create_counter("module.counter")


        @pytest.fixture(scope="session")
        def session_app():
            return create_app()


        def test_outside_of_the_fixture(session_app):
            module_counter.add(100)
            module_app.test_client().get("/before")


        @pytest.mark.parametrize("number", range(12))
        def test_inside(number, session_app, cloudwatch):
            assert [each for each in cloudwatch.metrics() if each.name != "http.server.active_requests"] == []
            for app in (module_app, session_app, create_app()):
                app.test_client().get("/Index")
            module_counter.add(3)
            assert cloudwatch.sum("RequestCount", ResourceName="Index") == 3
            assert cloudwatch.sum("RequestCount") == 3
            assert cloudwatch.sum("module.counter") == 3
            assert threading.active_count() <= 16
            cloudwatch.assert_no_losses()
            module_counter.add(50)  # Never looked up.


        def test_a_context_that_is_still_open(cloudwatch):
            with create_app().test_client() as client:
                client.get("/Index")
                assert cloudwatch.sum("RequestCount") == 1
                cloudwatch.clear()
                client.get("/Index")
                assert cloudwatch.sum("RequestCount") == 1


        def test_a_block_inside(cloudwatch):
            app = create_app()
            app.test_client().get("/Index")
            with intercepted_cloudwatch() as inner:
                app.test_client().get("/Cart")
                assert inner.sum("RequestCount", ResourceName="Cart") == inner.sum("RequestCount") == 1
                app.test_client().get("/Cart")
            app.test_client().get("/Index")
            assert cloudwatch.sum("RequestCount", ResourceName="Index") == cloudwatch.sum("RequestCount") == 2


        def test_an_outage(cloudwatch):
            from otel_cloudwatch_flask.testing.fake import client_error

            cloudwatch.fail_next(client_error("ThrottlingException"), times=2)
            create_app().test_client().get("/Index")
            assert cloudwatch.flush()
            assert cloudwatch.sum("RequestCount") == 1
            cloudwatch.assert_no_losses()
            cloudwatch.fail_next(client_error("ThrottlingException"), times=1000)
            module_counter.add(1)


        def test_after_the_outage(cloudwatch):
            assert [each for each in cloudwatch.metrics() if each.name != "http.server.active_requests"] == []
        """
    )
    result = run(project)
    result.assert_outcomes(passed=17)
    assert "lost" not in result.stderr.str()


def test_misspelt_names(project: pytest.Pytester) -> None:
    """Lookups of a name that was never published fail and suggest the nearest name, unless a default is given."""
    project.makepyfile(
        """
        import pytest
        from shop import create_app


        @pytest.mark.parametrize("where", [{}, {"ResourceName": "Index"}, {"ResourceName": "Cart"}])
        def test_names(where, cloudwatch):
            create_app().test_client().get("/Index")
            metrics = cloudwatch.where(where) if where else cloudwatch
            for look_up in (metrics.sum, metrics.count):
                with pytest.raises(LookupError, match="RequestCont was never published.*default=0"):
                    look_up("RequestCont")
                assert look_up("RequestCont", default=0) == 0
                assert look_up("RequestCount", ResourceName="Cart") == 0
                assert look_up("RenderTime", namespace="Elsewhere") == 0
                assert metrics.where(ResourceName="Cart").where(Page="1").count("RequestCount") == 0
        """
    )
    run(project).assert_outcomes(passed=3)


def test_failures_say_what_was_published(project: pytest.Pytester) -> None:
    """Failure reports list the published metrics for a wrong name or number, a loss, or an app with its own client."""
    project.makepyfile(
        """
        import pytest
        from flask import Flask
        from shop import create_app

        from otel_cloudwatch_flask import CloudWatchMetricsReporter
        from otel_cloudwatch_flask.testing.fake import FakeCloudWatch


        def test_comparison(cloudwatch):
            create_app().test_client().get("/Index")
            assert cloudwatch.sum("RequestCounts") == 1


        def test_name(cloudwatch):
            create_app().test_client().get("/Index")
            cloudwatch.assert_published("request_counts")


        def test_number(cloudwatch):
            create_app().test_client().get("/Index")
            cloudwatch.assert_published("RequestCount", sum=2, ResourceName="Index")


        def test_loss(cloudwatch):
            app = create_app()
            app.testing = False
            CloudWatchMetricsReporter.add_metric("Bad", float("nan"))
            cloudwatch.assert_no_losses()


        def test_own_client(cloudwatch):
            reporter = CloudWatchMetricsReporter(Flask("own"), "Own", FakeCloudWatch())
            reporter.add_metric("Visits", 1)
            assert cloudwatch.sum("Visits") == 1
        """
    )
    result = run(project)
    result.assert_outcomes(failed=5)
    result.stdout.fnmatch_lines(
        [
            "*Captured cloudwatch call*",
            "  Shop: RequestCount {ResourceName=Index} in Count: sum 1, count 1",
            "E *request_counts was not published. Published metrics:",
            "E *Shop: RequestCount {ResourceName=Index} in Count: sum 1, count 1",
            "E *RequestCount {ResourceName=Index} has sum 1, not 2. Published metrics:",
            "E *Metrics did not arrive:",
            "E *1 measurement(s) lost: invalid",
            "  (An exporter was created with its own client, and publishes to that client instead.)",
        ]
    )


def test_the_plugin_costs_nothing_where_it_is_not_used() -> None:
    """Pytest imports the plugin in every project, so importing it imports neither Flask, OpenTelemetry nor boto3."""
    program = (
        "import sys, pytest; before = set(sys.modules); import otel_cloudwatch_flask.pytest_plugin; "
        "print(sorted(name for name in set(sys.modules) - before if name.count('.') == 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['otel_cloudwatch_flask']"
