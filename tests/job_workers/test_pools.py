"""Jobs in processes of multiprocessing, concurrent.futures and APScheduler."""

import multiprocessing
from pathlib import Path

import pytest

from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.job_workers.running import Jobs

KINDS = ["processes", "terminated_pool", "executor"]


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_start_methods(tmp_path: Path, method: str) -> None:
    """Each job is counted once, even if its process is terminated or ends without running exit handlers."""
    with LocalCloudWatch() as cloudwatch:
        jobs = Jobs(tmp_path, cloudwatch)
        jobs.run("tests.job_workers.pools", *KINDS, method, 1)
        assert (jobs.finished(), jobs.published()) == (len(KINDS), {len(KINDS)})


def test_apscheduler(tmp_path: Path) -> None:
    """Each job is counted once, in threads and in processes."""
    pytest.importorskip("apscheduler")
    with LocalCloudWatch() as cloudwatch:
        jobs = Jobs(tmp_path, cloudwatch)
        jobs.run("tests.job_workers.pools", "scheduler", "spawn", 4)
        assert (jobs.finished(), jobs.published()) == (4, {4})
