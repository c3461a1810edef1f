"""Take the screenshots of the live page: run the demo shop for 90 seconds, and capture its page in a headless Chromium.

Needs Chromium, its chromedriver, selenium and Pillow. Run it as ``python docs/pictures.py``.
"""

import io
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from PIL import Image
from selenium import webdriver

IMAGES: Final = Path(__file__).parent / "images"
SECONDS: Final = 90
DESK: Final = (1280, 860)
PANEL: Final = (760, 1000)


CLICK: Final = """
const isOfProducts = (each) => /duration/.test(each.title) && /products/.test(each.textContent);
[...document.querySelectorAll(".series .open")].find(isOfProducts).click();
"""


def set_screen(driver: Any, size: tuple[int, int], scheme: str) -> None:
    """Emulate a screen of this size and color scheme."""
    width, height = size
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    time.sleep(3)  # the page redraws its charts


def browser() -> Any:
    """Start a headless Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def save(driver: Any, name: str) -> None:
    """Save a screenshot with at most 256 colors, so that the file is small."""
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)


def take(url: str) -> None:
    """Save the screenshots of the page at ``url``."""
    driver = browser()
    driver.get(url)
    for scheme in ("light", "dark"):
        set_screen(driver, DESK, scheme)
        save(driver, f"live-page-{scheme}.png")
    set_screen(driver, PANEL, "dark")
    driver.execute_script(CLICK)
    time.sleep(3)
    save(driver, "live-page-detail.png")
    driver.quit()


def main() -> None:
    """Run the demo shop, and take the screenshots."""
    command = [sys.executable, "-m", "otel_cloudwatch_flask", "demo", "--serve", "--seconds", str(SECONDS + 60)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:  # noqa: S603 - its own demo
        for line in demo.stdout or ():
            if found := re.match(r"Live page\s+(\S+)", line):
                time.sleep(SECONDS)
                take(found[1])
                demo.terminate()


if __name__ == "__main__":
    main()
