from flask import Blueprint

from examples.factory.extensions import metrics
from otel_cloudwatch_flask.decorator import request_count

pages = Blueprint("pages", __name__)


@pages.get("/")
@request_count(metrics, "Index")
def index() -> str:
    return "Hello\n"
