"""A pytest plugin: the fixture ``cloudwatch``, to which the app under test publishes.

pytest imports this wherever the package is installed, so it imports nothing itself before a test asks for the fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from otel_cloudwatch_flask.testing.intercept import InterceptedCloudWatch

_KEY: "pytest.StashKey[InterceptedCloudWatch]" = pytest.StashKey()


@pytest.fixture
def cloudwatch(request: pytest.FixtureRequest) -> "Iterator[InterceptedCloudWatch]":
    """A CloudWatch in memory, as strict as the real one, to which everything of this process is published.

    Reporters, readers and exporters that have no client of their own publish to it for the length of the test, whenever
    they were made. Each look-up flushes first: ``cloudwatch.sum("RequestCount", ResourceName="Index") == 3``.
    """
    from otel_cloudwatch_flask.testing.intercept import intercepted_cloudwatch  # noqa: PLC0415 - see above

    with intercepted_cloudwatch() as fake:
        request.node.stash[_KEY] = fake
        yield fake


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> None:
    """Add to the report of a test that failed what was published, and what was lost."""
    fake = item.stash.get(_KEY, None)
    if fake is not None and call.when == "call" and call.excinfo is not None:
        item.add_report_section("call", "cloudwatch", fake.report())
