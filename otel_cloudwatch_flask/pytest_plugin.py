"""A pytest plugin whose fixture ``cloudwatch`` is a fake CloudWatch that receives the metrics of the app under test.

pytest imports this module wherever the package is installed, so the fake is not imported before a test requests it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from otel_cloudwatch_flask.testing.intercept import InterceptedCloudWatch

_KEY: "pytest.StashKey[InterceptedCloudWatch]" = pytest.StashKey()


@pytest.fixture
def cloudwatch(request: pytest.FixtureRequest) -> "Iterator[InterceptedCloudWatch]":
    """A fake that validates metrics as CloudWatch does, and stores them in memory instead of sending them.

    It receives the metrics of all reporters, readers and exporters in this process that were created without a client,
    including those created before the test. Every query flushes first:
    ``assert cloudwatch.sum("RequestCount", ResourceName="Index") == 3``.
    """
    from otel_cloudwatch_flask.testing.intercept import intercepted_cloudwatch  # noqa: PLC0415 - see above

    with intercepted_cloudwatch() as fake:
        request.node.stash[_KEY] = fake
        yield fake


# Run first, because pytest's implementation copies the sections of the item to the report.
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> None:
    """Add the published and lost metrics to the report of a failed test that uses the fixture."""
    fake = item.stash.get(_KEY, None)
    if fake is not None and call.when == "call" and call.excinfo is not None:
        item.add_report_section("call", "cloudwatch", fake.report())
