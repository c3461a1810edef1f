"""Tasks in Celery's workers."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from otel_cloudwatch_flask.testing.local.server import Fault, LocalCloudWatch
from tests.job_workers.running import Jobs, redis_server

TASKS = 12

pytest.importorskip("celery")

APP = "tests.job_workers.celery_app"
WORKER = ["celery", "-A", APP, "worker", "--concurrency", "2", "--without-gossip", "--without-mingle"]


def test_pools(tmp_path: Path) -> None:
    """In processes, threads and greenlets, each task is counted once."""
    pools = ["prefork", "threads", "gevent"]
    with ThreadPoolExecutor() as threads:  # workers are mostly idle, especially at their end
        assert list(threads.map(lambda pool: numbers_of(tmp_path / pool, pool), pools)) == [{3}, {3}, {3}]


def numbers_of(directory: Path, pool: str) -> set[float]:
    """Run three tasks in a pool, and return the published counts."""
    directory.mkdir()
    with LocalCloudWatch() as cloudwatch:
        jobs = Jobs(directory, cloudwatch, CELERY_BROKER_URL="filesystem://")
        jobs.run(APP, 3)
        with jobs.worker(*WORKER, "--pool", pool):
            jobs.wait_until(lambda: jobs.finished() == 3)
        return jobs.published()


def test_sigterm_and_one_task_per_process(tmp_path: Path) -> None:
    """Each finished task is counted once, even if its process ends with os._exit or the worker is terminated."""
    pytest.importorskip("redis")
    with redis_server(tmp_path) as redis, LocalCloudWatch() as cloudwatch:
        jobs = Jobs(tmp_path, cloudwatch, CELERY_BROKER_URL=f"redis+socket://{redis}")
        jobs.run(APP, TASKS)
        with jobs.worker(*WORKER, "--max-tasks-per-child", "1"):
            jobs.wait_until(lambda: jobs.finished() >= TASKS // 3)
        assert jobs.published() == {jobs.finished()}


def test_slow_responses_in_a_warm_shutdown(tmp_path: Path) -> None:
    """A process that replaced another one is not killed at the worker's end before it has sent its metrics."""
    is_stopping = threading.Event()

    def fail_at_first(_request: Mapping[str, Any]) -> Fault | None:
        """Fail the first request after the worker was told to stop, with a delay of one second."""
        if not is_stopping.is_set():
            return None
        is_stopping.clear()
        time.sleep(1)
        return Fault()

    (tmp_path / "broker").mkdir()
    with LocalCloudWatch(answer_with=fail_at_first) as cloudwatch:
        jobs = Jobs(tmp_path / "broker", cloudwatch, CELERY_BROKER_URL="filesystem://")
        jobs.run(APP, 3)
        with jobs.worker(*WORKER, "--concurrency", "1", "--max-tasks-per-child", "2"):
            jobs.wait_until(lambda: jobs.finished() == 3)
            is_stopping.set()
        assert jobs.published() == {3}
