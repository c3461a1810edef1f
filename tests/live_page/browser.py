"""An app on a loopback server, and a headless browser that shows its live page."""

import json
import random
import threading
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from werkzeug.serving import make_server

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.live_page.messages import MESSAGES
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.fakes import eventually

SERIES = 1000
PHONE, DESK = (390, 844), (1280, 900)
PATIENCE_SECONDS = 40.0
"""Timeout in seconds for a browser and a loaded server, which are slow on two cores."""

HOSTILE = [
    "<img src=x onerror=window.hacked=1>",
    "<script>window.hacked=1</script>",
    "a&amp;b\"'`><svg onload=window.hacked=1>",
    "x" * 255,
    "javascript:window.hacked=1",
    "{{constructor.constructor('window.hacked=1')()}}",
]


class Site:
    """An app on a loopback server that publishes to a fake CloudWatch."""

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
        """Record a metric under each hostile name, and use the name as a dimension too."""
        for text in HOSTILE:
            self.reporter.add_metric(text, 1, "Count", {"Text": text, "Long": "y" * 1000, "Odd": "\u202e\u0007😀</b>"})
        return "Recorded"

    def request(self, path: str) -> None:
        """Send one request to the app."""
        with urlopen(self.url + path, timeout=30) as response:  # noqa: S310 - loopback
            assert response.status == 200

    def start_load(self) -> None:
        """Start a thread that sends a few requests per second."""

        def send() -> None:
            while not self._ended.wait(0.3):
                self.request("/many")

        self._threads.append(threading.Thread(target=send, daemon=True))
        self._threads[-1].start()

    def stop_load(self) -> None:
        """Stop the thread, and flush."""
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
        """Open a site's page, and wait until it shows data or this number of rows."""
        self.driver.get("about:blank")  # stops the previous page from polling, whose site may be closed
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
        """Assert that the console has no messages and that no other host was contacted."""
        assert self.driver.get_log("browser") == []
        messages = [json.loads(each["message"])["message"] for each in self.driver.get_log("performance")]
        urls = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        assert urls
        assert {urlsplit(url).netloc for url in urls} == {urlsplit(site.url).netloc}
