"""Jobs in RQ's workers."""

from pathlib import Path

import pytest

from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.job_workers.running import Jobs, redis_server

JOBS = 4

pytest.importorskip("rq")


@pytest.mark.parametrize("worker", ["Worker", "SpawnWorker"])
def test_workers(tmp_path: Path, worker: str) -> None:
    """Each finished job is counted once, even if its process ends with os._exit or the worker is terminated."""
    with redis_server(tmp_path) as redis, LocalCloudWatch() as cloudwatch:
        jobs = Jobs(tmp_path, cloudwatch, RQ_REDIS_URL=f"unix://{redis}")
        jobs.run("tests.job_workers.rq_jobs", JOBS)
        with jobs.worker("rq.cli", "worker", "--worker-class", f"rq.worker.{worker}"):
            jobs.wait_until(lambda: jobs.finished() >= JOBS // 2)
        assert jobs.published() == {jobs.finished()}
