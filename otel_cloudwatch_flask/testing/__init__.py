"""Fakes of CloudWatch for your tests.

``FakeCloudWatch`` is an in-memory replacement for boto3's client, and ``LocalCloudWatch`` is an HTTP server. Both
validate requests as CloudWatch does, and store valid ones. ``FakeCloudWatch`` and ``LocalCloudWatch.published`` have
methods for looking up what was published and for making assertions about it.
"""

from typing import TYPE_CHECKING, Any

from otel_cloudwatch_flask.testing.fake import FakeCloudWatch, client_error

if TYPE_CHECKING:
    from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch

__all__ = ["FakeCloudWatch", "LocalCloudWatch", "client_error"]


def __getattr__(name: str) -> Any:
    # Imported on demand because it needs the extra "demo", which FakeCloudWatch does not.
    if name == "LocalCloudWatch":
        from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch  # noqa: PLC0415 - see above

        return LocalCloudWatch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
