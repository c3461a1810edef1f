"""Fakes of CloudWatch for your tests.

``FakeCloudWatch`` is an in-memory replacement for boto3's client, and ``LocalCloudWatch`` is an HTTP server. Both
validate requests as CloudWatch does, and store valid ones. ``FakeCloudWatch`` and ``LocalCloudWatch.published`` have
methods for looking up what was published and for making assertions about it.
"""

from otel_cloudwatch_flask.testing.fake import FakeCloudWatch, client_error
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch

__all__ = ["FakeCloudWatch", "LocalCloudWatch", "client_error"]
