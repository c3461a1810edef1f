"""An app factory. The reporter is created once, and `init_app` connects it to each app."""

from flask import Flask

from examples.factory.extensions import metrics
from examples.factory.orders import orders
from examples.factory.pages import pages


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["CLOUDWATCH_NAMESPACE"] = "Shop"
    app.config["CLOUDWATCH_DEFAULT_DIMENSIONS"] = {"Stage": "demo"}
    app.register_blueprint(pages)
    app.register_blueprint(orders, url_prefix="/orders")
    metrics.init_app(app)
    return app
