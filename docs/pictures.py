"""Take the documentation's pictures in headless Chromium: ``python docs/pictures.py [demo] [tutorials] [card]``.

Requires Chromium, its chromedriver, selenium and Pillow. Without arguments, all pictures are taken.
"""

import contextlib
import io
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image
from selenium import webdriver

DOCS: Final = Path(__file__).parent
IMAGES: Final = DOCS / "images"
CARD: Final = DOCS / "_static" / "social-card.png"
SECONDS: Final = 90
DESK: Final = (1280, 860)
PANEL: Final = (760, 1000)

OPEN: Final = """
const [title, text] = arguments;
const matches = (each) => each.title.includes(title) && each.textContent.includes(text);
[...document.querySelectorAll(".series .open")].find(matches).click();
"""

CARD_PAGE: Final = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; height: 630px; overflow: hidden; background: #2563eb; color: #fff; font-family: sans-serif }
h1 { margin: 52px 64px 0; font-size: 56px } p { margin: 14px 64px 36px; font-size: 30px }
img { margin-left: 64px; width: 1072px; border-radius: 12px 12px 0 0 }
</style><h1>otel_cloudwatch_flask</h1><p>Metrics from your Flask app, straight to Amazon CloudWatch.</p>
<img src="images/live-page-light.png">"""


@dataclass(frozen=True)
class Tutorial:
    """A program on a documentation page, and the picture of its live page."""

    picture: str
    page: str
    program: int
    """The position of the program among the Python programs of the page."""
    views: str
    """Code to append to the program: views that take a while to respond."""
    clients: int
    size: tuple[int, int]
    opened: str = ""
    """The metric whose details are open, if any."""


SLOW_CHECKOUT: Final = """
import random, time
views = app.view_functions
views["checkout"] = metrics.timer("Checkout Time")(lambda: time.sleep(random.lognormvariate(-2, 0.6)) or "Thank you.")
"""
SLOW_VIEW: Final = """
import random, time
app.get("/")(lambda: time.sleep(random.lognormvariate(-1, 0.6)) or "Hello")
"""
TUTORIALS: Final = [
    Tutorial("first-metric.png", "start-add-metric.md", 0, "", 1, (1280, 660)),
    Tutorial("checkout-time.png", "tutorials.md", 0, SLOW_CHECKOUT, 4, (760, 760), "Checkout Time"),
    Tutorial("requests-in-progress.png", "tutorials.md", 1, SLOW_VIEW, 6, (760, 620), "Requests In Progress"),
]


def set_screen(driver: Any, size: tuple[int, int], scheme: str) -> None:
    """Emulate a screen of this size and color scheme."""
    width, height = size
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    time.sleep(3)  # until the page has redrawn its charts


@contextlib.contextmanager
def browser(url: str) -> Iterator[Any]:
    """Start a headless Chromium that shows the page at ``url``."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.get(url)
        yield driver
    finally:
        driver.quit()


def save(driver: Any, path: Path) -> None:
    """Save a screenshot with at most 256 colors, which keeps the file small."""
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


def open_details(driver: Any, metric: str, text: str = "") -> None:
    """Open the details of the first series of a metric whose row contains ``text``."""
    driver.execute_script(OPEN, metric, text)
    time.sleep(3)  # until the page has drawn its charts


def take_demo() -> None:
    """Run the demo shop for 90 seconds, and capture its live page in both color schemes and the details of a series."""
    command = [sys.executable, "-m", "otel_cloudwatch_flask", "demo", "--serve", "--seconds", str(SECONDS + 60)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:  # noqa: S603 - its own demo
        for line in demo.stdout or ():
            if found := re.match(r"Live page\s+(\S+)", line):
                time.sleep(SECONDS)
                with browser(found[1]) as driver:
                    for scheme in ("light", "dark"):
                        set_screen(driver, DESK, scheme)
                        save(driver, IMAGES / f"live-page-{scheme}.png")
                    set_screen(driver, PANEL, "dark")
                    open_details(driver, "duration", "products")
                    save(driver, IMAGES / "live-page-detail.png")
                demo.terminate()


def take_tutorials() -> None:
    """Run the program of each tutorial in dry-run mode, and capture its live page."""
    for tutorial in TUTORIALS:
        with running(tutorial) as url, browser(f"{url}/_cloudwatch") as driver:
            set_screen(driver, tutorial.size, "light")
            if tutorial.opened:
                open_details(driver, tutorial.opened)
            save(driver, IMAGES / tutorial.picture)


@contextlib.contextmanager
def running(tutorial: Tutorial) -> Iterator[str]:
    """Run a tutorial's program, and send it requests for 60 seconds before it is used, and while it is used."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / tutorial.page).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    stopped = threading.Event()
    path = "/checkout" if "/checkout" in blocks[tutorial.program] else "/"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "shop.py").write_text(blocks[tutorial.program] + tutorial.views, "utf-8")
        command = [sys.executable, "-m", "flask", "--app", "shop", "run", "--debug", "--no-reload", "--port", str(port)]
        environment = {**os.environ, "OTEL_EXPORTER_CLOUDWATCH_DRY_RUN": "true"}
        with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL) as server:  # noqa: S603 - the documentation's own
            url = f"http://127.0.0.1:{port}"
            for _ in range(tutorial.clients):
                threading.Thread(target=visit, args=(url + path, stopped), daemon=True).start()
            stopped.wait(60)
            yield url
            stopped.set()
            server.terminate()


def visit(url: str, stopped: threading.Event) -> None:
    """Request ``url`` with pauses, until stopped."""
    while not stopped.wait(random.expovariate(4)):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - loopback
            response.read()


def take_card() -> None:
    """Take the picture that other sites show with a link to the documentation."""
    page = DOCS / "social-card.html"
    page.write_text(CARD_PAGE, "utf-8")
    try:
        with browser(page.as_uri()) as driver:
            set_screen(driver, (1200, 630), "light")
            save(driver, CARD)
    finally:
        page.unlink()


if __name__ == "__main__":
    TAKES: Final = {"demo": take_demo, "tutorials": take_tutorials, "card": take_card}
    for name in sys.argv[1:] or TAKES:
        TAKES[name]()
