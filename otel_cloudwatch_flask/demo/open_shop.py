"""A demo that goes on: the shop, its visitors and its CloudWatch stay, to look at."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_cloudwatch_flask.config import ENVIRONMENT_PREFIX, KEYS
from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.demo.shop_process import ShopProcess
from otel_cloudwatch_flask.demo.load_generator import Traffic, visits

if TYPE_CHECKING:
    from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch

_SEED: Final = 11
_VISITORS: Final = 4
_LIVE_PAGE: Final = {
    ENVIRONMENT_PREFIX + "LIVE_PAGE": "true",
    # The shop is not in debug mode. It listens on loopback only, and no proxy stands before it.
    ENVIRONMENT_PREFIX + "LIVE_PAGE_CHECK": "otel_cloudwatch_flask.live_page.access:is_local_request",
}
_LIVE_PAGE_PATH: Final = next(str(key.default) for key in KEYS if key.name == "LIVE_PAGE_PATH")


@dataclass(frozen=True, slots=True)
class OpenShop:
    """Where everything is, and the visitors."""

    shop_url: str
    cloudwatch: "LocalCloudWatch"
    traffic: Traffic

    @property
    def live_page_url(self) -> str:
        """The page that shows what the shop publishes."""
        return self.shop_url + _LIVE_PAGE_PATH


@contextmanager
def open_shop(*, seconds: float, rate: float) -> Iterator[OpenShop]:
    """A shop with its live page and a CloudWatch; visitors come for some seconds, the shop stays open for the block.

    Raises :class:`ShopError` if the shop does not open. Everything that was started is gone afterwards.
    """
    from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch  # noqa: PLC0415 - an optional extra

    with isolated_environment(), LocalCloudWatch() as cloudwatch:
        environment = {**cloudwatch.environment(), **_LIVE_PAGE}
        with ShopProcess(environment) as shop:
            traffic = Traffic(shop.url, visits(_SEED), seconds=seconds, rate=rate, visitors=_VISITORS)
            traffic.start()
            try:
                yield OpenShop(shop.url, cloudwatch, traffic)
            finally:
                traffic.stop()
