"""Programs that run in their own processes: ``python -m tests.reliability.programs <name>``.

Each line of standard input is a command with arguments, as a JSON array, and each response is a line of JSON.
"""

import contextlib
import dataclasses
import errno
import faulthandler
import importlib
import itertools
import json
import logging
import multiprocessing
import os
import random
import resource
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

from flask import Flask
from opentelemetry import metrics
from opentelemetry.metrics import Counter as CounterInstrument
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from otel_cloudwatch_flask import (
    CloudWatchMetricExporter,
    CloudWatchMetricReader,
    CloudWatchMetricsReporter,
    DeliveryStats,
)
from otel_cloudwatch_flask.delivery import boto_client, sender
from tests.reliability.cutting_proxy import HOST


def say(answer: object) -> None:
    """Write a response."""
    print(json.dumps(answer), flush=True)  # noqa: T201 - the pipe to the test


class Measuring:
    """A Flask app whose reporter executes commands; its settings come from the environment."""

    def __init__(self) -> None:
        self.app = Flask("measuring")
        self.reporter = CloudWatchMetricsReporter(self.app)
        self.app.add_url_rule("/", view_func=self.view)
        self.orders = 0

    def view(self) -> str:
        """Record the metrics of a request."""
        self.orders += 1
        self.reporter.add_metric("Orders", 1, "Count")
        self.reporter.add_metric("Size", self.orders % 7)
        return ""

    def add(self, orders: int) -> int:
        """Count orders without flushing, and return the total."""
        for _ in range(orders):
            self.orders += 1
            self.reporter.add_metric("Orders", 1, "Count")
        return self.orders

    def add_names(self, names: list[str]) -> int:
        """Add 1 to each of these metrics, and return their number."""
        for name in names:
            self.reporter.add_metric(name, 1, "Count")
        return len(names)

    def serve(self, seed: int, rate: float) -> int:
        """Serve about ``rate`` requests per second, each of which requests a flush, until the next command."""
        source, client = random.Random(seed), self.app.test_client()
        is_over = threading.Event()

        def listen() -> None:
            sys.stdin.readline()
            is_over.set()

        threading.Thread(target=listen, daemon=True).start()
        while not is_over.wait(source.expovariate(rate)):
            client.get("/").close()
        return self.orders

    def count_and_say(self, name: str) -> None:
        """Count forever without flushing; after each count, report the sum and the time."""
        for counted in itertools.count(1):
            self.reporter.add_metric(name, 1, "Count")
            say([counted, time.monotonic()])
            time.sleep(0.01)

    def flush_often(self) -> None:
        """Count and flush forever; after each successful flush, report the number of orders it confirms."""
        while True:
            self.add(10)
            counted = self.orders
            if self.reporter.flush(timeout_seconds=30):
                say(counted)

    def flush(self, timeout_seconds: float) -> bool:
        """Flush, and return whether the flush succeeded."""
        return self.reporter.flush(timeout_seconds=timeout_seconds)

    def timed_flush(self, timeout_seconds: float) -> list[Any]:
        """Flush, and return the result and the duration in seconds."""
        begun = time.monotonic()
        return [self.flush(timeout_seconds), time.monotonic() - begun]

    def stats(self) -> dict[str, Any]:
        """Return the reporter's statistics."""
        return dataclasses.asdict(self.reporter.stats())

    def shutdown(self, timeout_seconds: float) -> float:
        """Shut down, and return the duration in seconds."""
        begun = time.monotonic()
        self.reporter.shutdown(timeout_seconds=timeout_seconds)
        return time.monotonic() - begun

    def set_clock(self, seconds_ahead: float) -> float:
        """Set the error of this process's wall clock, and return the resulting time."""
        Clock.seconds_ahead = seconds_ahead
        return time.time()


class Clock:
    """A wall clock with an adjustable error."""

    seconds_ahead = 0.0

    @classmethod
    def install(cls) -> None:
        """Replace all wall clocks: Python's, in every module that imported them, and the clock used for signatures."""
        auth: Any = importlib.import_module("botocore.auth")
        real_time, real_time_ns = time.time, time.time_ns
        wrong: dict[str, Callable[[], float]] = {
            "time": lambda: real_time() + cls.seconds_ahead,
            "time_ns": lambda: real_time_ns() + round(cls.seconds_ahead * 1e9),
        }
        for module in tuple(sys.modules.values()):
            for name, real in (("time", real_time), ("time_ns", real_time_ns)):
                if getattr(module, name, None) is real:
                    setattr(module, name, wrong[name])
        auth.get_current_datetime = cls.now

    @classmethod
    def now(cls, *, remove_tzinfo: bool = True) -> datetime:
        """Return botocore's current time."""
        moment = datetime.now(timezone.utc) + timedelta(seconds=cls.seconds_ahead)
        return moment.replace(tzinfo=None) if remove_tzinfo else moment


class Periodic:
    """An exporter under the SDK's periodic reader, with many series that are exported several times per second."""

    def __init__(self) -> None:
        self.exporter = CloudWatchMetricExporter("Shop", max_metrics=10_000)
        self.reader = PeriodicExportingMetricReader(self.exporter, export_interval_millis=50, export_timeout_millis=50)
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        meter = self.provider.get_meter("tests")
        self.counter = meter.create_counter("orders")
        self.histogram = meter.create_histogram("sizes")
        self.series = 200
        self.rounds = 0

    def add(self, rounds: int) -> int:
        """Record a count and a measurement in every series."""
        for _ in range(rounds):
            self.rounds += 1
            for series in range(self.series):
                attributes = {"customer": f"customer number {series}", "description": "x" * 800}
                self.counter.add(1, attributes)
                self.histogram.record(self.rounds % 10, attributes)
        return self.rounds * self.series

    def accepted_bytes(self) -> list[int]:
        """Return the number of bytes that all exported data would need unmerged, and the number of pending datums."""
        return [self.rounds * self.series * 2 * 1000, self.exporter.stats().datums_pending]

    def stats(self) -> dict[str, Any]:
        """Return the exporter's statistics."""
        return dataclasses.asdict(self.exporter.stats())

    def collect(self) -> bool:
        """Collect and export the SDK's current metrics."""
        self.reader.collect(timeout_millis=50)
        return True

    def flush(self, timeout_seconds: float) -> bool:
        """Collect, export and deliver all metrics."""
        self.reader.collect(timeout_millis=50)
        return self.exporter.force_flush(timeout_seconds * 1000)


def begin_lack(resource_name: str) -> Callable[[], object]:
    """Make this process lack a resource, and return a function that ends this. Forked children inherit the lack."""
    if resource_name == "threads":
        # The address space is too small for a thread stack of this size.
        before = threading.stack_size(2**46)
        return lambda: threading.stack_size(before)
    if resource_name == "descriptors":
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # room for the standard streams only
        return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    no_space = mock.Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    patch = mock.patch.multiple(os, mkdir=no_space, open=no_space)
    patch.start()
    return patch.stop


class Forking:
    """A parent that forks many processes while its threads record and flush continuously."""

    def __init__(self) -> None:
        self.reporter = CloudWatchMetricsReporter(Flask("forking"))
        self.counter: CounterInstrument = metrics.get_meter("tests").create_counter("instrument")
        self.is_over = threading.Event()
        self.recorded = 0
        self.threads = [threading.Thread(target=self._record), threading.Thread(target=self._flush)]
        self.reporter.add_metric("Parent", 0)
        for thread in self.threads:
            thread.start()

    def fork(self, times: int) -> list[int]:
        """Fork repeatedly, first while boto3 is being imported. Each child counts itself. Return the exit statuses."""
        statuses = []
        while "boto3" not in sys.modules:
            time.sleep(0.0001)
        for _ in range(times):
            pid = os.fork()
            if pid == 0:
                os._exit(self._be_a_child())
            statuses.append(_status_of(pid))
        return statuses

    def fork_lacking(self, resource_name: str, times: int) -> list[int]:
        """Fork while a resource is lacking, and return the exit statuses. Each child counts itself twice."""
        assert self.reporter.flush(timeout_seconds=30)  # so that all modules are imported
        statuses = []
        for _ in range(times):
            end_lack = begin_lack(resource_name)
            pid = os.fork()
            if pid == 0:
                self.reporter.add_metric("Child", 1, "Count")
                self.reporter.flush(timeout_seconds=0.2)
                end_lack()
                os._exit(self._be_a_child())
            time.sleep(0.05)
            end_lack()
            statuses.append(_status_of(pid))
        return statuses

    def start(self, method: str, times: int) -> list[int | None]:
        """Start multiprocessing children that do not flush explicitly, and return their exit statuses."""
        context = multiprocessing.get_context(method)
        statuses = []
        for _ in range(times):
            # mypy does not know that every context has ``Process``.
            process = context.Process(target=count_in_child, args=(method,))  # type: ignore[attr-defined]
            process.start()
            process.join(60)
            statuses.append(process.exitcode)
        return statuses

    def stop(self) -> list[Any]:
        """Stop the threads, and return the number of records and whether they were delivered."""
        self.is_over.set()
        for thread in self.threads:
            thread.join()
        return [self.recorded, self.reporter.flush(timeout_seconds=30)]

    def _record(self) -> None:
        while not self.is_over.wait(0.0005):
            self.recorded += 1
            self.reporter.add_metric("Parent", 1, "Count")
            self.counter.add(1)

    def _flush(self) -> None:
        while not self.is_over.wait(0.001):
            self.reporter.flush(timeout_seconds=30)

    def _be_a_child(self) -> int:
        faulthandler.dump_traceback_later(15)  # logs where a child hangs
        try:
            self.reporter.add_metric("Child", 1, "Count")
            return 0 if self.reporter.flush(timeout_seconds=30) else 1
        except BaseException:
            logging.getLogger(__name__).exception("The child failed.")
            return 2


class Shop:
    """A source of metrics with its own reader, which records and flushes at random, and restarts if it has a spool.

    The first metric of each collection, ``collection``, is its number, which identifies collections that arrive twice.
    """

    def __init__(self, name: str, seed: int, spool_directory: str | None) -> None:
        self.name = name
        self.operations: Counter[str] = Counter()
        self.orders = self.sizes = 0
        self.seconds_late = 0.0
        self.exporters: list[CloudWatchMetricExporter] = []
        self.ended: list[DeliveryStats] = []
        self._weights = {
            "add": 60,
            "record": 30,
            "request_flush": 10,
            "flush": 5,
            "restart": 2 if spool_directory else 0,
        }
        self._random = random.Random(f"{seed} {name}")
        self._spool_directory = spool_directory
        self._collections = itertools.count()
        self._start()

    def _start(self) -> None:
        exporter = CloudWatchMetricExporter(self.name, spool_directory=self._spool_directory)
        self.exporters.append(exporter)
        if len(self.exporters) > 20:  # shut down long ago, so that its statistics are final
            self.ended.append(self.exporters.pop(0).stats())
        self.reader = CloudWatchMetricReader(exporter, export_interval_seconds=0.5, flush_min_interval_seconds=0.1)
        meter = MeterProvider([self.reader], shutdown_on_exit=False).get_meter("tests")
        meter.create_observable_gauge("collection", [lambda _: [Observation(next(self._collections))]])
        self.reader.collect()  # so that "collection" is the first metric of each collection
        self._counter = meter.create_counter("orders")
        self._histogram = meter.create_histogram("sizes")

    def run(self, seconds: float) -> None:
        """Perform random operations for this time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(self._random.expovariate(20))
            (operation,) = self._random.choices([*self._weights], [*self._weights.values()])
            self.operations[operation] += 1
            getattr(self, operation)()

    def add(self) -> None:
        """Count orders."""
        amount = self._random.randrange(1, 10)
        self.orders += amount
        self._counter.add(amount)

    def record(self) -> None:
        """Record a sample of a size."""
        self.sizes += 1
        self._histogram.record(self._random.lognormvariate(3, 2))

    def request_flush(self) -> None:
        """Request a flush, as at the end of a request."""
        self.reader.request_flush()

    def flush(self) -> None:
        """Flush, and wait for the result."""
        with self._timed(self._random.uniform(0.0, 0.5)) as seconds:
            self.reader.flush(seconds)

    def restart(self) -> None:
        """Shut down and start again, like two successive processes that share a spool."""
        with self._timed(self._random.uniform(0.1, 0.5)) as seconds:
            self.reader.shutdown(timeout_millis=1000 * seconds)
        self._start()

    @contextlib.contextmanager
    def _timed(self, timeout_seconds: float) -> Iterator[float]:
        begun = time.monotonic()
        yield timeout_seconds
        self.seconds_late = max(self.seconds_late, time.monotonic() - begun - timeout_seconds)

    def settle(self) -> bool:
        """Send all recorded metrics, and return whether that succeeded."""
        is_delivered = self.reader.flush(60)
        deadline = time.monotonic() + 60
        # Calls that outlast their restart may still leave datums in the spool.
        while any(each.sender.is_calling for each in self.exporters) and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._spool_directory:
            self.restart()
        is_delivered = self.reader.flush(60) and is_delivered
        self.reader.shutdown(timeout_millis=60_000)  # no collection is running afterwards
        return is_delivered

    def totals(self) -> dict[str, Any]:
        """Return what was recorded, and the statistics of all exporters."""
        stats = dataclasses.asdict(DeliveryStats.total([*self.ended, *(each.stats() for each in self.exporters)]))
        recorded = {"orders": self.orders, "sizes": self.sizes, "collections": next(self._collections)}
        return {**stats, **recorded, "seconds_late": self.seconds_late, "operations": self.operations}


class Chaos:
    """Several shops with short timeouts, whose CloudWatch has a host name that cannot always be resolved."""

    def __init__(self) -> None:
        self.seed = int(os.environ["CHAOS_SEED"])
        self.random = random.Random(self.seed)
        self.unresolved = 0
        self.resolution_fails_until = self.resolution_works_until = 0.0
        self.is_over = False
        resolve = socket.getaddrinfo
        socket.getaddrinfo = lambda host, *arguments, **options: resolve(self._address(host), *arguments, **options)
        # The timeouts are shorter than in production, so that an hour contains more faults.
        boto_client.CONNECT_TIMEOUT_SECONDS = boto_client.READ_TIMEOUT_SECONDS = 0.7  # type: ignore[misc]
        sender._LONGEST_BACKOFF_SECONDS = 0.5  # type: ignore[misc]
        spool = os.environ["CHAOS_SPOOL"]
        self.shops = [Shop(f"Shop {number}", self.seed, spool if number % 2 else None) for number in range(4)]

    def run(self, seconds: float) -> dict[str, int]:
        """Run all shops for this time, and return how often each operation was performed."""
        with ThreadPoolExecutor(len(self.shops)) as pool:
            list(pool.map(lambda shop: shop.run(seconds), self.shops))
        self.is_over = True
        operations = sum((shop.operations for shop in self.shops), Counter[str]())
        return {**operations, "names that were not resolved": self.unresolved}

    def settle(self) -> list[bool]:
        """Send all recorded metrics of every shop, and return whether each succeeded."""
        with ThreadPoolExecutor(len(self.shops)) as pool:
            return list(pool.map(Shop.settle, self.shops))

    def totals(self) -> dict[str, Any]:
        """Return the totals of each shop."""
        return {shop.name: shop.totals() for shop in self.shops}

    def _address(self, host: str) -> str:
        if host != HOST:
            return host
        now = time.monotonic()
        if now >= self.resolution_works_until:
            self.resolution_fails_until = now + self.random.uniform(0.1, 1.0)
            self.resolution_works_until = self.resolution_fails_until + self.random.expovariate(1 / 10)
        if now < self.resolution_fails_until and not self.is_over:
            self.unresolved += 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return "127.0.0.1"


def count_in_child(method: str) -> None:
    """Count in a multiprocessing child without flushing."""
    if method == "spawn":
        globals()["kept"] = CloudWatchMetricsReporter(Flask("forking"))
    CloudWatchMetricsReporter.add_metric(f"Child by {method}", 1, "Count")


def _status_of(pid: int) -> int:
    """Return a child's exit status, which is -9 if it had to be killed."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


PROGRAMS: dict[str, Callable[[], object]] = {
    "measure": Measuring,
    "periodic": Periodic,
    "fork": Forking,
    "chaos": Chaos,
}


def main(name: str) -> None:
    """Run a program until its standard input is closed."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if os.environ.get("WRONG_CLOCK"):
        Clock.seconds_ahead = float(os.environ.get("CLOCK_AHEAD", "0"))
        Clock.install()
    program = PROGRAMS[name]()
    for line in iter(sys.stdin.readline, ""):
        command, *arguments = json.loads(line)
        say(getattr(program, command)(*arguments))


if __name__ == "__main__":
    main(sys.argv[1])
