"""The live page follows the accessibility rules of axe-core. Skipped if axe-core cannot be fetched from npm."""

from typing import Any

import pytest

from otel_cloudwatch_flask import MetricRule
from tests.live_page.browser import DESK, PHONE, Page, Site
from tests.support.npm_packages import fetched

VIOLATIONS = """
const done = arguments[0];
const described = ({ id, nodes: [first] }) => [id, first.html, first.failureSummary];
axe.run(document).then(({ violations }) => done(violations.map(described)));
"""


@pytest.fixture(scope="module")
def axe(pytestconfig: pytest.Config) -> str:
    """The source code of axe-core (MPL-2.0)."""
    assert pytestconfig.cache is not None
    return (fetched(pytestconfig.cache, "axe-core", "4.14.1") / "axe-core" / "axe.min.js").read_text("utf-8")


class Down:
    """A CloudWatch client without a connection."""

    def put_metric_data(self, **_request: Any) -> None:
        """Raise ``ConnectionError``."""
        raise ConnectionError("no route to host")


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_no_rule_is_violated(page: Page, axe: str, size: tuple[int, int], is_dark: bool) -> None:  # noqa: FBT001
    """The page, its details, a group's comparison and the actions violate no rule, even with undelivered metrics."""
    site = Site(Down(), rules=[MetricRule(match="L*", storage_resolution=1)])
    try:
        for status in ("200", "503"):
            site.reporter.add_metric("Latency", 160.4, "Milliseconds", {"Stage": "prod", "Status": status})
        site.provider.get_meter("shop").create_counter("views").add(1)
        assert not site.reporter.flush(timeout_seconds=0.5)
        page.set_screen(*size, is_dark=is_dark)
        page.open(site, rows=3)
        page.driver.execute_script(axe)
        for opener, ready in (
            (None, "document.getElementById('state').dataset.state === 'bad'"),
            (".series .open", "document.querySelectorAll('#detail pre').length === 1"),
            (".group .open", "document.querySelectorAll('#detail .u-legend th').length === 3"),
            (".actions", "document.getElementById('menu').matches(':popover-open')"),
        ):
            page.driver.execute_script("document.getElementById('detail').close()")
            if opener:
                page.driver.execute_script(f"document.querySelector('#body {opener}').click()")
            page.wait(ready)
            page.wait("document.getAnimations().length === 0")
            assert page.driver.execute_async_script(VIOLATIONS) == []
    finally:
        site.close()
