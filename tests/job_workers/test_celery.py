"""Tasks in Celery's workers."""

from pathlib import Path

import pytest

from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.job_workers.running import Jobs, redis_server

TASKS = 12

pytest.importorskip("celery")

APP = "tests.job_workers.celery_app"
WORKER = ["celery", "-A", APP, "worker", "--concurrency", "2", "--without-gossip", "--without-mingle"]


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_pools(tmp_path: Path, pool: str) -> None:
    """Each task is counted once in processes, threads and greenlets."""
    with LocalCloudWatch() as cloudwatch:
        jobs = Jobs(tmp_path, cloudwatch, CELERY_BROKER_URL="filesystem://")
        jobs.run(APP, 3)
        with jobs.worker(*WORKER, "--pool", pool):
            jobs.wait_until(lambda: jobs.finished() == 3)
        assert jobs.published() == {3}


def test_sigterm_and_one_task_per_process(tmp_path: Path) -> None:
    """Each finished task is counted once, although its process ends with os._exit and the worker is terminated."""
    pytest.importorskip("redis")
    with redis_server(tmp_path) as redis, LocalCloudWatch() as cloudwatch:
        jobs = Jobs(tmp_path, cloudwatch, CELERY_BROKER_URL=f"redis+socket://{redis}")
        jobs.run(APP, TASKS)
        with jobs.worker(*WORKER, "--max-tasks-per-child", "1"):
            jobs.wait_until(lambda: jobs.finished() >= TASKS // 3)
        assert jobs.published() == {jobs.finished()}
