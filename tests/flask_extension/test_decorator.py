"""The decorators count what a view returns or raises, and change nothing else."""

import asyncio
import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from flask import Flask, Response, abort
from flask.views import MethodView
from opentelemetry.sdk.metrics import MeterProvider
from werkzeug.datastructures import Headers
from werkzeug.exceptions import Forbidden, HTTPException, NotFound
from werkzeug.wrappers import Response as WerkzeugResponse

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.decorator import fault_failure_error, request_count, status_of
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch

STATUSES = [
    ("text", 200),
    ({"a": 1}, 200),
    ([1], 200),
    (("text", 404), 404),
    (("text", "404 Not Found"), 404),
    (("text", "404"), 404),
    (("text", HTTPStatus.NOT_FOUND), 404),
    (("text", 10**5000), 500),
    (("text", 404.5), 500),
    (("text", math.inf), 500),
    (("text", {"X-Cart": "7"}), 200),
    (("text", Headers()), 200),
    (("text", [("X-Cart", "7")]), 200),
    (("text", 503, {"X-Cart": "7"}), 503),
    (("text", None, {"X-Cart": "7"}), 200),
    (("text", {"X-Cart": "7"}, 404), 500),
    (Response(status=418), 418),
    (WerkzeugResponse(status=404), 404),
    ((Response(status=404), {"X-Cart": "7"}), 404),
    ((Response(status=404), 503), 503),
    (NotFound(), 404),
    ((NotFound(), {"X-Cart": "7"}), 404),
    (HTTPException(response=Response(status=409)), 409),
]


@pytest.mark.parametrize(("returned", "status"), STATUSES)
def test_status_is_the_one_that_flask_makes(returned: Any, status: int) -> None:
    """Every return value that Flask accepts maps to the status that Flask sends."""
    app = Flask("shop")
    app.add_url_rule("/", view_func=lambda: returned)
    assert (status_of(returned), app.test_client().get("/").status_code) == (status, status)


@pytest.mark.parametrize("returned", [None, (None, 204), ("text",), ()])
def test_status_of_what_flask_refuses(returned: object) -> None:
    """A return value that Flask cannot use maps to 500."""
    assert status_of(returned) == 500


class Shop:
    """An app with one route and a reporter that sends to a fake CloudWatch."""

    def __init__(self) -> None:
        self.cloudwatch = FakeCloudWatch()
        self.app = Flask("shop")
        provider = MeterProvider(shutdown_on_exit=False)
        self.reporter = CloudWatchMetricsReporter(self.app, "Shop", self.cloudwatch, meter_provider=provider)

    def get(self, view: Callable[..., Any]) -> int:
        """Add a route, request it, and wait until its metrics have arrived."""
        self.app.add_url_rule("/", view_func=view)
        status = self.app.test_client().get("/", buffered=True).status_code
        assert self.reporter.flush()
        self.reporter.shutdown()
        return status

    def published(self) -> list[tuple[str, dict[str, str], str, float]]:
        """Return the name, dimensions, unit and sum of each metric in CloudWatch."""
        every = [(each.name, dict(each.dimensions), each.unit) for each in self.cloudwatch.metrics()]
        return [(name, dimensions, unit, self.cloudwatch.sum(name, dimensions)) for name, dimensions, unit in every]


def decorated(shop: Shop, view: Callable[..., Any]) -> Callable[..., Any]:
    """Return the view under both decorators, one with positional and one with keyword arguments."""
    counted = request_count(shop.reporter, "Index")(view)
    return fault_failure_error(metrics_reporter=shop.reporter, resource_name="Index")(counted)


def raising(error: Exception) -> Callable[[], Any]:
    """Return a view that raises."""

    def view() -> Any:
        raise error

    return view


ENDS: list[tuple[Callable[..., Any], int, str, str | None]] = [
    # view, expected status, expected StatusCode dimension, expected failure metric
    (lambda: "text", 200, "200", None),
    (lambda: ("text", 404), 404, "404", "Error"),
    (lambda: ("text", "503 Service Unavailable"), 503, "503", "Fault"),
    (Forbidden, 403, "403", "Error"),
    (lambda: abort(404), 404, "404", "Error"),
    (lambda: abort(503), 503, "503", "Fault"),
    (lambda: abort(Response(status=409)), 409, "409", "Error"),
    (raising(KeyError("cart")), 500, "500", "Failure"),
    (lambda: None, 500, "500", "Fault"),
]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("view", "status", "status_code", "bad_end"), ENDS)
def test_what_is_counted(
    view: Callable[..., Any], status: int, status_code: str, bad_end: str | None, *, is_async: bool
) -> None:
    """Each call is counted by status, and each failure by kind, for plain and async views."""

    async def async_view() -> Any:
        await asyncio.sleep(0)
        return view()

    shop = Shop()
    assert shop.get(decorated(shop, async_view if is_async else view)) == status
    expected = [("RequestCount", {"ResourceName": "Index", "StatusCode": status_code}, "Count", 1)]
    if bad_end:
        expected.append((bad_end, {"ResourceName": "Index"}, "Count", 1))
    assert shop.published() == expected


def test_exceptions_pass_through() -> None:
    """An exception raised by a view reaches the app's own error handler."""
    shop = Shop()
    shop.app.register_error_handler(KeyError, lambda _error: ("no such cart", 404))
    assert shop.get(decorated(shop, raising(KeyError("cart")))) == 404
    assert ("Failure", {"ResourceName": "Index"}, "Count", 1) in shop.published()


def test_views_keep_their_names_and_arguments() -> None:
    """The decorators preserve view names, from which Flask derives endpoints, and view arguments."""
    reporter = CloudWatchMetricsReporter(cloudwatch_client=FakeCloudWatch())

    @request_count(reporter, "Item")
    @fault_failure_error(reporter, "Item")
    def item(number: int, *, size: str = "S") -> str:
        """Return text with both arguments."""
        return f"{number} {size}"

    assert (item.__name__, item.__doc__) == ("item", "Return text with both arguments.")
    assert item(7, size="L") == "7 L"


def test_methods_of_class_based_views() -> None:
    """The decorators work on methods and pass them their instance."""
    shop = Shop()

    class Cart(MethodView):
        """A class-based view."""

        @request_count(shop.reporter, "Cart")
        def get(self) -> str:
            """Return the class's name."""
            return type(self).__name__

    assert shop.get(Cart.as_view("cart")) == 200
    assert shop.cloudwatch.sum("RequestCount", ResourceName="Cart", StatusCode="200") == 1


def test_the_class_is_a_reporter() -> None:
    """The class itself can be passed as the reporter, and represents the current app's reporter."""
    shop = Shop()

    @request_count(CloudWatchMetricsReporter, "Index")
    def view() -> str:
        return "text"

    assert shop.get(view) == 200
    assert shop.cloudwatch.sum("RequestCount", ResourceName="Index", StatusCode="200") == 1
