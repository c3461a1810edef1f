"""The live page: who may see it, what it says, and that it is nothing where it is off."""

import json
import logging
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, request
from opentelemetry.sdk.metrics import MeterProvider
from werkzeug.test import TestResponse

from otel_cloudwatch_flask import CloudWatchMetricsReporter, MetricRule
from otel_cloudwatch_flask.delivery.stats import DeliveryStats
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.live_page.access import is_local
from otel_cloudwatch_flask.live_page.messages import MESSAGES
from otel_cloudwatch_flask.live_page.page_data import cost, delivery, requests_per_second, trend
from otel_cloudwatch_flask.pricing import SECONDS_PER_MONTH
from otel_cloudwatch_flask.sdk.reader import readers_on
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.fakes import eventually

PATH = "/_cloudwatch"
NOW = 1_700_000_000.0

MakeApp = Callable[..., "Shop"]


class Shop:
    """An app with a reporter on a provider of its own, and a CloudWatch in memory."""

    def __init__(
        self, config: dict[str, Any], client: Any = None, *, debug: bool | None = True, **options: Any
    ) -> None:
        self.cloudwatch = FakeCloudWatch()
        self.app = Flask("shop")
        if debug is not None:
            self.app.debug = debug
        self.app.config.update(config)
        self.app.add_url_rule("/order", view_func=self.order)
        provider = MeterProvider(shutdown_on_exit=False)
        options.setdefault("flush", "interval")
        self.reporter = CloudWatchMetricsReporter(
            self.app, "Shop", client or self.cloudwatch, meter_provider=provider, **options
        )

    def order(self) -> str:
        """Measure what an order is."""
        self.reporter.add_metric("Orders", 1, "Count", {"Payment": random.choice(["card", "invoice"])})
        self.reporter.add_metric("Checkout Time", random.lognormvariate(4, 1), "Milliseconds")
        return "Thanks"

    def get(self, path: str = PATH, method: str = "GET", **environ: Any) -> TestResponse:
        """Ask from this machine, unless the environment says otherwise."""
        return self.app.test_client().open(path, method=method, environ_overrides=environ, buffered=True)

    def data(self, **arguments: str) -> dict[str, Any]:
        """What the page would be told."""
        answer = self.app.test_client().get(f"{PATH}/data.json", query_string=arguments)
        assert answer.status_code == 200
        document: dict[str, Any] = json.loads(answer.text)
        return document


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """Makes apps that end with the test."""
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

FRIENDS: list[dict[str, str]] = [
    {},
    {"REMOTE_ADDR": "127.8.9.1"},
    {"REMOTE_ADDR": "::1", "HTTP_HOST": "[::1]:5000"},
    {"REMOTE_ADDR": "::ffff:127.0.0.1"},
    {"HTTP_HOST": "127.0.0.1"},
    {"HTTP_HOST": "Shop.localhost:80"},
]

STRANGERS: list[dict[str, str]] = [
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


@pytest.mark.parametrize("environ", FRIENDS, ids=str)
def test_this_machine_may_look(environ: dict[str, str]) -> None:
    """A loopback peer that asked for a loopback host is local."""
    assert is_local({**LOCAL, **environ})


@pytest.mark.parametrize("environ", [each for each in STRANGERS if each != {"HTTP_HOST": "[::1"}], ids=str)
def test_strangers_may_not_look(environ: dict[str, str]) -> None:
    """Neither other machines nor other names for this machine are local."""
    assert not is_local({**LOCAL, **environ})


@pytest.mark.parametrize("resource", ["", "/data.json", "/series.json?id=1", "/live.js", "/uplot.css", "/none"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_a_stranger_finds_what_is_nowhere(make_app: MakeApp, resource: str, method: str) -> None:
    """Each resource, by any method, is answered as a path that no route has."""
    shop = make_app()
    answer = shop.get(PATH + resource, method, REMOTE_ADDR="10.0.0.1")
    nowhere = shop.get("/nowhere", REMOTE_ADDR="10.0.0.1")
    assert answer.status_code == 404
    assert (dict(answer.headers), answer.data) == (dict(nowhere.headers), nowhere.data)


def test_a_host_that_cannot_be_read(make_app: MakeApp) -> None:
    """Nonsense for a host is no name of this machine."""
    assert make_app().get(HTTP_HOST="[::1:5000").status_code in (400, 404)


@pytest.mark.parametrize(("live_page", "debug"), [(None, True), (True, True), (True, False)])
def test_on(make_app: MakeApp, live_page: bool | None, debug: bool) -> None:  # noqa: FBT001
    """The page is on where the setting says so or, if that says nothing, where debug mode is on at set-up."""
    shop = make_app(live_page, debug=debug, CLOUDWATCH_LIVE_PAGE_CHECK=None if debug else lambda: True)
    assert shop.get().status_code == 200
    assert shop.get(f"{PATH}/data.json").status_code == 200


def test_on_where_flask_runs_in_debug_mode(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """`flask run --debug` sets this variable before it loads the app; the README's first steps show the page."""
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert make_app(debug=None).get().status_code == 200


@pytest.mark.parametrize(("live_page", "debug"), [(None, False), (False, False), (False, True)])
def test_off_is_nothing(make_app: MakeApp, live_page: bool | None, debug: bool) -> None:  # noqa: FBT001
    """Where the page is off, the app has no route, the exporter no watcher, and logging no handler."""
    shop = make_app(live_page, debug=debug, CLOUDWATCH_LIVE_PAGE_CHECK=lambda: True)
    registration = shop.app.extensions["cloudwatch_metrics"].registration
    assert [rule.endpoint for rule in shop.app.url_map.iter_rules()] == ["static", "order"]
    assert registration.exporter._watchers == []
    assert MESSAGES not in logging.getLogger("otel_cloudwatch_flask").handlers
    assert "cloudwatch" not in shop.app.test_cli_runner().invoke(args=["routes"]).output


def test_off_leaves_the_path_to_the_app(make_app: MakeApp) -> None:
    """Where the page is off, the path is the app's: also one that a catch-all route serves."""
    shop = make_app(debug=False)
    shop.app.add_url_rule("/<path:page>", "page", lambda page: page)
    assert shop.get(f"{PATH}/data.json").text == "_cloudwatch/data.json"


def test_on_outside_of_debug_mode_needs_a_check() -> None:
    """Set-up refuses the page without one, says what to write, and leaves the app and the provider as they were."""
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


def test_debug_mode_that_has_ended(make_app: MakeApp) -> None:
    """Without a check the page answers only as long as debug mode is on."""
    shop = make_app()
    shop.app.debug = False
    assert shop.get().status_code == 404


@pytest.mark.parametrize("path", ["/_cloudwatch/", "/_cloudwatch//", "/_cloudwatch//live.js"])
def test_no_redirect(make_app: MakeApp, path: str) -> None:
    """Other spellings of the path are not redirected to the page, which would tell others that it exists."""
    assert make_app().get(path).status_code == 404


def test_headers(make_app: MakeApp) -> None:
    """Nothing is kept by browsers, framed, guessed or run that the package does not ship."""
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
def test_other_sites_may_not_read(make_app: MakeApp, site: str, status: int) -> None:
    """An app that lets every origin read its answers does not let them read these."""
    assert make_app().get(f"{PATH}/data.json", HTTP_SEC_FETCH_SITE=site).status_code == status


def test_other_methods(make_app: MakeApp) -> None:
    """The page is for reading only."""
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert make_app().get(method=method).status_code == 405
    assert make_app().get(method="HEAD").status_code == 200


@pytest.mark.parametrize(("live_page", "debug"), [(True, False), (None, True)])
def test_a_check_decides(make_app: MakeApp, live_page: bool | None, debug: bool) -> None:  # noqa: FBT001
    """A check of the user's own decides alone, in the app's context and with the request."""
    is_me = {"CLOUDWATCH_LIVE_PAGE_CHECK": lambda: request.headers.get("Authorization") == "Bearer me"}
    shop = make_app(live_page, debug=debug, **is_me)
    far = {"REMOTE_ADDR": "10.0.0.1", "HTTP_HOST": "shop.example", "HTTP_X_FORWARDED_FOR": "8.8.8.8"}
    assert shop.get(**far, HTTP_AUTHORIZATION="Bearer me").status_code == 200
    assert shop.get(**far).status_code == 404
    assert shop.get().status_code == 404


def test_a_check_that_fails_lets_nobody_in(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """What it raises is logged, and the answer is that of a stranger."""
    shop = make_app(CLOUDWATCH_LIVE_PAGE_CHECK="otel_cloudwatch_flask.errors:missing")
    assert shop.get().status_code == 404
    assert "CLOUDWATCH_LIVE_PAGE_CHECK raised" in caplog.text


def test_another_path(make_app: MakeApp) -> None:
    """The page is where the setting says, also under a prefix that a server has taken away."""
    shop = make_app(CLOUDWATCH_LIVE_PAGE_PATH="/ops/metrics")
    assert shop.get().status_code == 404
    answer = shop.get("/ops/metrics", SCRIPT_NAME='/sh"op')
    assert 'data-root="/sh&#34;op/ops/metrics"' in answer.text
    assert shop.get("/ops/metrics/live.css").mimetype == "text/css"


def test_figures_are_those_of_cloudwatch(make_app: MakeApp) -> None:
    """The page says of each series what the strict fake says of the same run."""
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


def test_a_series_in_full(make_app: MakeApp) -> None:
    """The detail view gets all kept flushes, and the last datums as they were sent."""
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
def test_a_series_that_is_not_there(make_app: MakeApp, number: str) -> None:
    """The answer says only who gives it: it may be another process than the one that has it."""
    shop = make_app()
    assert json.loads(shop.get(f"{PATH}/series.json?id={number}").text) == {"instance": shop.data()["instance"]}


def test_only_what_is_new(make_app: MakeApp) -> None:
    """Who says what it has is told the rest."""
    shop = make_app()
    shop.get("/order")
    assert shop.reporter.flush()
    first = shop.data()
    again = shop.data(known=f"other:3,{first['instance']}:{first['sequence']}")
    assert again["series"] == []
    assert len(shop.data(known=f"{first['instance']}:nonsense,,:")["series"]) == len(first["series"]) == 2


def test_rules(make_app: MakeApp) -> None:
    """The page is told the rules, and which of them each series has matched."""
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
    """The page has the package's last warnings, the overflow series and how many were put there."""
    shop = make_app(CLOUDWATCH_MAX_METRICS=1)
    for _ in range(20):
        shop.get("/order")
    assert shop.reporter.flush()
    document = shop.data()
    assert document["delivery"]["metrics_overflowed"] > 0
    assert {"otel.metric.overflow": "true"} in [each["dimensions"] for each in document["series"]]
    assert "more dimension combinations than max_metrics" in document["messages"][0]["text"]


class Unreachable:
    """A CloudWatch that cannot be reached."""

    def put_metric_data(self, **_request: Any) -> None:
        """Fail."""
        raise ConnectionError("<b>no route to host</b>")


def test_what_does_not_arrive(make_app: MakeApp) -> None:
    """Failure, its reason and what waits are shown."""
    shop = make_app(client=Unreachable())
    shop.get("/order")
    assert not shop.reporter.flush(timeout_seconds=0.01)
    assert eventually(lambda: shop.data()["delivery"]["is_failing"])
    stats = shop.data()["delivery"]
    assert (stats["datums_pending"], stats["datums_sent"]) == (2, 0)
    assert "no route to host" in stats["last_error"]


def test_nothing_is_sent(make_app: MakeApp) -> None:
    """Where metrics are switched off, the page says so."""
    assert make_app(CLOUDWATCH_ENABLED=False).data() == {"enabled": False}


def test_looking_is_not_measured(make_app: MakeApp) -> None:
    """The page's own requests are no traffic of the app: they are neither measured nor cause a flush."""
    shop = make_app(instrument=True, flush="sync")
    shop.get("/order")
    sent = len(shop.cloudwatch.requests)
    assert sent == 1
    for resource in ("", "/data.json", "/live.js"):
        assert shop.get(PATH + resource).status_code == 200
    assert len(shop.cloudwatch.requests) == sent
    assert shop.reporter.flush()
    assert shop.cloudwatch.count("http.server.duration") == 1


def test_apps_that_share_an_exporter_share_the_record(make_app: MakeApp) -> None:
    """An exporter is observed once, however many apps it serves."""
    shop = make_app()
    other = Flask("shop")
    other.debug = True
    shop.reporter.init_app(other)
    shop.get("/order")
    assert shop.reporter.flush()
    answer = json.loads(other.test_client().get(f"{PATH}/data.json").text)
    assert answer["requests"] == shop.data()["requests"] == 1


def test_every_asset_is_there(make_app: MakeApp) -> None:
    """Whatever the page and its scripts name is served by the package itself, with the library's licence beside it."""
    shop = make_app()
    names = ["live.css", "uplot.css", "uplot.js", "icon.svg"]
    names += [f"{name}.js" for name in ("live", "text", "model", "table", "charts", "detail")]
    for name in names:
        answer = shop.get(f"{PATH}/{name}")
        assert (answer.status_code, len(answer.data) > 100) == (200, True), name
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", ""), name
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
def test_listening_silences_nothing(setup: str, said: str) -> None:
    """Warnings are printed once, as without the page, whether logging is set up or not."""
    program = [sys.executable, "-c", WARNS.format(setup=setup)]
    run = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ))
    assert (run.returncode, run.stderr) == (0, said)


def slices(*requests: int, series: int = 10) -> list[dict[str, float]]:
    """Ten seconds each, the last of them just over."""
    begun = NOW - 10 * len(requests)
    return [{"time": begun + 10 * place, "requests": count, "series": series} for place, count in enumerate(requests)]


def test_the_rate_is_that_of_the_last_minute() -> None:
    """Older requests count no more, and a process that has just begun is not made out to be busier than it is."""
    assert requests_per_second(slices(*[500] * 6, *[10] * 6), now=NOW, seconds=120) == pytest.approx(60 / 65)
    assert requests_per_second(slices(1), now=NOW, seconds=1) == 0.1


def test_cost_is_that_of_the_price_list() -> None:
    """A month of so many metrics and calls, and its trend from slice to slice."""
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


def test_the_trend_has_no_gaps_and_no_more_than_an_hour() -> None:
    """What was not sent counts as nothing; the part that still runs is left out; sixty points are enough."""
    gap = [*slices(6, 0, 0, 12)[:1], *slices(6, 0, 0, 12)[3:]]
    found = trend({"slices": gap, "started": 0.0}, now=NOW + 5)
    assert [point["requests_per_second"] for point in found] == [0.6, 0, 0, 1.2]
    late = trend({"slices": gap, "started": NOW - 35}, now=NOW + 5)
    assert [point["requests_per_second"] for point in late] == [1.2]
    assert trend({"slices": [], "started": 0.0}, now=NOW) == []
    points = trend({"slices": slices(*[1] * 360), "started": 0.0}, now=NOW)
    assert len(points) == 60
    assert all(point["requests_per_second"] == pytest.approx(0.1) for point in points)


def test_delivery_is_late_before_it_fails() -> None:
    """Something that waits a moment is on its way; with an error, and after five seconds, it is failing."""
    observed = {"slices": [], "started": 0.0, "seconds": 60.0}
    waiting = DeliveryStats(
        datums_pending=1, requests_sent=3, requests_failed=1, requests_seconds=2.0, last_success=NOW
    )
    failing = DeliveryStats(datums_pending=1, last_error="no", last_success=NOW - 60)
    assert not delivery(waiting, observed, now=NOW)["is_failing"]
    assert delivery(waiting, observed, now=NOW)["mean_seconds"] == 0.5
    assert delivery(failing, observed, now=NOW)["is_failing"]
