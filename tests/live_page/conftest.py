"""A headless browser and a site, shared by the tests of the page. Without a browser, these tests are skipped."""

import shutil
from collections.abc import Iterator

import pytest

from otel_cloudwatch_flask import MetricRule
from tests.live_page.browser import PATIENCE_SECONDS, Page, Site


@pytest.fixture(scope="package")
def page() -> Iterator[Page]:
    """A page in a headless browser."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("needs a Chromium and its chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    driver.set_script_timeout(PATIENCE_SECONDS)
    yield Page(driver)
    driver.quit()


@pytest.fixture
def site() -> Iterator[Site]:
    """A site with a metric rule."""
    site = Site(rules=[MetricRule(match="Metric 0*", storage_resolution=1)])
    yield site
    site.close()
