"""The live page in a real browser, on a real server: under load, by keyboard, on a phone, with untrusted names."""

import json
import random
import shutil
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from werkzeug.serving import make_server

from otel_cloudwatch_flask import CloudWatchMetricsReporter, MetricRule
from otel_cloudwatch_flask.live_page.messages import MESSAGES
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.fakes import eventually

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="needs a Chromium and its chromedriver: apt-get install chromium chromium-driver",
)

SERIES = 1000
PHONE, DESK = (390, 844), (1280, 900)
PATIENCE_SECONDS = 40.0
"""The timeout for a browser and a loaded server, which are slow on two cores."""

HOSTILE = [
    "<img src=x onerror=window.hacked=1>",
    "<script>window.hacked=1</script>",
    "a&amp;b\"'`><svg onload=window.hacked=1>",
    "x" * 255,
    "javascript:window.hacked=1",
    "{{constructor.constructor('window.hacked=1')()}}",
]


class Site:
    """An app on a loopback server that publishes to a fake CloudWatch in memory."""

    def __init__(self, client: Any = None, **options: Any) -> None:
        self.cloudwatch = FakeCloudWatch()
        self.app = Flask("shop")
        self.app.config.update(
            CLOUDWATCH_LIVE_PAGE=True, CLOUDWATCH_LIVE_PAGE_CHECK=lambda: True, CLOUDWATCH_MAX_METRICS=SERIES + 100
        )
        self.app.add_url_rule("/many", view_func=self.many)
        self.app.add_url_rule("/hostile", view_func=self.hostile)
        self.provider = MeterProvider(shutdown_on_exit=False)
        self.reporter = CloudWatchMetricsReporter(
            self.app, "Shop", client or self.cloudwatch, meter_provider=self.provider, **options
        )
        self.server = make_server("127.0.0.1", 0, self.app, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self.server.serve_forever, daemon=True)]
        self._threads[0].start()

    def many(self) -> str:
        """Record every series once."""
        for number in range(SERIES):
            name, route = f"Metric {number % 50:02}", f"/page/{number // 50}"
            self.reporter.add_metric(name, random.expovariate(0.1), "Milliseconds", {"Route": route})
        return "Recorded"

    def hostile(self) -> str:
        """Record a metric under every hostile name, with the name also as a dimension."""
        for text in HOSTILE:
            self.reporter.add_metric(text, 1, "Count", {"Text": text, "Long": "y" * 1000, "Odd": "\u202e\u0007😀</b>"})
        return "Recorded"

    def request(self, path: str) -> None:
        """Send the app one request."""
        with urlopen(self.url + path, timeout=30) as response:  # noqa: S310 - loopback
            assert response.status == 200

    def start_load(self) -> None:
        """Send a few requests per second from a thread."""

        def send() -> None:
            while not self._ended.wait(0.3):
                self.request("/many")

        self._threads.append(threading.Thread(target=send, daemon=True))
        self._threads[-1].start()

    def stop_load(self) -> None:
        """Stop the load, and flush."""
        self._ended.set()
        for thread in self._threads[1:]:
            thread.join()
        assert self.reporter.flush()

    def close(self) -> None:
        """Stop the server and the reporter."""
        self._ended.set()
        for thread in self._threads[1:]:
            thread.join()
        self.server.shutdown()
        self._threads[0].join()
        self.server.server_close()
        self.reporter.shutdown(timeout_seconds=1)
        MESSAGES._messages.clear()


class Page:
    """The page in the browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def set_screen(self, width: int, height: int, *, is_dark: bool = False) -> None:
        """Emulate a screen of this size and color scheme."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, site: Site, rows: int | None = None) -> None:
        """Open a site's page, and wait until it shows data, or this number of rows."""
        self.driver.get("about:blank")  # so that the previous page stops polling: its site may be closed
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(f"{site.url}/_cloudwatch")
        self.wait("document.getElementById('sentence').textContent !== 'Loading …'")
        if rows is not None:
            self.wait(f"document.querySelectorAll('#body .series').length === {rows}")

    def run(self, expression: str) -> Any:
        """Evaluate an expression in the page."""
        return self.driver.execute_script(f"return ({expression})")

    def wait(self, condition: str) -> None:
        """Wait until an expression in the page is true."""
        assert eventually(lambda: self.run(condition), within_seconds=PATIENCE_SECONDS), self.run(
            "document.body.innerText"
        )

    def text(self, selector: str) -> str:
        """Return the text of the first element that matches a selector."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    def press(self, *keys: str) -> None:
        """Press keys in the focused element."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def names(self) -> list[str]:
        """Return the metric names in the visible rows, in order."""
        shown: list[str] = self.run(
            "[...document.querySelectorAll('#body .series:not([hidden]) .name')].map(e => e.textContent)"
        )
        return shown

    def assert_is_clean(self, site: Site) -> None:
        """Nothing was logged to the console, and no other host was contacted."""
        assert self.driver.get_log("browser") == []
        messages = [json.loads(each["message"])["message"] for each in self.driver.get_log("performance")]
        urls = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        assert urls
        assert {urlsplit(url).netloc for url in urls} == {urlsplit(site.url).netloc}


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A headless browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    driver.set_script_timeout(PATIENCE_SECONDS)
    yield Page(driver)
    driver.quit()


@pytest.fixture
def site() -> Iterator[Site]:
    """A site with a rule."""
    site = Site(rules=[MetricRule(match="Metric 0*", storage_resolution=1)])
    yield site
    site.close()


FRAMES = """
const done = arguments[0], gaps = [], begun = performance.now();
let last = begun;
const frame = (now) => {
  gaps.push(now - last);
  last = now;
  scrollBy(0, 40);
  if (now - begun < 2500) requestAnimationFrame(frame);
  else done(gaps.slice(1).sort((a, b) => a - b));
};
requestAnimationFrame(frame);
"""


def test_a_thousand_series_under_load(page: Page, site: Site) -> None:
    """All series are shown, updated, and can be scrolled smoothly under load; afterwards, the figures are exact."""
    site.start_load()
    page.set_screen(*DESK)
    page.open(site, rows=SERIES)
    before = page.text("#sent")
    page.wait(f"document.getElementById('sent').textContent !== '{before}'")
    gaps = page.driver.execute_async_script(FRAMES)
    # Milliseconds; 50 and 200 on two busy cores. Redrawing all rows at each update would take seconds.
    assert gaps[len(gaps) // 2] < 500
    assert gaps[-1] < 1500
    site.stop_load()
    page.driver.execute_script("scrollTo(0, 0)")
    page.wait(f"document.getElementById('sent').textContent === '{len(site.cloudwatch.datums):,}'")
    page.wait("document.querySelectorAll('#body tr:nth-child(2) .sparkline').length === 1")
    shown = page.run("[...document.querySelectorAll('#body tr:nth-child(2) .number')].map(e => Number(e.title))")
    route = page.text("#body tr:nth-child(2) .dimension").removeprefix("Route ")
    name, cloudwatch = page.names()[0], site.cloudwatch
    assert (name, route) == ("Metric 00", "/page/0")
    assert shown == [
        cloudwatch.count(name, Route=route),
        cloudwatch.sum(name, Route=route),
        cloudwatch.minimum(name, Route=route),
        *(cloudwatch.percentile(name, percent, Route=route) for percent in (50, 90, 99)),
        cloudwatch.maximum(name, Route=route),
    ]
    page.assert_is_clean(site)


def test_filter_and_sort(page: Page, site: Site) -> None:
    """Words and a rule filter the table, and each column sorts it in both directions."""
    site.request("/many")
    assert site.reporter.flush()
    page.set_screen(*DESK)
    page.open(site, rows=SERIES)
    page.driver.find_element("css selector", "#filter").send_keys("metric 07 ROUTE=/page/1")
    page.wait("document.getElementById('count').textContent === '11 of 1,000 metrics'")
    assert set(page.names()) == {"Metric 07"}
    routes = page.run(
        "[...document.querySelectorAll('#body .series:not([hidden]) .dimension')].map(e => e.textContent)"
    )
    assert routes == [f"Route /page/{number}" for number in (1, *range(10, 20))]
    page.driver.find_element("css selector", "#filter").clear()
    page.driver.execute_script(
        "const rule = document.getElementById('rule'); rule.value = '0'; rule.dispatchEvent(new Event('change'))"
    )
    page.wait("document.getElementById('count').textContent === '200 of 1,000 metrics'")
    (column,) = page.driver.find_elements("xpath", "//thead//button[.='p99']")
    for state in ("descending", "ascending"):
        column.click()
        assert page.run("document.querySelectorAll('th')[7].getAttribute('aria-sort')") == state
        assert page.run("document.querySelectorAll('th[aria-sort=none]').length") == 7
        ids = page.run("[...document.querySelectorAll('#body .series')].map(e => Number(e.dataset.id))")
        assert len(ids) == SERIES
        values = p99_by_id(site)
        assert [values[each] for each in ids] == sorted(values.values(), reverse=state == "descending")
    page.driver.find_element("css selector", "#filter").send_keys("nothing like it")
    page.wait("!document.getElementById('nothing').hidden")
    page.assert_is_clean(site)


def p99_by_id(site: Site) -> dict[int, float]:
    """Return the p99 of each series in the page's data."""
    with urlopen(f"{site.url}/_cloudwatch/data.json", timeout=30) as response:  # noqa: S310 - loopback
        return {each["id"]: each["p99"] for each in json.load(response)["series"]}


def test_the_detail_view_by_keyboard(page: Page, site: Site) -> None:
    """Enter opens a series with charts and its data points as sent; Escape closes it and restores the focus."""
    for _ in range(3):
        site.request("/many")
        assert site.reporter.flush()
    page.set_screen(*DESK)
    page.open(site, rows=SERIES)
    page.press("/")
    assert page.run("document.activeElement.id") == "filter"
    page.driver.execute_script("document.querySelector('#body tr:nth-child(3) .open').focus()")
    page.press("\ue007")
    page.wait("document.getElementById('detail').open && document.querySelectorAll('#detail canvas').length === 1")
    assert page.text("#detail-name") == page.names()[2] == "Metric 00"
    page.wait("document.querySelectorAll('#detail pre').length === 3")
    sent = [dict(each) for each in site.cloudwatch.datums if each["MetricName"] == "Metric 00"]
    shown = json.loads(page.text("#detail pre"))
    assert (shown["Values"], shown["Counts"]) in [(each["Values"], each["Counts"]) for each in sent]
    assert page.run("document.getElementById('detail').contains(document.activeElement)")
    page.press("\ue00c")
    page.wait("!document.getElementById('detail').open")
    assert page.run("document.activeElement === document.querySelector('#body tr:nth-child(3) .open')")
    page.assert_is_clean(site)


def test_statistics_without_meaning_are_grey(page: Page, site: Site) -> None:
    """Percentiles of a counter and the sum of a gauge are grey, with the reason; numbers have no exponent."""
    meter = site.provider.get_meter("shop")
    meter.create_counter("views").add(160.4)
    meter.create_gauge("temperature").set(0.000861)
    assert site.reporter.flush()
    page.set_screen(*DESK)
    page.open(site, rows=2)
    page.wait("document.querySelectorAll('#body .number:not(:empty)').length === 14")
    cells = "[...document.querySelectorAll('#body tr:nth-child({}) .number')].map(e => e.textContent)"
    titles = "[...document.querySelectorAll('#body tr:nth-child({}) .number')].map(e => e.title.split(':')[0])"
    assert page.names() == ["temperature", "views"]
    assert page.run(cells.format(1)) == ["1", *["0.000861"] * 6]
    assert page.run(cells.format(2)) == ["1", *["160.4"] * 6]
    assert page.run(titles.format(1))[1] == "Not meaningful for a gauge"
    assert set(page.run(titles.format(2))[2:]) == {"Not meaningful for a counter"}
    text = f"await import('{site.url}/_cloudwatch/text.js')"
    page.driver.execute_script(
        f"const text = {text}; window.formats = [0.1604, 0.00086, 2.5, 999.96].map(text.milliseconds)"
    )
    page.wait("window.formats !== undefined")
    assert page.run("window.formats") == ["160 ms", "0.86 ms", "2.5 s", "1,000 s"]
    page.assert_is_clean(site)


def test_untrusted_names_are_shown_as_text(page: Page, site: Site) -> None:
    """Names are truncated, invisible characters are escaped, and nothing in them is executed."""
    site.request("/hostile")
    assert site.reporter.flush()
    page.set_screen(*DESK)
    page.open(site, rows=len(HOSTILE))
    assert set(page.names()) == {each if len(each) <= 120 else each[:120] + "…" for each in HOSTILE}
    for index in range(len(HOSTILE)):
        page.driver.execute_script(f"document.querySelectorAll('.open')[{index}].click()")
        page.wait("document.querySelectorAll('#detail pre').length === 1")
        assert (
            page.run("document.querySelectorAll('main img, main script, dialog img, dialog script, dialog svg').length")
            == 0
        )
        page.driver.execute_script("document.getElementById('detail').close()")
    assert page.run("window.hacked") is None
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    page.assert_is_clean(site)


def test_errors_are_shown_as_text(page: Page) -> None:
    """Markup in messages is not interpreted, and bidirectional marks are escaped."""

    class Down:
        def put_metric_data(self, **_request: Any) -> None:
            raise ConnectionError("<img src=x onerror=window.hacked=1> \u202eno route\u0007")

    site = Site(Down())
    try:
        site.request("/hostile")
        assert not site.reporter.flush(timeout_seconds=0.5)
        page.set_screen(*PHONE, is_dark=True)
        page.open(site)
        page.wait("document.getElementById('state').dataset.state === 'bad'")
        assert "<img src=x onerror=window.hacked=1> \\u" in page.text("#remedy")
        assert not {"\u202e", "\u0007"} & set(page.run("document.body.textContent"))
        assert page.text("#sentence").endswith(f"{len(HOSTILE)} data points are kept, and retried.")
        assert page.run("window.hacked") is None
        page.assert_is_clean(site)
    finally:
        site.close()


def test_an_app_that_stops_responding(page: Page) -> None:
    """The page reports that the app does not respond, and keeps showing its data."""
    site = Site()
    site.request("/hostile")
    assert site.reporter.flush()
    page.set_screen(*DESK)
    page.open(site, rows=len(HOSTILE))
    site.close()
    page.wait("document.getElementById('sentence').textContent.startsWith('The app is not responding.')")
    assert len(page.names()) == len(HOSTILE)
    page.driver.get("about:blank")
    page.driver.get_log("browser")


CONTRASTS = """
(() => {
  const parse = (color) => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const [r, g, b] = color.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = parse(getComputedStyle(each).backgroundColor);
      if (color[3] === 255) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const worst = {};
  for (const each of document.querySelectorAll("body *")) {
    const hasText = [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!hasText || !each.checkVisibility() || each.closest("noscript, option")) continue;
    const [a, b] = [luminance(parse(getComputedStyle(each).color).slice(0, 3)), luminance(background(each))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) worst[each.className || each.id || each.tagName] = contrast;
  }
  return worst;
})()
"""


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("size", [PHONE, DESK])
def test_accessibility(page: Page, size: tuple[int, int], is_dark: bool) -> None:  # noqa: FBT001
    """At each size and in both color schemes, text has AA contrast, nothing overflows, and all controls are labeled."""
    site = Site(rules=[MetricRule(match="a*")])
    try:
        site.request("/hostile")
        assert site.reporter.flush()
        page.set_screen(*size, is_dark=is_dark)
        page.open(site, rows=len(HOSTILE))
        assert page.run(CONTRASTS) == {}
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        page.driver.execute_script("document.querySelector('.open').click()")
        page.wait("document.querySelectorAll('#detail pre').length === 1")
        assert page.run(CONTRASTS) == {}
        assert page.run("document.getElementById('detail').scrollWidth <= innerWidth")
        controls = "[...document.querySelectorAll('button, select, input')]"
        assert page.run(f"{controls}.filter(e => !e.labels?.length && !e.textContent).length") == 0
        assert page.run("document.querySelectorAll('table[role=table] tr[role=row] [role=columnheader]').length") == 10
    finally:
        site.close()
