"""A strict local CloudWatch emulator. Press Enter to list what was published, Ctrl-C to stop."""

import contextlib

from otel_cloudwatch_flask.testing import LocalCloudWatch

cloudwatch = LocalCloudWatch()
cloudwatch.start(port=4566)
with contextlib.suppress(KeyboardInterrupt, EOFError):
    while True:
        input(f"Listening at {cloudwatch.endpoint_url}; press Enter to see what was published. ")
        for metric in cloudwatch.published.metrics():
            dimensions = dict(metric.dimensions)
            count = cloudwatch.published.count(metric.name, dimensions, namespace=metric.namespace)
            total = cloudwatch.published.sum(metric.name, dimensions, namespace=metric.namespace)
            print(f"{metric}: {count:g} samples, sum {total:g}")
