"""The benchmarks compare equal work and report bounds correctly. CI runs all of them with fewer rounds."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any

import pytest

pytest.importorskip("rich", reason='pip install "otel-cloudwatch-flask[demo]"')

from benchmarks.__main__ import BENCHMARKS
from benchmarks.export_cpu import Exports
from benchmarks.fidelity import otlp_percentiles, published_percentiles
from benchmarks.harness import Remote, interleaved, median_ratio, nearest_rank
from benchmarks.lock_held import Stretches
from benchmarks.measured_apps import NONE, THREE
from benchmarks.measurements import COUNTERS, KINDS, Kind
from benchmarks.open_loop import Answer, drive
from benchmarks.report import Claim, with_figures
from benchmarks.request_cpu import Turns
from benchmarks.request_latency import NEAR, OTHERS, Turn
from benchmarks.stubs import Traffic
from benchmarks.ways import BOTO3, OURS, WAYS, installed_ways

SERIES = 4


def sent(way: str, kind: Kind) -> list[Any]:
    """Return the requests that a way of exporting makes in one export."""
    traffic = Traffic()
    export = WAYS[way].make(kind, SERIES, traffic)
    export.prepare()
    traffic.clear()
    export.run()
    return [json.loads(gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body) for body in traffic.bodies]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_can_be_named(name: str) -> None:
    """Every name that the command line accepts is that of a benchmark."""
    assert callable(import_module(f"benchmarks.{name}").run)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)
def test_boto3_sends_the_same_datums(kind: Kind) -> None:
    """boto3's default client gets exactly the datums that this exporter sends."""
    ours, theirs = sent(OURS, kind), sent(BOTO3, kind)
    for request in (*ours, *theirs):
        for datum in request["MetricData"]:
            datum.pop("Timestamp")
    assert ours == theirs
    assert sum(len(request["MetricData"]) for request in ours) == SERIES


@pytest.mark.parametrize("way", installed_ways(WAYS)[0])
def test_every_way_is_measured(way: str) -> None:
    """An export takes CPU time, and so does the next one in the same process."""
    exports = Exports(way)
    assert all(exports(COUNTERS, SERIES) > 0 for _ in range(2))


def test_a_stretch_is_measured() -> None:
    """The measured delay of other threads during an export is less than a second."""
    assert 0 <= Stretches(OURS)(COUNTERS, SERIES) < 1000


def test_requests_are_measured_in_a_process_of_their_own() -> None:
    """The measured cost of a request with three metrics is higher than that of one with none."""
    with Remote(Turns, THREE) as three, Remote(Turns, NONE) as none:
        assert three(5).added > max(none(5).added, 0)


def test_an_open_loop_does_not_wait_for_answers() -> None:
    """Requests are sent even if an earlier one is unanswered, and latency counts from the time a request was due."""
    others, requests, rate = threading.Semaphore(0), 20, 200
    is_first = threading.Lock()

    class Server(ThreadingHTTPServer):
        request_queue_size = 64

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if is_first.acquire(blocking=False):
                for _ in range(requests - 1):
                    others.acquire()
            else:
                others.release()
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        answers = drive(f"http://127.0.0.1:{server.server_port}", "hello", rate, requests / rate)
        server.shutdown()
    *earlier, last = sorted(answers)
    assert len(earlier) == requests - 1
    # On a busy machine, the request that waits for the others is not always the first that was due.
    assert any(answer.due + answer.latency >= last.due for answer in earlier)


def test_requests_near_a_flush_are_compared_with_the_others() -> None:
    """Requests due within 50 ms of a call are near a flush; each 100 ms are represented by their slowest request."""
    answers = [Answer(9.81, 0.003), Answer(9.96, 0.004), Answer(10.04, 0.002), Answer(10.06, 0.001)]
    turn = Turn(answers, cpu_seconds=0.002, calls=[10.0])
    assert turn.answers_by_flush() == {NEAR: answers[1:3], OTHERS: [answers[0], answers[3]]}
    assert [answer.latency for answer in turn.slowest_windows()] == [0.003, 0.004, 0.002]
    assert turn.from_call(answers[1]) == pytest.approx(-0.04)
    assert turn.cpu_us == 500


def test_nearest_rank() -> None:
    """The nearest rank is the smallest sample that is at least as large as the given share of all samples."""
    thousand = list(range(1, 1001))
    assert [nearest_rank(thousand, percent) for percent in (0, 50, 99, 99.9, 100)] == [1, 500, 990, 999, 1000]


def test_percentiles_of_both_ways_are_close() -> None:
    """Both sides of the checkout comparison give percentiles close to those of the samples."""
    samples = [float(number) for number in range(1, 1001)]
    for percentiles in (published_percentiles(samples), otlp_percentiles(samples)):
        assert percentiles == pytest.approx([500, 900, 990, 999], rel=0.03)


@pytest.mark.parametrize(
    ("claim", "outcome"),
    [
        (Claim("", 15.0, at_least=15), "held"),
        (Claim("", 14.9, at_least=15), "missed"),
        (Claim("", 0.8, at_most=0.8), "held"),
        (Claim("", 0.81, at_most=0.8), "missed"),
        (Claim("", 0.81), ""),
    ],
)
def test_a_bound_is_held_or_missed(claim: Claim, outcome: str) -> None:
    """A figure equal to its bound passes; a figure without a bound is only reported."""
    assert claim.cells()[-1] == outcome


def test_rounds_alternate() -> None:
    """Each round measures every way once, each time starting with another; warm-up rounds do not count."""
    asked: list[str] = []

    def measure(name: str) -> float:
        asked.append(name)
        return float(len(asked))

    figures = interleaved({"a": lambda: measure("a"), "b": lambda: measure("b")}, 2, warm_up_rounds=1)
    assert asked == ["a", "b", "b", "a", "a", "b"]
    assert figures == {"a": [4.0, 5.0], "b": [3.0, 6.0]}


def test_ratios_are_those_of_rounds() -> None:
    """Ratios are computed per round, so a machine that becomes slower affects both sides."""
    assert median_ratio([2, 20, 200], [1, 10, 100]) == 2


def test_figures_replace_those_of_before() -> None:
    """Only the text between the two comments is replaced."""
    document = "a\n<!-- figures -->\nold\n<!-- end of figures -->\nb\n"
    assert with_figures(document, [Claim("x", 2, at_least=1)], made_by="Us.") == (
        "a\n<!-- figures -->\nUs.\n\n|  | bound | measured |  |\n| --- | ---: | ---: | --- |\n"
        "| x | ≥ 1x | 2.00x | held |\n<!-- end of figures -->\nb\n"
    )
    with pytest.raises(ValueError, match="end of figures"):
        with_figures("no comments", [], made_by="Us.")
