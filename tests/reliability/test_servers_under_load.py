"""WSGI servers count every answered request, even while workers are replaced or terminated."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.cloudwatch import FailingCloudWatch
from tests.reliability.processes import GUNICORN, PATIENCE_SECONDS, UWSGI, Load, Server, serving
from tests.support.fakes import eventually

REQUESTS = 1000
CLIENTS = 8

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these servers fork")


def assert_answered_are_counted(cloudwatch: FailingCloudWatch, load: Load) -> None:
    """Each answered request counts exactly once, each cut-off request at most once, and no other request counts."""
    found = cloudwatch.published
    answered, cut_off = len(load.answered), len(load.cut_off)
    for name in ("Requests", "Numbers", "http.server.duration"):
        assert answered <= found.count(name) <= answered + cut_off, name
    assert found.sum("Requests") == found.count("Requests")
    rounding = 1e-9 * found.sum("Numbers")  # sums of histograms are exact to this precision
    assert -rounding <= found.sum("Numbers") - sum(load.answered) <= sum(load.cut_off) + rounding
    assert cloudwatch.validation_errors == []


def put_under_load(server: Server, requests: int, *, requests_per_connection: int = 20) -> Load:
    """Send requests until workers have been replaced, end the server under load, and wait for all clients."""
    load = Load(server.url, clients=CLIENTS, requests_per_connection=requests_per_connection).start()
    load.wait_for(requests)
    assert eventually(lambda: len(load.pids) > 2, within_seconds=PATIENCE_SECONDS)
    assert len(load.cut_off) <= len(load.answered) / 100, "replacing a worker may close an idle connection"
    before = len(load.cut_off)
    load.expect_the_end()
    server.terminate()
    load.join()
    assert len(load.cut_off) - before <= CLIENTS
    return load


@pytest.mark.parametrize("preload", [False, True], ids=["workers load", "preload"])
@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_gunicorn(  # noqa: PLR0917
    cloudwatch: FailingCloudWatch,
    tmp_path: Path,
    worker_class: str,
    preload: bool,  # noqa: FBT001 - a column of the table
    scale: float,
    figures: Callable[..., None],
) -> None:
    """All answered requests are counted while workers are replaced continuously, and after SIGTERM under load."""
    if worker_class == "gevent":
        pytest.importorskip("gevent")
    command = [*GUNICORN, "--workers", "2", "--worker-class", worker_class, "--keep-alive", "5"]
    command += ["--max-requests", "250", "--max-requests-jitter", "50"]
    command += ["--threads", "4"] if worker_class == "gthread" else []
    command += ["--preload"] if preload else []
    with serving(cloudwatch, tmp_path / "log", command, ["tests.reliability.app:create_app()"]) as server:
        load = put_under_load(server, round(REQUESTS * scale))
    assert_answered_are_counted(cloudwatch, load)
    figures(
        answered=len(load.answered),
        counted=cloudwatch.published.sum("Requests"),
        cut_off=len(load.cut_off),
        workers=len(load.pids),
        calls=cloudwatch.traffic.put_requests,
    )


def test_sync_in_workers_that_gevent_patches(
    cloudwatch: FailingCloudWatch, tmp_path: Path, scale: float, figures: Callable[..., None]
) -> None:
    """With preload, the reader exists before gevent patches threading; ``flush="sync"`` still counts all requests."""
    pytest.importorskip("gevent")
    command = [*GUNICORN, "--workers", "2", "--worker-class", "gevent", "--keep-alive", "5", "--preload"]
    command += ["--max-requests", "250", "--max-requests-jitter", "50"]
    factory = ["tests.reliability.app:create_app()"]
    with serving(cloudwatch, tmp_path / "log", command, factory, OTEL_EXPORTER_CLOUDWATCH_FLUSH="sync") as server:
        load = put_under_load(server, round(REQUESTS * scale))
    assert_answered_are_counted(cloudwatch, load)
    figures(answered=len(load.answered), cut_off=len(load.cut_off), calls=cloudwatch.traffic.put_requests)


@pytest.mark.skipif(not UWSGI.exists(), reason="uWSGI is not installed here: pip install uwsgi")
@pytest.mark.parametrize("lazy", [False, True], ids=["forked", "lazy-apps"])
def test_uwsgi(
    cloudwatch: FailingCloudWatch,
    tmp_path: Path,
    lazy: bool,  # noqa: FBT001 - a column of the table
    scale: float,
    figures: Callable[..., None],
) -> None:
    """All answered requests are counted under uWSGI, which by default forks workers without Python's fork hooks."""
    command = [str(UWSGI), "--http-socket", "fd://{fd}", "--master", "--processes", "2", "--threads", "4"]
    command += ["--min-worker-lifetime", "1"]
    command += [
        "--enable-threads",
        "--hook-master-start",
        "unix_signal:15 gracefully_kill_them_all",
        "--need-app",
        "--max-requests",
        "250",
        "--disable-logging",
    ]
    command += ["--lazy-apps"] if lazy else []
    with serving(
        cloudwatch, tmp_path / "log", command, ["--module", "tests.reliability.app"], COUNTING_APP="loaded"
    ) as server:
        load = put_under_load(server, round(REQUESTS * scale), requests_per_connection=1)
    assert_answered_are_counted(cloudwatch, load)
    figures(
        answered=len(load.answered),
        counted=cloudwatch.published.sum("Requests"),
        cut_off=len(load.cut_off),
        workers=len(load.pids),
        calls=cloudwatch.traffic.put_requests,
    )
