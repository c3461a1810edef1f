"""The live page in a real browser: under load, by keyboard, on a phone screen, and with untrusted names."""

import json
from typing import Any
from urllib.request import urlopen

import pytest

from otel_cloudwatch_flask import MetricRule
from otel_cloudwatch_flask.live_page.blueprint import LivePage
from otel_cloudwatch_flask.live_page.observations import observation_of
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter, live_exporters
from tests.live_page.browser import DESK, HOSTILE, PHONE, SERIES, Page, Site

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
    """Under load, all series are shown, updated and can be scrolled smoothly; afterwards, the figures are exact."""
    site.start_load()
    page.set_screen(*DESK)
    page.open(site, rows=SERIES)
    before = page.text("#sent")
    page.wait(f"document.getElementById('sent').textContent !== '{before}'")
    gaps = page.driver.execute_async_script(FRAMES)
    # Milliseconds; 50 and 200 on two busy cores. Redrawing all rows in each update would take seconds.
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
    """Words and a rule filter the table, and each column can be sorted in both directions."""
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
    """Enter opens a series with its charts and its data points as sent; Escape closes it and restores the focus."""
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
    assert page.run("document.querySelector('#detail canvas').clientHeight") == 180
    page.wait("document.querySelectorAll('#detail pre').length === 3")
    sent = [dict(each) for each in site.cloudwatch.datums if each["MetricName"] == "Metric 00"]
    shown = json.loads(page.text("#detail pre"))
    assert (shown["Values"], shown["Counts"]) in [(each["Values"], each["Counts"]) for each in sent]
    assert page.run("document.getElementById('detail').contains(document.activeElement)")
    page.press("\ue00c")
    page.wait("!document.getElementById('detail').open")
    assert page.run("document.activeElement === document.querySelector('#body tr:nth-child(3) .open')")
    page.assert_is_clean(site)


def test_the_keyboard_while_text_is_selected(page: Page, site: Site) -> None:
    """Enter opens a series even if text on the page is selected."""
    publish(site, ("Metric", "a"))
    page.set_screen(*DESK)
    page.open(site, rows=1)
    page.driver.execute_script(
        "document.querySelector('.open').focus(); getSelection().selectAllChildren(document.querySelector('footer'))"
    )
    assert page.run("String(getSelection()).length > 0 && document.activeElement.className") == "open"
    page.press("\ue007")
    page.wait("document.getElementById('detail').open")
    page.assert_is_clean(site)


def test_a_chart_of_one_flush_is_centered(page: Page, site: Site) -> None:
    """The time axis of a single data point spans ten seconds around it."""
    page.set_screen(*DESK)
    page.open(site)
    charts = f"await import('{site.url}/_cloudwatch/charts.js')"
    chart = f"({charts}).chart(document.createElement('div'), [1e9], lines, 180)"
    script = f"const lines = [{{ label: 'value', color: '--accent', values: [1] }}]; return ({chart}).scales.x"
    found = page.driver.execute_script(f"return (async () => {{ {script} }})()")
    assert (found["min"], found["max"]) == (1e9 - 5, 1e9 + 5)
    page.assert_is_clean(site)


def test_statistics_without_meaning_are_grey(page: Page, site: Site) -> None:
    """Percentiles of counters and sums of gauges are gray, with the reason; numbers have no exponent."""
    meter = site.provider.get_meter("shop")
    meter.create_counter("views").add(160.4)
    meter.create_gauge("temperature").set(0.000861)
    assert site.reporter.flush()
    page.set_screen(*DESK)
    page.open(site, rows=2)
    page.wait("document.querySelectorAll('#body .number:not(:empty)').length === 14")
    cells = "[...document.querySelectorAll('#body tr:nth-child({}) .number')].map(e => e.textContent)"
    titles = "[...document.querySelectorAll('#body tr:nth-child({}) .number')].map(e => e.title.split(',')[0])"
    assert page.names() == ["temperature", "views"]
    assert page.run(cells.format(1)) == ["1", *["0.000861"] * 6]
    assert page.run(cells.format(2)) == ["1", *["160.4"] * 6]
    assert page.run(titles.format(1))[1] == "Not meaningful for a gauge"
    assert set(page.run(titles.format(2))[2:]) == {"Not meaningful for a counter"}
    text = f"await import('{site.url}/_cloudwatch/text.js')"
    page.driver.execute_script(
        f"const {{ quantity }} = {text};"
        "window.formats = [0.1604, 0.00086, 2.5, 999.96, null].map((each) => quantity(each, 'Seconds'))"
    )
    page.wait("window.formats !== undefined")
    assert page.run("window.formats") == ["160 ms", "0.86 ms", "2.5 s", "1,000 s", "\N{EN DASH}"]
    page.assert_is_clean(site)


def test_untrusted_names_are_shown_as_text(page: Page, site: Site) -> None:
    """Names are truncated, invisible characters are escaped, and no part of a name is executed."""
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
    """Markup in messages is not interpreted, and bidirectional characters are escaped."""

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
        assert page.text("#sentence").endswith(f"{len(HOSTILE)} data points are buffered and will be retried.")
        assert page.run("window.hacked") is None
        page.assert_is_clean(site)
    finally:
        site.close()


def test_an_app_that_stops_responding(page: Page) -> None:
    """The page reports that the app does not respond, and still shows the last data."""
    site = Site()
    site.request("/hostile")
    assert site.reporter.flush()
    page.set_screen(*DESK)
    page.open(site, rows=len(HOSTILE))
    site.close()
    page.wait("document.getElementById('sentence').textContent.startsWith('This page cannot be updated.')")
    assert len(page.names()) == len(HOSTILE)
    page.driver.get("about:blank")
    page.driver.get_log("browser")


def test_the_detail_view_of_a_process_that_has_ended(page: Page, site: Site) -> None:
    """A series or group stays open after a restart, and never shows data from another metric of the new process."""
    # The page drops a process after several responses of another one. It polls whenever it becomes visible.
    hurry = "setInterval(() => document.dispatchEvent(new Event('visibilitychange')), 50)"
    page.set_screen(*DESK)
    for opened in ("tr.series .open", "tr.group .open"):
        publish(site, ("Before", "a"), ("Before", "b"))
        page.open(site, rows=2)
        page.driver.execute_script(f"document.querySelector('#body {opened}').click()")
        page.wait("document.querySelectorAll('#detail canvas').length === 1")
        assert observation_of(exporter_of(site)).series(1)["metric_name"] == "Before"
        observation_of(exporter_of(site))._begin()
        publish(site, ("After", "a"))
        page.driver.execute_script(hurry)
        page.wait("[...document.querySelectorAll('#body .name')].map(e => e.textContent).join() === 'After'")
        page.wait("document.querySelector('#detail .datums').textContent.startsWith('This metric is no longer')")
        assert page.text("#detail-name") == "Before"
        assert page.run("document.getElementById('state').dataset.state") == "good"
        page.press("\ue00c")
        observation_of(exporter_of(site))._begin()
    page.assert_is_clean(site)


def test_metrics_that_are_disabled_at_a_restart(page: Page, site: Site) -> None:
    """The page says that metrics are disabled, even if a detail view of a series is still open."""
    publish(site, ("Before", "a"))
    page.set_screen(*DESK)
    page.open(site, rows=1)
    page.driver.execute_script("document.querySelector('#body tr.series .open').click()")
    page.wait("document.querySelectorAll('#detail canvas').length === 1")
    sentences = "new MutationObserver(() => (window.sentences ??= []).push(sentence.textContent))"
    page.driver.execute_script(f"{sentences}.observe(sentence, {{ childList: true }})")
    live_page: Any = site.app.view_functions["cloudwatch_live_page.page"]
    served = live_page.__self__
    served._views = LivePage(served._settings, exporter=None)._views
    page.wait("window.sentences")
    polls = "performance.getEntriesByType('resource').filter((each) => each.name.includes('data.json')).length"
    page.wait(f"{polls} > {page.run(polls)}")
    assert {each[:20] for each in page.run("window.sentences")} == {"Metrics are disabled"}
    page.assert_is_clean(site)


def test_responses_to_two_requests_at_once(page: Page, site: Site) -> None:
    """If the page polls twice at once, as when its tab is hidden and shown again, each data point is added once."""
    publish(site, ("Metric", "a"))
    page.open(site, rows=1)
    start = f"const {{ Processes }} = await import('{site.url}/_cloudwatch/model.js'); window.polling = "
    page.driver.execute_script(
        f"return (async () => {{ {start} new Processes('/_cloudwatch'); await polling.poll() }})()"
    )
    publish(site, ("Metric", "a"))
    flushes = "[...polling.model.series.values()].map((each) => each.flushes.length)"
    twice = f"return (async () => {{ await Promise.all([polling.poll(), polling.poll()]); return {flushes} }})()"
    assert page.driver.execute_script(twice) == [2]
    publish(site, ("Metric", "a"))
    assert page.driver.execute_script(f"return polling.poll().then(() => {flushes})") == [3]
    page.assert_is_clean(site)


POLLING = """return (async () => {
  const { Processes } = await import(`${arguments[0]}/_cloudwatch/model.js`);
  const polling = new Processes('/_cloudwatch');
  window.respond = async (instance, times, started = 0) => {
    polling.fetch = async () => ({ enabled: true, instance, sequence: 1, series: [], since: 0, started, now: 100 });
    for (let each = 0; each < times; each++) await polling.poll();
    return [polling.chosen === 'first', await polling.series(1, 'first') === null];
  };
  await respond('first', 1);
})()"""


def test_one_of_many_processes(page: Page, site: Site) -> None:
    """The page keeps showing a process although others respond more often, or the page was hidden for an hour."""
    page.open(site)
    page.driver.execute_script(POLLING, site.url)
    assert page.run("respond('second', 1)") == [True, False]
    page.driver.execute_script("const now = Date.now; Date.now = () => now() + 3600000")
    for other in range(7):
        assert page.run(f"respond('other {other}', 5)") == [True, False]
    assert page.run("respond('second', 15)") == [False, True]
    page.assert_is_clean(site)


def test_a_restart_of_many_processes(page: Page, site: Site) -> None:
    """If all processes are replaced by others, the page soon shows one of those."""
    page.open(site)
    page.driver.execute_script(POLLING, site.url)
    for other in range(8):
        assert page.run(f"respond('other {other}', 1)") == [True, False]
    for new in range(5):
        assert page.run(f"respond('new {new}', 1, 200)") == [True, False]
    assert page.run("respond('new 5', 1, 200)") == [False, True]
    page.assert_is_clean(site)


def test_the_time_of_the_update(page: Page, site: Site) -> None:
    """The page says when the selected process responded last, although others have responded since."""
    page.open(site)
    page.wait("document.getElementById('freshness').textContent.startsWith('Updated')")
    page.driver.execute_script("""
      const original = fetch;
      window.fetch = async (...given) => {
        const data = await (await original(...given)).json();
        return { ok: true, json: () => ({ ...data, instance: "another", since: 0, now: data.now + 3600 }) };
      };
    """)
    page.wait("document.querySelectorAll('#process option').length === 2")
    shown = page.text("#freshness")
    page.driver.execute_script("""
      const select = document.getElementById("process");
      select.value = "another";
      select.dispatchEvent(new Event("change"));
    """)
    assert page.text("#freshness") != shown
    page.assert_is_clean(site)


def test_the_detail_view_of_a_process_that_responds_again(page: Page, site: Site) -> None:
    """A series is shown again if its process responds after the page has removed it."""
    publish(site, ("Metric", "a"))
    page.set_screen(*DESK)
    page.open(site, rows=1)
    page.driver.execute_script("document.querySelector('#body tr.series .open').click()")
    page.wait("document.querySelectorAll('#detail pre').length === 1")
    page.driver.execute_script("setInterval(() => document.dispatchEvent(new Event('visibilitychange')), 50)")
    observation = observation_of(exporter_of(site))
    instance, observation.instance = observation.instance, "another"
    page.wait("document.querySelector('#detail .datums').textContent.startsWith('This metric is no longer')")
    observation.instance = instance
    page.wait("document.querySelectorAll('#detail pre').length === 1")
    page.assert_is_clean(site)


def test_series_that_the_process_has_forgotten(page: Page, site: Site) -> None:
    """A page that stays open shows the same series as a page that is opened later."""
    observation_of(exporter_of(site))._max_series = 3
    publish(site, ("A", "x"), ("B", "x"), ("C", "x"))
    publish(site, ("A", "x"))
    page.set_screen(*DESK)
    page.open(site, rows=3)
    names = "[...document.querySelectorAll('#body .name')].map(e => e.textContent).join()"
    publish(site, ("D", "x"))
    page.wait(f"{names} === 'A,C,D'")
    publish(site, ("C", "x"))
    publish(site, ("A", "x"), ("E", "x"))
    page.wait(f"{names} === 'A,C,E'")
    assert page.text("#evicted") == "2"
    page.assert_is_clean(site)


def publish(site: Site, *metrics: tuple[str, str]) -> None:
    """Publish one sample of each ``(name, Kind)`` pair."""
    for name, kind in metrics:
        site.reporter.add_metric(name, 1, "Count", {"Kind": kind})
    assert site.reporter.flush()


def exporter_of(site: Site) -> CloudWatchMetricExporter:
    """Return the exporter of a site's reporter."""
    (exporter,) = (each for each in live_exporters() if each.client is site.cloudwatch)
    return exporter


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
    """At each size and in both color schemes, text has AA contrast, no content overflows, and controls are labeled."""
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
