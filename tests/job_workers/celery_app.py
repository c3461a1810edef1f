"""A Celery app with the broker from ``CELERY_BROKER_URL``. Run as a program, it puts tasks into the queue."""

import os
import sys
from pathlib import Path

from celery import Celery

from tests.job_workers import jobs

directory = Path(os.environ["BROKER_DIRECTORY"])
app = Celery("tests")
app.conf.update(
    broker_transport_options={
        "data_folder_in": directory,
        "data_folder_out": directory,
        "control_folder": directory,
        "polling_interval": 0.05,
    },
    worker_hijack_root_logger=False,
)
count = app.task(name="count")(jobs.count)

if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        count.delay()
