"""Connections are cut, delayed and replaced at random, and every count is exact in the end.

``CHAOS_SECONDS`` and ``CHAOS_SEED`` set the duration and the seed. ``nox --session chaos`` runs this for an hour.
"""

import os
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from otel_cloudwatch_flask.testing.request_rules import datums_of
from tests.reliability.cloudwatch import sum_of
from tests.reliability.cutting_proxy import FAULTS, HOST, CuttingProxy
from tests.reliability.processes import PATIENCE_SECONDS, Program

SECONDS = float(os.environ.get("CHAOS_SECONDS", "12"))
SEED = int(os.environ.get("CHAOS_SEED", "17"))


def collections_of(parameters: Mapping[str, Any]) -> list[dict[str, Mapping[str, Any]]]:
    """Split a request into its collections. After a failure, one request may contain several."""
    found: list[dict[str, Mapping[str, Any]]] = []
    for datum in datums_of(parameters):
        if datum["MetricName"] == "collection":
            found.append({})
        found[-1][datum["MetricName"]] = datum
    return found


@dataclass
class Arrivals:
    """The requests that arrived completely: how often each collection arrived, and what it contains."""

    times: Counter[tuple[str, int]] = field(default_factory=Counter)
    datums: dict[tuple[str, int], int] = field(default_factory=dict)
    sums: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """The sums of each namespace's metrics, or the number of samples of histograms, without repeated collections."""

    def __call__(self, parameters: Mapping[str, Any]) -> None:
        """Record a request."""
        for datums in collections_of(parameters):
            self._add(parameters["Namespace"], datums)

    def _add(self, namespace: str, datums: dict[str, Mapping[str, Any]]) -> None:
        key = (namespace, sum_of(datums["collection"]))
        self.times[key] += 1
        if self.times[key] == 1:
            self.datums[key] = len(datums)
            self.sums[namespace]["orders"] += sum_of(datums["orders"]) if "orders" in datums else 0
            self.sums[namespace]["sizes"] += (
                round(sum(datums["sizes"].get("Counts") or [1])) if "sizes" in datums else 0
            )

    def repeated(self, namespace: str) -> int:
        """Return the number of a namespace's datums that arrived repeatedly."""
        return sum((self.times[key] - 1) * number for key, number in self.datums.items() if key[0] == namespace)


@dataclass(frozen=True)
class Result:
    """What the shops recorded, what arrived, and which faults occurred."""

    are_delivered: list[bool]
    totals: dict[str, dict[str, Any]]
    arrivals: Arrivals
    cloudwatch: LocalCloudWatch
    operations: dict[str, int]
    faults: Counter[str]
    connections: int
    log: str


def cause_chaos(directory: Path) -> Result:
    """Run shops while the proxy in front of CloudWatch causes faults, and then until every metric has arrived."""
    source, arrivals = random.Random(SEED), Arrivals()
    with (
        LocalCloudWatch(answer_with=arrivals) as cloudwatch,
        CuttingProxy(urlsplit(cloudwatch.endpoint_url).port or 0, directory, source) as proxy,
        Program(
            cloudwatch,
            directory / "log",
            "chaos",
            AWS_ENDPOINT_URL_CLOUDWATCH=f"https://{HOST}:{proxy.port}",
            AWS_CA_BUNDLE=proxy.certificate,
            CHAOS_SEED=str(SEED),
            CHAOS_SPOOL=str(directory / "spool"),
        ) as program,
    ):
        program.tell("run", SECONDS)
        is_over = threading.Event()
        weather = threading.Thread(target=change_weather, args=(proxy, source, is_over))
        weather.start()
        operations = program.hear(within_seconds=SECONDS + PATIENCE_SECONDS)
        is_over.set()
        weather.join()
        faults = Counter(proxy.happened)
        are_delivered = program.do("settle", within_seconds=3 * PATIENCE_SECONDS)
        totals = program.do("totals")
        said = program.said()
    return Result(are_delivered, totals, arrivals, cloudwatch, operations, faults, proxy.connections, said)


def change_weather(proxy: CuttingProxy, source: random.Random, is_over: threading.Event) -> None:
    """Vary the kinds of faults and their probability, from none to every request, until ``is_over`` is set."""
    while not is_over.is_set():
        proxy.probability = source.choice([0.0, 0.2, 0.5, 1.0])
        proxy.faults = source.sample(FAULTS, source.randrange(1, 4))
        is_over.wait(source.uniform(0.2, 2.0))
    proxy.probability = 0.0


def test_chaos(tmp_path: Path, figures: Callable[..., None]) -> None:
    """Once the faults stop, every metric arrives, none is lost, and the stats count every possible duplicate."""
    result = cause_chaos(tmp_path)
    repeated = {name: result.arrivals.repeated(name) for name in result.totals}
    figures(
        seed=SEED,
        seconds=SECONDS,
        operations=result.operations,
        connections=result.connections,
        faults=dict(sorted(result.faults.items())),
        requests=result.cloudwatch.traffic.put_requests,
        orders=[each["orders"] for each in result.totals.values()],
        repeated_datums=list(repeated.values()),
        possibly_duplicated=[each["datums_possibly_duplicated"] for each in result.totals.values()],
        seconds_late=[round(each["seconds_late"], 2) for each in result.totals.values()],
    )
    assert all(result.are_delivered), result.log[-5000:]
    assert result.cloudwatch.validation_errors == []
    spool_warnings = [
        line for line in result.log.splitlines() if line.startswith("WARNING otel_") and ".spool:" in line
    ]
    for name, total in result.totals.items():
        assert (total["datums_lost"], total["datums_pending"]) == ({}, 0), (name, spool_warnings)
        assert result.arrivals.sums[name] == {"orders": total["orders"], "sizes": total["sizes"]}
        assert repeated[name] <= total["datums_possibly_duplicated"]
