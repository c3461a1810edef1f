"""pytest plugin with the fixture ``cloudwatch``: a fake CloudWatch that the app under test publishes to.

pytest imports this module wherever the package is installed; the fake is imported when a test requests the fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from otel_cloudwatch_flask.testing.intercept import InterceptedCloudWatch

_KEY: "pytest.StashKey[InterceptedCloudWatch]" = pytest.StashKey()


@pytest.fixture
def cloudwatch(request: pytest.FixtureRequest) -> "Iterator[InterceptedCloudWatch]":
    """An in-memory CloudWatch with the validation of the real one; receives all metrics of this process.

    During the test, reporters, readers and exporters without a client of their own publish to it, whenever they were
    created. Every query flushes first: ``assert cloudwatch.sum("RequestCount", ResourceName="Index") == 3``.
    """
    from otel_cloudwatch_flask.testing.intercept import intercepted_cloudwatch  # noqa: PLC0415 - see above

    with intercepted_cloudwatch() as fake:
        request.node.stash[_KEY] = fake
        yield fake


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> None:
    """Add the published and the lost metrics to the report of a failed test."""
    fake = item.stash.get(_KEY, None)
    if fake is not None and call.when == "call" and call.excinfo is not None:
        item.add_report_section("call", "cloudwatch", fake.report())
