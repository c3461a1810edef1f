"""Fakes of CloudWatch for your own tests.

``FakeCloudWatch`` replaces boto3's client in memory; ``LocalCloudWatch`` is an HTTP server. Both validate requests like
CloudWatch, store what is valid, and have look-ups for assertions.
"""

from typing import TYPE_CHECKING, Any

from otel_cloudwatch_flask.testing.fake import FakeCloudWatch, client_error

if TYPE_CHECKING:
    from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch

__all__ = ["FakeCloudWatch", "LocalCloudWatch", "client_error"]


def __getattr__(name: str) -> Any:
    # LocalCloudWatch needs the extra "demo"; FakeCloudWatch needs nothing.
    if name == "LocalCloudWatch":
        from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch  # noqa: PLC0415 - see above

        return LocalCloudWatch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
