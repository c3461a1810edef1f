"""The actions for each metric: groups, links to CloudWatch, texts to copy, and a filter in the URL."""

import json
from typing import Any

import pytest

from otel_cloudwatch_flask import MetricRule
from tests.live_page.browser import DESK, Page, Site

ENTER, ESCAPE, TAB = "\ue007", "\ue00c", "\ue004"

CAPTURE = "navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }"
"""Stores copied text, because a headless browser cannot read the clipboard."""


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch) -> str:
    """The Region in the environment. Set before the site is created, because settings are read once."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    return "eu-west-1"


@pytest.fixture
def shop(region: str, site: Site) -> Site:  # noqa: ARG001 - only its effect is needed
    """A site with a metric that has three series, one of which counts errors, and a metric with one series."""
    for route, status in (("/", "200"), ("/checkout [old]", "200"), ("/checkout [old]", "503")):
        dimensions = {"Stage": "prod", "Status": status, "Route": route}
        site.reporter.add_metric("Latency", 160.4, "Milliseconds", dimensions)
    site.reporter.add_metric("Archive Size", 1, "Bytes")
    assert site.reporter.flush()
    return site


def opened(page: Page, site: Site) -> Page:
    """Show the page of a site with four series, and store copied text."""
    page.set_screen(*DESK)
    page.open(site, rows=4)
    page.driver.execute_script(CAPTURE)
    return page


def copied(page: Page, label: str) -> str:
    """Open the actions of the first row, press the copy button with this label, and return the copied text."""
    page.driver.execute_script("document.querySelector('#body .actions').click()")
    buttons = "[...document.querySelectorAll('#menu button')]"
    page.driver.execute_script(f"{buttons}.find(e => e.textContent === arguments[0]).click()", label)
    page.wait(f"{buttons}.some(e => e.textContent === 'Copied')")
    text: str = page.run("window.copied")
    return text


def test_groups(page: Page, shop: Site) -> None:
    """Series are listed below their metric, errors first; a button shows their common dimensions."""
    opened(page, shop)
    texts = "[...document.querySelectorAll('#body {}')].map(e => e.textContent)"
    assert page.names() == ["Latency", "Latency", "Latency", "Archive Size"]
    assert page.run(texts.format(".group .about")) == ["ms3 metrics1 shared dimension"]
    assert page.run(texts.format(".grouped .error:not([hidden])")) == ["error"]
    assert page.run("document.querySelector('.grouped:nth-child(2) .error').hidden") is False
    shown = "[...document.querySelectorAll('#body .grouped:nth-child(2) .dimension')].filter(e => e.offsetParent)"
    assert page.run(f"{shown}.map(e => e.textContent)") == ["Route /checkout [old]", "Status 503"]
    page.driver.execute_script("document.querySelector('.chip').focus()")
    page.press(ENTER)
    page.wait("document.querySelector('.chip').getAttribute('aria-expanded') === 'true'")
    assert page.text(".constants") == "Stage prod"
    assert not page.run("document.getElementById('detail').open")
    page.assert_is_clean(shop)


def test_a_metric_whose_first_error_comes_later(page: Page, site: Site) -> None:
    """A program may publish 0 until there is a fault; then the row is marked, even on a page that is already open."""
    site.reporter.add_metric("Fault", 0, "Count")
    assert site.reporter.flush()
    page.set_screen(*DESK)
    page.open(site, rows=1)
    shown = "[...document.querySelectorAll('#body .error')].filter(e => e.offsetParent).length"
    assert page.run(shown) == 0
    site.reporter.add_metric("Fault", 1, "Count")
    assert site.reporter.flush()
    page.wait(f"{shown} === 1")
    page.assert_is_clean(site)


def test_dimensions_that_differ_most_come_first(page: Page, site: Site) -> None:
    """Each row begins with the dimension that has the most values, and shows the number of hidden ones."""
    for number in range(4):
        dimensions = {f"Attribute {each}": "x" * 60 for each in range(6)} | {
            "Area": f"{number % 2}",
            "Zone": f"{number}",
        }
        site.reporter.add_metric("Wide", 1, "Count", dimensions)
    site.reporter.add_metric("Alone", 1, "Count", dimensions)
    assert site.reporter.flush()
    page.set_screen(*DESK)
    page.open(site, rows=5)
    first = "[...document.querySelectorAll('.grouped')[0].querySelectorAll('.dimension:not(.constant)')]"
    by_place = f"{first}.sort((a, b) => a.getBoundingClientRect().x - b.getBoundingClientRect().x)"
    assert page.run(f"{by_place}.map(e => e.textContent)") == ["Zone 0", "Area 0"]
    page.wait("document.querySelector('.series:not(.grouped) .more').textContent === '+7'")
    page.assert_is_clean(site)


def test_the_series_of_a_metric_are_compared(page: Page, shop: Site) -> None:
    """The button with a group's name opens one chart with a line per series."""
    opened(page, shop)
    page.driver.execute_script("document.querySelector('.group .open').focus()")
    page.press(ENTER)
    page.wait("document.querySelectorAll('#detail canvas').length === 1")
    labels = page.run("[...document.querySelectorAll('#detail .u-legend th')].map(e => e.textContent).sort()")
    assert labels == ["/ 200", "/checkout [old] 200", "/checkout [old] 503", "Time"]
    page.press(ESCAPE)
    page.wait("!document.getElementById('detail').open")
    assert page.run("document.activeElement === document.querySelector('.group .open')")
    page.assert_is_clean(shop)


def test_the_actions_by_keyboard(page: Page, shop: Site) -> None:
    """Enter opens the actions and focuses the link to CloudWatch; Escape closes them and restores the focus."""
    opened(page, shop)
    page.driver.execute_script("document.querySelector('.series:not(.grouped) .actions').focus()")
    page.press(ENTER)
    page.wait("document.getElementById('menu').matches(':popover-open')")
    assert page.run("document.activeElement.href") == (
        "https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1#metricsV2:graph="
        "~(metrics~(~(~'Shop~'Archive*20Size))~view~'timeSeries~stacked~false~region~'eu-west-1~stat~'p99~period~60)"
    )
    page.press(TAB)
    assert page.run("document.activeElement.textContent") == "Copy dashboard widget"
    page.press(ESCAPE)
    page.wait("!document.getElementById('menu').matches(':popover-open')")
    assert page.run("document.activeElement === document.querySelector('.series:not(.grouped) .actions')")
    page.assert_is_clean(shop)


def test_what_can_be_copied(page: Page, shop: Site) -> None:
    """Widgets, alarms and rules for a metric can be copied, and are valid."""
    opened(page, shop)
    widget = json.loads(copied(page, "Copy dashboard widget"))["properties"]
    assert (widget["region"], widget["stat"], len(widget["metrics"])) == ("eu-west-1", "p99", 3)
    assert ["Shop", "Latency", "Route", "/", "Stage", "prod", "Status", "200"] in widget["metrics"]
    alarm = json.loads(copied(page, "Copy alarm on the first metric"))["Properties"]
    assert (alarm["MetricName"], alarm["Threshold"], alarm["ExtendedStatistic"]) == ("Latency", 321, "p99")
    dropped = copied(page, "Copy rule to drop all metrics with this name")
    assert evaluated(dropped) == MetricRule(match="Latency", drop=True)
    reduced = copied(page, "Copy rule to drop dimension Route")
    assert evaluated(reduced) == MetricRule(match="Latency", dimensions=["Stage", "Status"])
    page.assert_is_clean(shop)


@pytest.mark.parametrize(
    ("series", "statistic", "threshold"),
    [
        # Three flushes, of which two are in the same minute.
        ({"kind": "histogram", "unit": "Count", "flushes": [[60, 5, 1], [70, 6, 1], [120, 8, 1]]}, "Sum", 22),
        ({"kind": "counter", "unit": "Bytes", "flushes": []}, "Sum", 1),
        (
            {"kind": "up-down counter", "unit": "Count", "flushes": [[60, 5, 1], [70, 6, 1]], "maximum": 6},
            "Average",
            12,
        ),
        ({"kind": "gauge", "unit": "None", "flushes": [[60, -5, 1]], "maximum": -5}, "Average", 1),
    ],
)
def test_a_copied_alarm(page: Page, site: Site, series: dict[str, Any], statistic: str, threshold: float) -> None:
    """The threshold is twice the highest value in a minute, and current values are not added up."""
    page.open(site)
    given = {"namespace": "Shop", "metric_name": "Views", "dimensions": {}, "p99": None, **series}
    alarm = f"(await import('{site.url}/_cloudwatch/links.js')).alarm(arguments[0])"
    properties = json.loads(page.driver.execute_script(f"return (async () => {alarm})()", given))["Properties"]
    assert (properties["Statistic"], properties["Threshold"]) == (statistic, threshold)
    page.assert_is_clean(site)


def evaluated(text: str) -> Any:
    """Return the rule that a copied text creates."""
    return eval(text, {"MetricRule": MetricRule})  # noqa: S307 - Python is what the page offers to copy


def test_the_filter_is_in_the_url(page: Page, shop: Site) -> None:
    """Filter and sort order are kept in the URL, so opening the URL again shows the same view."""
    opened(page, shop)
    page.driver.find_element("css selector", "#filter").send_keys("status=503")
    page.driver.execute_script("document.querySelectorAll('.sort')[3].click()")
    page.wait("document.getElementById('count').textContent === '1 of 4 metrics'")
    url = page.driver.current_url
    assert url == f"{shop.url}/_cloudwatch?filter=status%3D503&sort=-minimum"
    page.driver.get("about:blank")
    page.driver.get(url)
    page.wait("document.getElementById('count').textContent === '1 of 4 metrics'")
    assert page.run("document.getElementById('filter').value") == "status=503"
    assert page.run("document.querySelector('th[aria-sort=descending]').textContent") == "Min"
    page.assert_is_clean(shop)
