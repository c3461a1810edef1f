"""A Flask app as a Lambda function behind API Gateway. Run as a program, it invokes itself once."""

import json
from typing import Any

from apig_wsgi import make_lambda_handler
from flask import Flask

from otel_cloudwatch_flask import CloudWatchMetricsReporter

app = Flask(__name__)
# On Lambda, flush="sync" is the default: when the handler returns, its metrics have been delivered.
metrics = CloudWatchMetricsReporter(app, "Shop", instrument=True)


@app.post("/orders")
def order() -> tuple[dict[str, str], int]:
    metrics.add_metric("Orders", 1, "Count")
    return {"status": "ordered"}, 201


handler = make_lambda_handler(app)

EVENT: dict[str, Any] = {
    "version": "2.0",
    "rawPath": "/orders",
    "rawQueryString": "",
    "headers": {"host": "shop.example", "content-length": "0"},
    "requestContext": {"http": {"method": "POST", "path": "/orders", "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1"}},
    "isBase64Encoded": False,
}

if __name__ == "__main__":
    answer = handler(EVENT, None)
    stats = metrics.stats()
    print(answer["statusCode"], json.loads(answer["body"])["status"], f"{stats.datums_pending} pending")
