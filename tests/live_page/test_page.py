"""The live page: access control, content, and the absence of any effect when disabled."""

import json
import logging
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pytest
from botocore.exceptions import NoCredentialsError, NoRegionError, TokenRetrievalError, UnauthorizedSSOTokenError
from flask import Flask, redirect, request
from opentelemetry.sdk.metrics import MeterProvider
from werkzeug.test import TestResponse

from otel_cloudwatch_flask import CloudWatchMetricsReporter, MetricRule
from otel_cloudwatch_flask.delivery.stats import DeliveryStats
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.live_page.access import is_local_request
from otel_cloudwatch_flask.live_page.messages import MESSAGES
from otel_cloudwatch_flask.live_page.page_data import cost, delivery, rate_per_second, trend
from otel_cloudwatch_flask.pricing import SECONDS_PER_MONTH
from otel_cloudwatch_flask.sdk.reader import readers_on
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch, client_error
from tests.support.fakes import ScriptedClient, eventually

PATH = "/_cloudwatch"
NOW = 1_700_000_000.0

MakeApp = Callable[..., "Shop"]


class Shop:
    """An app with a reporter on its own provider, and a fake CloudWatch."""

    def __init__(
        self, config: dict[str, Any], client: Any = None, *, debug: bool | None = True, **options: Any
    ) -> None:
        self.cloudwatch = FakeCloudWatch()
        self.app = Flask("shop")
        if debug is not None:
            self.app.debug = debug
        self.app.config.update(config)
        self.app.add_url_rule("/order", view_func=self.order)
        self.provider = MeterProvider(shutdown_on_exit=False)
        options.setdefault("flush", "interval")
        self.reporter = CloudWatchMetricsReporter(
            self.app, "Shop", client or self.cloudwatch, meter_provider=self.provider, **options
        )

    def order(self) -> str:
        """Record the metrics of an order."""
        self.reporter.add_metric("Orders", 1, "Count", {"Payment": random.choice(["card", "invoice"])})
        self.reporter.add_metric("Checkout Time", random.lognormvariate(4, 1), "Milliseconds")
        return "Thanks"

    def get(self, path: str = PATH, method: str = "GET", **environ: Any) -> TestResponse:
        """Send a request from this machine, unless the environment overrides it."""
        return self.app.test_client().open(path, method=method, environ_overrides=environ, buffered=True)

    def data(self, **arguments: str) -> dict[str, Any]:
        """Return the data that the page polls."""
        response = self.app.test_client().get(f"{PATH}/data.json", query_string=arguments)
        assert response.status_code == 200
        document: dict[str, Any] = json.loads(response.text)
        return document

    def flush_in_vain(self) -> None:
        """Flush until a call has failed. Under load, the first flushes may end before their call."""
        assert eventually(lambda: not self.reporter.flush(timeout_seconds=0.01) and self.data()["remedy"] is not None)


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """A function that creates apps, whose reporters are shut down after the test."""
    made: list[Shop] = []

    def make(live_page: bool | None = None, client: Any = None, **options: Any) -> Shop:  # noqa: FBT001
        keys = [each for each in options if each.startswith("CLOUDWATCH_")]
        config = {"CLOUDWATCH_LIVE_PAGE": live_page, **{key: options.pop(key) for key in keys}}
        made.append(Shop(config, client, **options))
        return made[-1]

    yield make
    logging.getLogger("otel_cloudwatch_flask").removeHandler(MESSAGES)
    MESSAGES._messages.clear()
    for shop in made:
        shop.reporter.shutdown(timeout_seconds=1)


LOCAL = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:5000"}

LOCAL_VARIANTS: list[dict[str, str]] = [
    {},
    {"REMOTE_ADDR": "127.8.9.1"},
    {"REMOTE_ADDR": "::1", "HTTP_HOST": "[::1]:5000"},
    {"REMOTE_ADDR": "::ffff:127.0.0.1"},
    {"HTTP_HOST": "127.0.0.1"},
    {"HTTP_HOST": "Shop.localhost:80"},
]

REMOTE: list[dict[str, str]] = [
    {"REMOTE_ADDR": "192.168.0.7"},
    {"REMOTE_ADDR": "::ffff:10.0.0.1"},
    {"REMOTE_ADDR": ""},
    {"REMOTE_ADDR": "unix:"},
    {"REMOTE_ADDR": "127.0.0.1, 8.8.8.8"},
    {"HTTP_HOST": "evil.example"},
    {"HTTP_HOST": "localhost.evil.example"},
    {"HTTP_HOST": "127.0.0.1.evil.example"},
    {"HTTP_HOST": "notlocalhost"},
    {"HTTP_HOST": ""},
    {"HTTP_HOST": "[::1"},
]


@pytest.mark.parametrize("environ", LOCAL_VARIANTS, ids=str)
def test_local_requests(environ: dict[str, str]) -> None:
    """A request from a loopback address to a loopback host is local."""
    with Flask("shop").test_request_context(environ_overrides={**LOCAL, **environ}):
        assert is_local_request()


@pytest.mark.parametrize("environ", [each for each in REMOTE if each != {"HTTP_HOST": "[::1"}], ids=str)
def test_remote_requests(environ: dict[str, str]) -> None:
    """Requests from other machines or to other host names are not local."""
    with Flask("shop").test_request_context(environ_overrides={**LOCAL, **environ}):
        assert not is_local_request()


@pytest.mark.parametrize("resource", ["", "/data.json", "/series.json?id=1", "/live.js", "/uplot.css", "/none"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_remote_requests_get_the_404_of_an_unknown_path(make_app: MakeApp, resource: str, method: str) -> None:
    """For each resource and method, the response is that for an unknown path."""
    shop = make_app()
    response = shop.get(PATH + resource, method, REMOTE_ADDR="10.0.0.1")
    nowhere = shop.get("/nowhere", REMOTE_ADDR="10.0.0.1")
    assert response.status_code == 404
    assert (dict(response.headers), response.data) == (dict(nowhere.headers), nowhere.data)


def test_an_invalid_host_header(make_app: MakeApp) -> None:
    """A request with a malformed Host header is not local."""
    assert make_app().get(HTTP_HOST="[::1:5000").status_code in (400, 404)


@pytest.mark.parametrize(("live_page", "debug"), [(None, True), (True, True), (True, False)])
def test_enabled(make_app: MakeApp, live_page: bool | None, debug: bool) -> None:  # noqa: FBT001
    """The page is enabled by its setting, or else by debug mode at the time of ``init_app``."""
    shop = make_app(live_page, debug=debug, CLOUDWATCH_LIVE_PAGE_CHECK=None if debug else lambda: True)
    assert shop.get().status_code == 200
    assert shop.get(f"{PATH}/data.json").status_code == 200


def test_enabled_by_flask_run_debug(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is enabled by `flask run --debug`, which sets FLASK_DEBUG before the app is loaded."""
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert make_app(debug=None).get().status_code == 200


@pytest.mark.parametrize(("live_page", "debug"), [(None, False), (False, False), (False, True)])
def test_disabled(make_app: MakeApp, live_page: bool | None, debug: bool) -> None:  # noqa: FBT001
    """If the page is disabled, the app has no route, the exporter no callback, and the logger no handler."""
    shop = make_app(live_page, debug=debug, CLOUDWATCH_LIVE_PAGE_CHECK=lambda: True)
    registration = shop.app.extensions["cloudwatch_metrics"].registration
    assert [rule.endpoint for rule in shop.app.url_map.iter_rules()] == ["static", "order"]
    assert registration.exporter._watchers == []
    assert MESSAGES not in logging.getLogger("otel_cloudwatch_flask").handlers
    assert "cloudwatch" not in shop.app.test_cli_runner().invoke(args=["routes"]).output


def test_disabled_leaves_the_path_to_the_app(make_app: MakeApp) -> None:
    """If the page is disabled, the app can serve the page's path, for example with a catch-all route."""
    shop = make_app(debug=False)
    shop.app.add_url_rule("/<path:page>", "page", lambda page: page)
    assert shop.get(f"{PATH}/data.json").text == "_cloudwatch/data.json"


def test_outside_of_debug_mode_a_check_is_required() -> None:
    """Without a check, setup fails with a message that shows one, and changes neither the app nor the provider."""
    app, provider = Flask("shop"), MeterProvider(shutdown_on_exit=False)
    app.config["CLOUDWATCH_LIVE_PAGE"] = True
    with pytest.raises(ConfigurationError, match="debug mode") as raised:
        CloudWatchMetricsReporter(app, "Shop", FakeCloudWatch(), meter_provider=provider)
    message = str(raised.value)
    assert 'app.config["CLOUDWATCH_LIVE_PAGE_CHECK"]' in message
    checks = re.findall(r"lambda: .*?(?=\. [A-Z])", message)
    assert [compile(check, "message", "eval").co_names for check in checks] == [(), ()]
    assert "current_user" in checks[0]
    assert "compare_digest" in checks[1]
    assert not [*readers_on(provider)]
    app.config["CLOUDWATCH_LIVE_PAGE_CHECK"] = lambda: True
    CloudWatchMetricsReporter(app, "Shop", FakeCloudWatch(), meter_provider=provider).shutdown()


def test_debug_mode_turned_off_later(make_app: MakeApp) -> None:
    """Without a check, the page is served only while debug mode is on."""
    shop = make_app()
    shop.app.debug = False
    assert shop.get().status_code == 404


@pytest.mark.parametrize("path", ["/_cloudwatch/", "/_cloudwatch//", "/_cloudwatch//live.js"])
def test_no_redirect(make_app: MakeApp, path: str) -> None:
    """Variants of the path are not redirected, which would reveal that the page exists."""
    assert make_app().get(path).status_code == 404


def test_headers(make_app: MakeApp) -> None:
    """Responses cannot be cached, framed or sniffed, and run only the package's scripts."""
    shop = make_app()
    for resource in ("", "/data.json", "/live.js", "/icon.svg"):
        headers = shop.get(PATH + resource).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
    html = shop.get().text
    assert "<style" not in html
    assert "style=" not in html
    assert html.count("<script ") == html.count("<script") == html.count("></script>")


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 404), ("same-site", 404), ("same-origin", 200), ("none", 200)]
)
def test_other_sites_cannot_read_the_data(make_app: MakeApp, site: str, status: int) -> None:
    """Other sites cannot read the data, even if the app lets all origins read its responses."""
    assert make_app().get(f"{PATH}/data.json", HTTP_SEC_FETCH_SITE=site).status_code == status


def test_other_methods(make_app: MakeApp) -> None:
    """Only GET and HEAD are allowed; for other methods, the response is that for an unknown path."""
    shop = make_app()
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        response, nowhere = shop.get(method=method), shop.get("/nowhere", method=method)
        assert (response.status_code, response.data) == (404, nowhere.data)
    assert shop.get(method="HEAD").status_code == 200
    routes = [rule for rule in shop.app.url_map.iter_rules() if str(rule).startswith(PATH)]
    assert {method for rule in routes for method in rule.methods or ()} == {"GET", "HEAD"}


@pytest.mark.parametrize(("live_page", "debug"), [(True, False), (None, True)])
def test_the_check_decides(make_app: MakeApp, live_page: bool | None, debug: bool) -> None:  # noqa: FBT001
    """The app's own check replaces the local one, and runs in the context of the request."""
    is_me = {"CLOUDWATCH_LIVE_PAGE_CHECK": lambda: request.headers.get("Authorization") == "Bearer me"}
    shop = make_app(live_page, debug=debug, **is_me)
    far = {"REMOTE_ADDR": "10.0.0.1", "HTTP_HOST": "shop.example", "HTTP_X_FORWARDED_FOR": "8.8.8.8"}
    assert shop.get(**far, HTTP_AUTHORIZATION="Bearer me").status_code == 200
    assert shop.get(**far).status_code == 404
    assert shop.get().status_code == 404


def test_a_check_that_raises_denies_access(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """The exception is logged, and the response has status 404."""
    shop = make_app(CLOUDWATCH_LIVE_PAGE_CHECK="otel_cloudwatch_flask.errors:missing")
    assert shop.get().status_code == 404
    assert "CLOUDWATCH_LIVE_PAGE_CHECK raised" in caplog.text


@pytest.mark.parametrize(
    ("answer", "status", "is_logged"),
    [
        (True, 200, False),
        (None, 404, False),
        (redirect("/login"), 404, True),
        (("Unauthorized", 401), 404, True),
        ("no", 404, True),
    ],
)
def test_only_true_grants_access(
    make_app: MakeApp,
    caplog: pytest.LogCaptureFixture,
    answer: object,
    status: int,
    is_logged: bool,  # noqa: FBT001
) -> None:
    """A response, which a decorator such as login_required returns to deny access, does not grant it."""
    shop = make_app(CLOUDWATCH_LIVE_PAGE_CHECK=lambda: answer)
    assert shop.get().status_code == status
    assert (f"returned an object of type {type(answer).__name__}, so the live page" in caplog.text) is is_logged


def test_another_path(make_app: MakeApp) -> None:
    """The page is served at the configured path, even below a SCRIPT_NAME."""
    shop = make_app(CLOUDWATCH_LIVE_PAGE_PATH="/ops/metrics")
    assert shop.get().status_code == 404
    response = shop.get("/ops/metrics", SCRIPT_NAME='/sh"op')
    assert 'data-root="/sh&#34;op/ops/metrics"' in response.text
    assert shop.get("/ops/metrics/live.css").mimetype == "text/css"


def test_figures_are_those_of_cloudwatch(make_app: MakeApp) -> None:
    """The figures of each series are those of the strict fake CloudWatch."""
    shop = make_app()
    for _ in range(40):
        shop.get("/order")
    assert shop.reporter.flush()
    document = shop.data()
    assert {each["metric_name"] for each in document["series"]} == {"Orders", "Checkout Time"}
    assert len(document["series"]) == len(shop.cloudwatch.metrics()) == document["cost"]["metrics"]
    for each in document["series"]:
        name, dimensions = each["metric_name"], each["dimensions"]
        assert each["sum"] == shop.cloudwatch.sum(name, dimensions)
        assert each["samples"] == shop.cloudwatch.count(name, dimensions)
        assert each["minimum"] == shop.cloudwatch.minimum(name, dimensions)
        assert each["maximum"] == shop.cloudwatch.maximum(name, dimensions)
        for percent in (50, 90, 99):
            assert each[f"p{percent}"] == shop.cloudwatch.percentile(name, percent, dimensions)
    stats = document["delivery"]
    assert stats["datums_sent"] == document["datums"] == len(shop.cloudwatch.datums)
    assert stats["requests_sent"] == document["requests"] == len(shop.cloudwatch.requests)


def test_details_of_a_series(make_app: MakeApp) -> None:
    """The details contain all retained flushes and the latest data points as they were sent."""
    shop = make_app()
    for _ in range(2):
        shop.get("/order")
        assert shop.reporter.flush()
    (number,) = [each["id"] for each in shop.data()["series"] if each["metric_name"] == "Checkout Time"]
    detail = json.loads(shop.get(f"{PATH}/series.json?id={number}").text)
    sent = [dict(datum) for datum in shop.cloudwatch.datums if datum["MetricName"] == "Checkout Time"]
    assert [each["Values"] for each in detail["last_datums"]] == [each["Values"] for each in sent]
    assert len(detail["flushes"]) == 2
    assert detail["flushes"][-1]["p99"] == sent[-1]["Values"][-1]


@pytest.mark.parametrize("number", ["999", "x", "", "-1"])
def test_an_unknown_series(make_app: MakeApp, number: str) -> None:
    """The response contains only the instance, because the series may belong to another process."""
    shop = make_app()
    assert json.loads(shop.get(f"{PATH}/series.json?id={number}").text) == {"instance": shop.data()["instance"]}


def test_incremental_data(make_app: MakeApp) -> None:
    """A client that sends its last sequence number gets only the series that have changed since then."""
    shop = make_app()
    shop.get("/order")
    assert shop.reporter.flush()
    first = shop.data()
    again = shop.data(**{"other": "3", first["instance"]: str(first["sequence"])})
    assert again["series"] == []
    assert len(shop.data(**{first["instance"]: "nonsense"})["series"]) == len(first["series"]) == 2


def test_rules(make_app: MakeApp) -> None:
    """The data contains the rules, and for each series the index of its rule."""
    rules = [MetricRule(match="Check*", storage_resolution=1), MetricRule(match="debug.*", drop=True)]
    shop = make_app(rules=rules)
    shop.get("/order")
    assert shop.reporter.flush()
    document = shop.data()
    assert document["rules"] == [
        {"match": "Check*", "fields": {"storage_resolution": 1}},
        {"match": "debug.*", "fields": {"drop": True}},
        {"match": "*", "fields": {}},
    ]
    assert {each["metric_name"]: each["rule"] for each in document["series"]} == {"Checkout Time": 0, "Orders": 2}


def test_warnings_and_overflow(make_app: MakeApp) -> None:
    """The data contains recent warnings, the overflow series, and the number of metrics over the limit."""
    shop = make_app(CLOUDWATCH_MAX_METRICS=3)
    for _ in range(20):
        shop.get("/order")
    assert shop.reporter.flush()
    document = shop.data()
    assert document["delivery"]["metrics_overflowed"] > 0
    assert {"otel.metric.overflow": "true"} in [each["dimensions"] for each in document["series"]]
    assert all("max_metrics" in each["text"] for each in document["messages"])


class Unreachable:
    """A CloudWatch client without a connection."""

    def put_metric_data(self, **_request: Any) -> None:
        """Raise ``ConnectionError``."""
        raise ConnectionError("<b>no route to host</b>")


def test_failing_delivery(make_app: MakeApp) -> None:
    """The data contains the failure, its reason and the number of pending data points."""
    shop = make_app(client=Unreachable())
    shop.get("/order")
    shop.flush_in_vain()
    stats = shop.data()["delivery"]
    assert (stats["is_failing"], stats["datums_pending"], stats["datums_sent"]) == (True, 2, 0)
    assert "no route to host" in stats["last_error"]


class Failing:
    """A fake CloudWatch that raises an error until the error is removed."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error

    def put_metric_data(self, **_request: Any) -> None:
        """Raise the error."""
        if self.error:
            raise self.error


def test_what_is_not_delivered_is_shown(make_app: MakeApp) -> None:
    """Pending metrics have the same figures as delivered ones, and a number of undelivered samples."""
    client = Failing(ConnectionError("no route to host"))
    shop = make_app(client=client)
    shop.get("/order")
    shop.flush_in_vain()
    before = {each["metric_name"]: each for each in shop.data()["series"]}
    assert {name: (each["samples"], each["undelivered"]) for name, each in before.items()} == {
        "Orders": (1, 1),
        "Checkout Time": (1, 1),
    }
    assert json.loads(shop.get(f"{PATH}/series.json?id={before['Orders']['id']}").text)["last_datums"]
    assert shop.data()["cost"]["so_far_dollars"] == 0
    client.error = None
    assert shop.reporter.flush()
    after = shop.data()
    assert {each["metric_name"]: each for each in after["series"]} == {
        name: {**each, "undelivered": 0, "changed": ANY} for name, each in before.items()
    }
    assert after["remedy"] is None


@pytest.mark.parametrize(
    ("error", "problem", "copied"),
    [
        (NoRegionError(), "No AWS Region is configured.", "export AWS_REGION=us-east-1"),
        (NoCredentialsError(), "No AWS credentials are configured.", "aws configure"),
        (ConnectionError("no route to host"), "CloudWatch cannot be reached.", "flask cloudwatch doctor"),
        (
            client_error("AccessDenied"),
            "The AWS credentials lack the permission to publish metrics.",
            "cloudwatch:PutMetricData",
        ),
        (
            client_error("AccessDenied", "User: arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_Dev/me is not"),
            "The AWS credentials lack the permission to publish metrics.",
            "cloudwatch:PutMetricData",
        ),
        (client_error("ExpiredToken"), "The AWS credentials have expired.", "aws sso login"),
        (UnauthorizedSSOTokenError(), "The AWS SSO credentials are missing or have expired.", "aws sso login"),
        (
            TokenRetrievalError(provider="sso", error_msg="Token has expired and refresh failed"),
            "The AWS SSO credentials are missing or have expired.",
            "aws sso login",
        ),
        (client_error("RequestExpired"), "The AWS credentials do not work.", "flask cloudwatch doctor"),
        (client_error("Throttling"), "CloudWatch throttles the calls.", 'app.config["CLOUDWATCH_FLUSH"]'),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
def test_remedies(make_app: MakeApp, error: Exception, problem: str, copied: str) -> None:
    """The data says what is wrong and what to copy; a dry run is offered if Region or credentials are missing."""
    shop = make_app(client=Failing(error))
    shop.get("/order")
    shop.flush_in_vain()
    remedy = shop.data()["remedy"]
    lines = [each["copy"] for each in remedy["steps"]]
    assert remedy["problem"] == problem
    assert copied in lines[0]
    is_account = "Region" in problem or "credentials" in problem
    assert ('app.config["CLOUDWATCH_DRY_RUN"] = True' in lines) == is_account


def test_no_dry_run_is_offered_outside_of_debug_mode(make_app: MakeApp) -> None:
    """A production app that has lost its credentials is not advised to stop sending."""
    check = {"CLOUDWATCH_LIVE_PAGE_CHECK": lambda: True}
    shop = make_app(live_page=True, client=Failing(NoCredentialsError()), debug=False, **check)
    shop.get("/order")
    shop.flush_in_vain()
    assert [each["copy"] for each in shop.data()["remedy"]["steps"]] == ["aws configure"]


def test_the_region(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Region is that of the settings, or else of the client, or else of the environment."""
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(variable, raising=False)
    assert make_app().data()["settings"]["region_name"] is None
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert make_app().data()["settings"]["region_name"] == "eu-west-3"
    client = ScriptedClient()
    client.meta = SimpleNamespace(region_name="eu-west-1")  # type: ignore[attr-defined]  # as boto3's clients have
    other = make_app(client=client)
    other.get("/order")
    assert other.reporter.flush()
    assert other.data()["settings"]["region_name"] == "eu-west-1"


def test_disabled_metrics(make_app: MakeApp) -> None:
    """The data says that metrics are disabled."""
    assert make_app(CLOUDWATCH_ENABLED=False).data() == {"enabled": False}


def test_requests_to_the_page_are_not_recorded(make_app: MakeApp) -> None:
    """Requests for the page are not instrumented and do not flush."""
    shop = make_app(instrument=True, flush="sync")
    shop.get("/order")
    sent = len(shop.cloudwatch.requests)
    assert sent == 1
    for resource in ("", "/data.json", "/live.js"):
        assert shop.get(PATH + resource).status_code == 200
    assert len(shop.cloudwatch.requests) == sent
    assert shop.reporter.flush()
    assert shop.cloudwatch.count("http.server.duration") == 1


def test_requests_that_mention_the_page_are_recorded(make_app: MakeApp) -> None:
    """A client cannot exclude its request from the metrics by a query string that contains the URL of the page."""
    shop = make_app(instrument=True)
    shop.get(f"/order?next=http://localhost{PATH}/data.json")
    assert shop.reporter.flush()
    assert shop.cloudwatch.count("http.server.duration") == 1


def test_apps_that_share_an_exporter_share_its_observation(make_app: MakeApp) -> None:
    """An exporter is observed once, however many apps share it."""
    shop = make_app()
    other = Flask("shop")
    other.debug = True
    shop.reporter.init_app(other)
    shop.get("/order")
    assert shop.reporter.flush()
    document = json.loads(other.test_client().get(f"{PATH}/data.json").text)
    assert document["requests"] == shop.data()["requests"] == 1


def test_kinds_of_metrics(make_app: MakeApp) -> None:
    """The data contains the kind of each metric, which determines the statistics shown."""
    shop = make_app()
    meter = shop.provider.get_meter("shop")
    meter.create_counter("views").add(3)
    meter.create_up_down_counter("open").add(2)
    meter.create_gauge("temperature").set(21.5)
    shop.get("/order")
    assert shop.reporter.flush()
    kinds = {each["metric_name"]: (each["kind"], each["id"]) for each in shop.data()["series"]}
    assert {name: kind for name, (kind, _) in kinds.items()} == {
        "views": "counter",
        "open": "up-down counter",
        "temperature": "gauge",
        "Orders": "histogram",
        "Checkout Time": "histogram",
    }
    assert json.loads(shop.get(f"{PATH}/series.json?id={kinds['views'][1]}").text)["kind"] == "counter"


def test_assets(make_app: MakeApp) -> None:
    """All assets are part of the package and refer to no other host; no other files are served."""
    shop = make_app()
    names = ["live.css", "uplot.css", "uplot.js", "icon.svg"]
    names += [f"{name}.js" for name in ("live", "text", "model", "links", "table", "charts", "detail")]
    for name in names:
        response = shop.get(f"{PATH}/{name}")
        assert (response.status_code, len(response.data) > 100) == (200, True), name
        assert "http://" not in response.text.replace("http://www.w3.org/2000/svg", ""), name
    assert shop.get(f"{PATH}/uplot.LICENSE").status_code == 404
    assert shop.get(f"{PATH}/../__init__.py").status_code == 404


WARNS = """
import logging
from otel_cloudwatch_flask.live_page.messages import MESSAGES
MESSAGES.attach()
{setup}
logging.getLogger("otel_cloudwatch_flask.mapping.mapper").warning("Mind the %s.", "gap")
assert [each["text"] for each in MESSAGES.documents()] == ["Mind the gap."]
"""


@pytest.mark.parametrize(
    ("setup", "said"),
    [("", "Mind the gap.\n"), ("logging.basicConfig(format='%(levelname)s %(message)s')", "WARNING Mind the gap.\n")],
)
def test_the_handler_does_not_silence_warnings(setup: str, said: str) -> None:
    """With or without a logging configuration, warnings are printed once, as without the page."""
    program = [sys.executable, "-c", WARNS.format(setup=setup)]
    run = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ))
    assert (run.returncode, run.stderr) == (0, said)


def slices(*requests: int, series: int = 10) -> list[dict[str, float]]:
    """Return slices of ten seconds, the last of which has just ended."""
    start = NOW - 10 * len(requests)
    return [
        {"time": start + 10 * index, "requests": count, "bytes": 1000, "series": series}
        for index, count in enumerate(requests)
    ]


def test_the_rate_covers_the_last_minute() -> None:
    """Older requests are ignored, and the rate of a new process is not extrapolated from a single request."""
    busy = {"slices": slices(*[500] * 6, *[10] * 6), "seconds": 120}
    assert rate_per_second("requests", busy, now=NOW) == pytest.approx(60 / 65)
    assert rate_per_second("requests", {"slices": slices(1), "seconds": 1}, now=NOW) == 0.1


def test_cost_follows_the_price_list() -> None:
    """The cost is the monthly price of metrics and calls, and its trend has a point per slice."""
    observed = {
        "slices": slices(10, 20, series=100),
        "started": NOW - 20,
        "series_active": 100,
        "series_seen": 120,
        "requests": 30,
        "seconds": 20.0,
    }
    found = cost(observed, now=NOW)
    assert found["metrics_dollars"] == pytest.approx(30)
    assert found["requests_dollars"] == pytest.approx(1.5 * SECONDS_PER_MONTH * 0.01 / 1000)
    assert found["dollars"] == pytest.approx(found["metrics_dollars"] + found["requests_dollars"])
    assert found["so_far_dollars"] == pytest.approx(120 * 0.3 / 720 + 30 * 0.01 / 1000)
    assert found["trend"] == pytest.approx([30 + 25.92, 30 + 51.84])


def test_cost_of_emf_lines() -> None:
    """With EMF output, the size of the lines is billed instead of calls."""
    observed = {
        "slices": slices(10, 20, series=100),
        "started": NOW - 20,
        "series_active": 100,
        "series_seen": 100,
        "requests": 30,
        "bytes": 2000,
        "seconds": 20.0,
    }
    found = cost(observed, now=NOW, writes_emf=True)
    month = 100 * SECONDS_PER_MONTH / 1e9 * 0.5
    assert found["requests_dollars"] == 0
    assert found["logs_dollars"] == pytest.approx(month)
    assert found["dollars"] == pytest.approx(30 + month)
    assert found["trend"] == pytest.approx([30 + month] * 2)
    assert found["so_far_dollars"] == pytest.approx(100 * 0.3 / 720 + 2000 / 1e9 * 0.5)


def test_an_app_with_emf_output(make_app: MakeApp) -> None:
    """The page shows the metrics of EMF lines and, if the stream is closed, what is wrong."""
    stream = StringIO()
    shop = make_app(output="emf", stream=stream)
    shop.get("/order")
    assert shop.reporter.flush()
    data = shop.data()
    assert "Orders" in {each["metric_name"] for each in data["series"]}
    assert data["cost"]["logs_dollars"] > 0
    stream.close()
    shop.get("/order")
    shop.flush_in_vain()
    assert "EMF lines" in shop.data()["remedy"]["problem"]


def test_the_trend_has_no_gaps_and_covers_at_most_an_hour() -> None:
    """Times without requests count as zero, the current slice is omitted, and there are at most 60 points."""
    gap = [*slices(6, 0, 0, 12)[:1], *slices(6, 0, 0, 12)[3:]]
    found = trend({"slices": gap, "started": 0.0}, now=NOW + 5)
    assert [point["requests_per_second"] for point in found] == [0.6, 0, 0, 1.2]
    late = trend({"slices": gap, "started": NOW - 35}, now=NOW + 5)
    assert [point["requests_per_second"] for point in late] == [1.2]
    assert trend({"slices": [], "started": 0.0}, now=NOW) == []
    points = trend({"slices": slices(*[1] * 360), "started": 0.0}, now=NOW)
    assert len(points) == 60
    assert all(point["requests_per_second"] == pytest.approx(0.1) for point in points)


def test_pending_data_is_failing_only_after_a_while() -> None:
    """Delivery is failing if there is an error and the last success was more than five seconds ago."""
    observed = {"slices": [], "started": 0.0, "seconds": 60.0}
    pending = DeliveryStats(
        datums_pending=1, requests_sent=3, requests_failed=1, requests_seconds=2.0, last_success=NOW
    )
    failing = DeliveryStats(datums_pending=1, last_error="no", last_success=NOW - 60)
    assert not delivery(pending, observed, now=NOW)["is_failing"]
    assert delivery(pending, observed, now=NOW)["mean_seconds"] == 0.5
    assert delivery(failing, observed, now=NOW)["is_failing"]
