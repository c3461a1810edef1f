"""Growth of memory over many requests and per recorded series, and the cost of idle series.

The SDK keeps every series for the life of the process, and visits all of them in each collection. The SDK alone is also
measured.
"""

import gc
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, TypeVar

from opentelemetry.sdk.metrics import MeterProvider
from rich.table import Table
from werkzeug.test import EnvironBuilder

from benchmarks.harness import Remote, cpu_ms, rss_bytes
from benchmarks.measured_apps import answer, extension_app
from benchmarks.measurements import attributes_of, sdk_reader
from benchmarks.report import Claim, Report, table
from benchmarks.ways import our_exporter
from otel_cloudwatch_flask import CloudWatchMetricReader

REQUESTS: Final = 200_000
PARTS: Final = 10
IDLE_SERIES: Final = 10_000
SERIES_EVER_SEEN: Final = 100_000
_COLLECTIONS: Final = 5

USUAL_LIMIT: Final = 1000
LIMITS: Final = {"this package": USUAL_LIMIT, "this package, max_metrics=200000": 200_000, "the SDK alone": 0}
"""The ways to measure, each with its ``max_metrics``; the SDK alone has no limit."""

_MEGABYTE: Final = 1e6


class Idle(NamedTuple):
    """CPU time of a flush in milliseconds, when every series has new values and when none has."""

    busy_ms: float
    idle_ms: float


class Seen(NamedTuple):
    """Memory per series in bytes, and CPU time of a flush in milliseconds when all series are idle."""

    bytes_a_series: float
    idle_ms: float


_Figures = TypeVar("_Figures")


def growth_mb(requests: int) -> list[float]:
    """Serve requests with three metrics each, and return the memory growth after each tenth of them, in megabytes.

    Each tenth ends with a flush. A warm-up with the size of a tenth comes first.
    """
    app = extension_app(3)
    environ = EnvironBuilder(path="/", base_url="http://shop.example").get_environ()

    def serve(number: int) -> float:
        for _ in range(number):
            answer(app, dict(environ))
        app.extensions["cloudwatch_metrics"].reporter.flush()
        gc.collect()
        return rss_bytes() / _MEGABYTE

    at_first = serve(requests // PARTS)
    return [serve(requests // PARTS) - at_first for _ in range(PARTS)]


def idle(max_metrics: int, series: int) -> Idle:
    """Measure a flush of ``series`` counters and as many histograms, when all have new values and when none has."""
    measure, flush = _flushed(max_metrics)
    measure(series)
    flush()
    measure(series)
    busy = cpu_ms(flush)
    return Idle(busy, statistics.median(cpu_ms(flush) for _ in range(_COLLECTIONS)))


def seen(max_metrics: int, series: int) -> Seen:
    """Measure ``series`` counters and as many histograms that were recorded only once."""
    measure, flush = _flushed(max_metrics)
    measure(1)
    flush()
    gc.collect()
    before = rss_bytes()
    measure(series)
    flush()
    gc.collect()
    grown = rss_bytes() - before
    return Seen(grown / (2 * series), statistics.median(cpu_ms(flush) for _ in range(_COLLECTIONS)))


def run(*, short: bool) -> Report:
    """Measure the memory growth over requests, the memory per series, and idle series. Return the report."""
    part = 20 if short else 1
    with Remote(partial, growth_mb) as process:
        growth = process(REQUESTS // part)
    idles = {title: _measured(idle, limit, IDLE_SERIES // 2) for title, limit in LIMITS.items() if limit != USUAL_LIMIT}
    seens = {title: _measured(seen, limit, SERIES_EVER_SEEN // 2 // part) for title, limit in LIMITS.items()}
    claim = Claim(f"RSS over {REQUESTS // part:,} requests, widest", max(map(abs, growth)), at_most=2, unit=" MB")
    tables = [_growth_table(growth, REQUESTS // part), _idle_table(idles), _seen_table(seens, SERIES_EVER_SEEN // part)]
    return Report(tables, [claim])


def _measured(measure: Callable[[int, int], _Figures], max_metrics: int, series: int) -> _Figures:
    with Remote(partial, measure) as process:
        figures: _Figures = process(max_metrics, series)
        return figures


def _flushed(max_metrics: int) -> tuple[Callable[[int], None], Callable[[], object]]:
    """Return a function that records, and one that collects and (except for the SDK alone) exports."""
    ours = CloudWatchMetricReader(our_exporter(max_metrics=max_metrics)) if max_metrics else None
    sdk = sdk_reader()
    meter = MeterProvider([ours or sdk], shutdown_on_exit=False).get_meter("benchmark")
    counter, histogram = meter.create_counter("requests"), meter.create_histogram("duration", unit="ms")

    def measure(series: int) -> None:
        for number in range(series):
            counter.add(1, attributes_of(number))
            histogram.record(12.5, attributes_of(number))

    return measure, ours.flush if ours else sdk.get_metrics_data


def _growth_table(growth: list[float], requests: int) -> Table:
    headings = (f"{requests * number // PARTS:,}" for number in range(1, PARTS + 1))
    title = f"Growth of RSS over {requests:,} requests with three add_metric: MB"
    return table(title, headings, [(f"{each:+.2f}" for each in growth)])


def _idle_table(idles: Mapping[str, Idle]) -> Table:
    title = f"CPU of a flush of {IDLE_SERIES:,} series, half of them histograms: ms"
    rows = ((name, f"{each.busy_ms:.0f}", f"{each.idle_ms:.1f}") for name, each in idles.items())
    return table(title, ("", "all have something new", "all are idle"), rows)


def _seen_table(seens: Mapping[str, Seen], series: int) -> Table:
    title = f"{series:,} series ever seen, half of them histograms"
    rows = ((name, f"{each.bytes_a_series:,.0f}", f"{each.idle_ms:.1f}") for name, each in seens.items())
    return table(title, ("", "bytes a series", "CPU of a flush when all are idle, ms"), rows)
