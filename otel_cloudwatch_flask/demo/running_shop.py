"""Run the shop, traffic for a given time, and the CloudWatch emulator, for ``demo --serve``."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_cloudwatch_flask.config import ENVIRONMENT_PREFIX, KEYS, Output
from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.demo.load_generator import LoadGenerator, shop_requests
from otel_cloudwatch_flask.demo.shop_process import ShopProcess

if TYPE_CHECKING:
    from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch

_SEED: Final = 11
_VISITORS: Final = 4
_LIVE_PAGE: Final = {
    ENVIRONMENT_PREFIX + "LIVE_PAGE": "true",
    # As in debug mode, so that the page keeps up with the traffic.
    ENVIRONMENT_PREFIX + "FLUSH_MIN_INTERVAL_SECONDS": "1",
    # Outside debug mode, the page needs an access check. This one is safe, because the shop listens on loopback,
    # without a proxy.
    ENVIRONMENT_PREFIX + "LIVE_PAGE_CHECK": "otel_cloudwatch_flask.live_page.access:is_local_request",
}
_LIVE_PAGE_PATH: Final = next(str(key.default) for key in KEYS if key.name == "LIVE_PAGE_PATH")


@dataclass(frozen=True, slots=True)
class RunningShop:
    """The shop's URL, the CloudWatch emulator, and the traffic."""

    shop_url: str
    cloudwatch: "LocalCloudWatch"
    traffic: LoadGenerator

    @property
    def live_page_url(self) -> str:
        """The URL of the shop's live page."""
        return self.shop_url + _LIVE_PAGE_PATH


@contextmanager
def running_shop(*, seconds: float, rate: float, output: Output) -> Iterator[RunningShop]:
    """Run a shop with its live page and an emulator inside the ``with`` block, and send traffic for ``seconds``.

    Everything is stopped at the end of the block. Raises :class:`ShopProcessError` if the shop does not start.
    """
    from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch  # noqa: PLC0415 - an optional extra

    with isolated_environment(), LocalCloudWatch() as cloudwatch:
        environment = {**cloudwatch.environment(), **_LIVE_PAGE, f"{ENVIRONMENT_PREFIX}OUTPUT": output}
        with ShopProcess(environment, cloudwatch.stream) as shop:
            traffic = LoadGenerator(shop.url, shop_requests(_SEED), seconds=seconds, rate=rate, visitors=_VISITORS)
            traffic.start()
            try:
                yield RunningShop(shop.url, cloudwatch, traffic)
            finally:
                traffic.stop()
