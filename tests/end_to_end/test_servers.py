import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from math import fsum
from pathlib import Path
from typing import Any

import pytest

from otel_cloudwatch_flask.demo.load_generator import LoadGenerator, ShopResponse, shop_requests
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from otel_cloudwatch_flask.testing.published import PublishedMetric
from tests.reliability.processes import GUNICORN, Server, serving

REQUESTS = 5000


@pytest.fixture
def cloudwatch() -> Iterator[LocalCloudWatch]:
    """A running CloudWatch emulator."""
    with LocalCloudWatch() as local:
        yield local


SHOP = ["examples.shop:create_app()"]
TWO_WORKERS = [*GUNICORN, "--workers", "2", "--threads", "4", "--worker-class", "gthread", "--keep-alive", "60"]
ACCESS_LOG = ["--access-logfile", "-", "--access-logformat", "served by %(p)s"]
"""Options that log a line per request with the ID of the worker process."""


def visit(server: Server) -> list[ShopResponse]:
    """Send all requests over keep-alive connections, and return the responses."""
    quick = (each for each in shop_requests(seed=11) if each.path != "/slow")
    traffic = LoadGenerator(server.url, islice(quick, REQUESTS), seconds=120, visitors=16)
    traffic.start()
    assert traffic.wait(timeout_seconds=150)
    assert (len(traffic.responses), traffic.failures) == (REQUESTS, []), server.log.read_text()[-5000:]
    return traffic.responses


def requests_by_worker(server: Server) -> Counter[str]:
    """Return the number of requests per worker, according to the access log."""
    return Counter(re.findall(r"^served by (\S+)$", server.log.read_text(), re.MULTILINE))


def samples_of_facade(answers: list[ShopResponse]) -> dict[PublishedMetric, list[float]]:
    """Return the samples of ``add_metric`` and the decorators, according to the responses."""
    samples: defaultdict[PublishedMetric, list[float]] = defaultdict(list)

    def add(name: str, value: float, unit: str = "Count", **dimensions: str) -> None:
        samples[PublishedMetric("Shop", name, tuple(sorted(dimensions.items())), unit)].append(value)

    for answer in answers:
        route, status, body = answer.request.route, answer.status, answer.body
        if route in ("/", "/checkout"):
            add("RequestCount", 1, ResourceName="Index" if route == "/" else "Checkout", StatusCode=str(status))
        if route == "/checkout" and status == 201:
            add("Orders", 1, Payment=body["payment"])
            add("Order Value", body["total"], "None", Kind="sale")
        elif route == "/checkout":
            add("Failure" if status == 500 else "Error", 1, ResourceName="Checkout")
        elif route == "/refunds":
            add("Order Value", -body["refunded"], "None", Kind="refund")
        elif route == "/cart":
            add("Basket Size", body["articles"])
    return dict(samples)


def assert_facade_is_exact(cloudwatch: LocalCloudWatch, answers: list[ShopResponse]) -> None:
    """Assert that every facade metric has the expected statistics, and that there are no other metrics."""
    expected = samples_of_facade(answers)
    published = {metric for metric in cloudwatch.published.metrics() if not is_open_telemetry(metric)}
    assert published == set(expected)
    for metric, samples in expected.items():
        asked: dict[str, Any] = {"dimensions": dict(metric.dimensions)}
        found = cloudwatch.published
        assert found.count(metric.name, **asked) == len(samples), metric
        assert found.sum(metric.name, **asked) == pytest.approx(fsum(samples), rel=1e-9), metric
        assert found.minimum(metric.name, **asked) == min(samples), metric
        assert found.maximum(metric.name, **asked) == max(samples), metric


def assert_instruments_are_exact(cloudwatch: LocalCloudWatch, answers: list[ShopResponse]) -> None:
    """Assert that the shop's own counter and histogram count each product page and each search."""
    views: Counter[str] = Counter()
    searches: list[int] = []
    for answer in answers:
        if answer.request.path.startswith("/products/") and answer.status == 200:
            views[answer.body["category"]] += 1
        if answer.request.route == "/search":
            searches.append(len(answer.body))
    found = cloudwatch.published
    assert {name: found.sum("shop.product.views", category=name) for name in views} == views
    assert found.count("shop.search.results") == len(searches)
    assert found.sum("shop.search.results") == pytest.approx(sum(searches), rel=1e-9)


def assert_durations_are_complete(cloudwatch: LocalCloudWatch, answers: list[ShopResponse]) -> None:
    """Assert that each request has one duration with its method, route and status."""
    expected = Counter((each.request.method, each.request.route, str(each.status)) for each in answers)
    found: Counter[tuple[str | None, ...]] = Counter()
    for metric in cloudwatch.published.metrics():
        if metric.name == "http.server.duration":
            dimensions = dict(metric.dimensions)
            key = dimensions.get("http.method"), dimensions.get("http.target"), dimensions.get("http.status_code")
            found[key] += int(cloudwatch.published.count(metric.name, dimensions))
    assert found == expected
    assert found.total() == REQUESTS


def is_open_telemetry(metric: PublishedMetric) -> bool:
    """Return whether a metric comes from an OpenTelemetry instrument instead of ``add_metric``."""
    return metric.name.startswith(("http.", "shop."))


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
@pytest.mark.parametrize("arguments", [(), ("--preload",)], ids=["workers load", "preload"])
def test_gunicorn_publishes_every_request(
    cloudwatch: LocalCloudWatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """After 5,000 requests to 2 workers with 4 threads each, and SIGTERM, the metrics in CloudWatch are exact."""
    command = [*TWO_WORKERS, *ACCESS_LOG, *arguments]
    with serving(cloudwatch, tmp_path / "log", command, SHOP, OTEL_SEMCONV_STABILITY_OPT_IN="") as server:
        answers = visit(server)
        server.terminate()
    by_worker = requests_by_worker(server)
    assert (len(by_worker), by_worker.total()) == (2, REQUESTS)
    assert_durations_are_complete(cloudwatch, answers)
    assert_facade_is_exact(cloudwatch, answers)
    assert_instruments_are_exact(cloudwatch, answers)
    assert cloudwatch.validation_errors == []
