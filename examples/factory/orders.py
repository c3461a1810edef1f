from flask import Blueprint

from examples.factory.extensions import metrics
from otel_cloudwatch_flask.decorator import fault_failure_error

orders = Blueprint("orders", __name__)


@orders.post("/<payment>")
@fault_failure_error(metrics, "Orders")
def order(payment: str) -> tuple[str, int]:
    if payment == "voucher":
        return "Vouchers are not accepted.\n", 402
    metrics.add_metric("Orders", 1, "Count", {"Payment": payment})
    return "Thank you.\n", 201
