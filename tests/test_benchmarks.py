"""What the benchmarks compare is alike, and they say truly whether a bound is kept. CI runs them all in short."""

import gzip
import json
from importlib import import_module
from typing import Any

import pytest

pytest.importorskip("rich", reason='pip install "otel-cloudwatch-flask[demo]"')

from benchmarks.__main__ import BENCHMARKS
from benchmarks.export_cpu import Exports
from benchmarks.harness import Remote, interleaved, median_ratio
from benchmarks.lock_held import Stretches
from benchmarks.measured_apps import NONE, THREE
from benchmarks.measurements import COUNTERS, KINDS, Kind
from benchmarks.report import Claim, with_figures
from benchmarks.request_cpu import Turns
from benchmarks.stubs import Traffic
from benchmarks.ways import BOTO3, OURS, WAYS, installed

SERIES = 4


def sent(way: str, kind: Kind) -> list[Any]:
    """The requests that a way makes of one export."""
    traffic = Traffic()
    export = WAYS[way].make(kind, SERIES, traffic)
    export.prepare()
    traffic.clear()
    export.run()
    return [json.loads(gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body) for body in traffic.bodies]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_can_be_named(name: str) -> None:
    """What can be asked for on the command line is there."""
    assert callable(import_module(f"benchmarks.{name}").run)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)
def test_boto3_sends_the_same_datums(kind: Kind) -> None:
    """The client that this exporter is compared with is given exactly what this exporter sends."""
    ours, theirs = sent(OURS, kind), sent(BOTO3, kind)
    for request in (*ours, *theirs):
        for datum in request["MetricData"]:
            datum.pop("Timestamp")
    assert ours == theirs
    assert sum(len(request["MetricData"]) for request in ours) == SERIES


@pytest.mark.parametrize("way", installed(tuple(WAYS))[0])
def test_every_way_is_measured(way: str) -> None:
    """Each export costs something, and the next one of the same process does, too."""
    exports = Exports(way)
    assert all(exports(COUNTERS, SERIES) > 0 for _ in range(2))


def test_a_stretch_is_measured() -> None:
    """An export keeps others waiting for some time, which is not a second."""
    assert 0 <= Stretches(OURS)(COUNTERS, SERIES) < 1000


def test_requests_are_measured_in_a_process_of_their_own() -> None:
    """Three metrics cost a request something, and more than none."""
    with Remote(Turns, THREE) as three, Remote(Turns, NONE) as none:
        assert three(5).added > max(none(5).added, 0)


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
    """A figure that is exactly the bound keeps it; one without a bound is only shown."""
    assert claim.cells()[-1] == outcome


def test_rounds_alternate() -> None:
    """Each round asks everybody once, another one first; the rounds that fill caches do not count."""
    asked: list[str] = []

    def measure(name: str) -> float:
        asked.append(name)
        return float(len(asked))

    figures = interleaved({"a": lambda: measure("a"), "b": lambda: measure("b")}, 2, warm_up_rounds=1)
    assert asked == ["a", "b", "b", "a", "a", "b"]
    assert figures == {"a": [4.0, 5.0], "b": [3.0, 6.0]}


def test_ratios_are_those_of_rounds() -> None:
    """A machine that becomes slower makes both slower."""
    assert median_ratio([2, 20, 200], [1, 10, 100]) == 2


def test_figures_replace_those_of_before() -> None:
    """Only what stands between the two comments is written anew."""
    document = "a\n<!-- figures -->\nold\n<!-- end of figures -->\nb\n"
    assert with_figures(document, [Claim("x", 2, at_least=1)], made_by="Us.") == (
        "a\n<!-- figures -->\nUs.\n\n|  | wanted | measured |  |\n| --- | ---: | ---: | --- |\n"
        "| x | ≥ 1x | 2.00x | held |\n<!-- end of figures -->\nb\n"
    )
    with pytest.raises(ValueError, match="end of figures"):
        with_figures("no comments", [], made_by="Us.")
