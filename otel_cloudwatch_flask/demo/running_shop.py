"""Run the shop, its visitors and the CloudWatch emulator together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from otel_cloudwatch_flask.config import ENVIRONMENT_PREFIX, Output
from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.demo.load_generator import LoadGenerator, shop_requests
from otel_cloudwatch_flask.demo.shop_process import ShopProcess
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch

VISITORS: Final = 8

_SEED: Final = 7
_LIVE_PAGE_PATH: Final = "/_cloudwatch"
_LIVE_PAGE: Final = {
    "LIVE_PAGE": "true",
    "LIVE_PAGE_PATH": _LIVE_PAGE_PATH,
    # As in debug mode, so that the page keeps up with the traffic.
    "FLUSH_MIN_INTERVAL_SECONDS": "1",
    # Outside debug mode, the page needs an access check. This one is safe, because the shop listens on loopback,
    # without a proxy.
    "LIVE_PAGE_CHECK": "otel_cloudwatch_flask.live_page.access:is_local_request",
}


@dataclass(frozen=True, slots=True)
class RunningShop:
    """The shop's process, the CloudWatch emulator, and the traffic."""

    process: ShopProcess
    cloudwatch: LocalCloudWatch
    traffic: LoadGenerator

    @property
    def live_page_url(self) -> str:
        """The URL of the shop's live page, if there is one."""
        return self.process.url + _LIVE_PAGE_PATH


@contextmanager
def running_shop(*, seconds: float, rate: float, output: Output, live_page: bool = False) -> Iterator[RunningShop]:
    """Run a shop and an emulator inside the ``with`` block, and send traffic for ``seconds``.

    Everything is stopped at the end of the block. Raises :class:`ShopProcessError` if the shop does not start.
    """
    settings = {"OUTPUT": output, **(_LIVE_PAGE if live_page else {})}
    with isolated_environment(), LocalCloudWatch() as cloudwatch:
        variables = {f"{ENVIRONMENT_PREFIX}{name}": value for name, value in settings.items()}
        with ShopProcess({**cloudwatch.environment(), **variables}, cloudwatch.stream) as process:
            traffic = LoadGenerator(process.url, shop_requests(_SEED), seconds=seconds, rate=rate, visitors=VISITORS)
            traffic.start()
            try:
                yield RunningShop(process, cloudwatch, traffic)
            finally:
                traffic.stop()
