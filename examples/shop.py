"""A small shop that publishes its metrics to CloudWatch.

    pip install otel-cloudwatch-flask gunicorn
    gunicorn --workers 2 --threads 4 'examples.shop:create_app()'

It publishes to the namespace "Shop", with the Region and credentials that boto3 finds. Without an AWS account, use
`python -m otel_cloudwatch_flask demo`, which runs this app with simulated visitors and a local CloudWatch.
"""

import random
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from flask import Blueprint, Flask, abort, request
from opentelemetry.metrics import get_meter

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.decorator import fault_failure_error, request_count

# instrument=True also records each request's duration by route and status, with OpenTelemetry's FlaskInstrumentor.
reporter = CloudWatchMetricsReporter(namespace="Shop", instrument=True)
shop = Blueprint("shop", __name__)

# OpenTelemetry's own instruments are published too.
meter = get_meter("shop")
product_views = meter.create_counter("shop.product.views", unit="{view}")
search_results = meter.create_histogram("shop.search.results", unit="{product}")
open_checkouts = meter.create_up_down_counter("shop.checkouts.open", unit="{checkout}")


def create_app() -> Flask:
    app = Flask(__name__)
    app.register_blueprint(shop)
    reporter.init_app(app)
    return app


@shop.get("/")
@request_count(reporter, "Index")
def index() -> list[dict[str, Any]]:
    return [asdict(product) for product in PRODUCTS.values()]


@shop.get("/products/<int:product_id>")
def product_page(product_id: int) -> dict[str, Any]:
    product = PRODUCTS.get(product_id) or abort(404)
    product_views.add(1, {"category": product.category})
    books.views.append(product.category)
    return asdict(product)


@shop.get("/search")
def search() -> list[str]:
    word = request.args.get("q", "").lower()
    found = [product.name for product in PRODUCTS.values() if word in product.name.lower()]
    search_results.record(len(found))
    books.searches.append(len(found))
    return found


@shop.post("/cart")
def cart() -> dict[str, Any]:
    basket = posted_basket()
    reporter.add_metric("Basket Size", basket.articles, "Count")
    books.baskets.append(basket.articles)
    return asdict(basket)


@shop.post("/checkout")
@request_count(reporter, "Checkout")
@fault_failure_error(reporter, "Checkout")
def checkout() -> tuple[dict[str, Any], int]:
    basket, payment = posted_basket(), request.args.get("payment", "card")
    open_checkouts.add(1)
    try:
        is_paid = pay(basket.total, payment)
    finally:
        open_checkouts.add(-1)
    if not is_paid:
        return {"error": "The payment was declined."}, 402
    reporter.add_metric("Orders", 1, "Count", {"Payment": payment})
    reporter.add_metric("Order Value", basket.total, dimensions={"Kind": "sale"})
    books.orders.append((payment, basket.total))
    return {"payment": payment, "total": basket.total}, 201


@shop.post("/refunds")
def refund() -> tuple[dict[str, Any], int]:
    amount = float(request.get_json()["amount"])
    reporter.add_metric("Order Value", -amount, dimensions={"Kind": "refund"})
    books.refunds.append(amount)
    return {"refunded": amount}, 201


@shop.get("/slow")
def slow() -> str:
    with reporter.timer("Report Time"):
        time.sleep(random.uniform(0.1, 0.3))
    return "Sales went up."


# The shop itself. No metrics below this line.


@dataclass(frozen=True)
class Product:
    name: str
    category: str
    price: float


@dataclass(frozen=True)
class Basket:
    articles: int
    total: float


@dataclass(frozen=True)
class Books:
    """The shop's own records, with which the demo compares the metrics in CloudWatch."""

    orders: list[tuple[str, float]] = field(default_factory=list)
    refunds: list[float] = field(default_factory=list)
    baskets: list[int] = field(default_factory=list)
    searches: list[int] = field(default_factory=list)
    views: list[str] = field(default_factory=list)


PRODUCTS = {
    1: Product("Espresso cup", "kitchen", 9.50),
    2: Product("Coffee grinder", "kitchen", 129.00),
    3: Product("Coffee beans", "pantry", 14.90),
    4: Product("Green tea", "pantry", 7.25),
    5: Product("Tea pot", "kitchen", 39.95),
    6: Product("Armchair", "living", 349.00),
    7: Product("Reading lamp", "living", 84.99),
    8: Product("Cocoa", "pantry", 5.80),
}
LARGEST_PAYMENT = 1000.0

books = Books()


def posted_basket() -> Basket:
    """Parse a request such as `{"1": 2, "6": 1}`, which maps product numbers to quantities."""
    quantities = request.get_json()
    if not isinstance(quantities, dict) or not quantities:
        abort(400, "Send a JSON object of product numbers and quantities.")
    try:
        lines = [(PRODUCTS[int(number)], int(quantity)) for number, quantity in quantities.items()]
    except (KeyError, TypeError, ValueError):
        abort(400, "Unknown product or invalid quantity.")
    total = round(sum(product.price * quantity for product, quantity in lines), 2)
    return Basket(sum(quantity for _, quantity in lines), total)


def pay(total: float, payment: str) -> bool:
    """Return whether the payment was accepted. Vouchers always fail, to show errors."""
    time.sleep(random.uniform(0.001, 0.02))
    if payment == "voucher":
        raise ConnectionError("The voucher service does not answer.")
    return total <= LARGEST_PAYMENT
