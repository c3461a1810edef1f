"""A program that puts jobs into RQ's queue."""

import os
import sys

from redis import Redis
from rq import Queue

queue = Queue(connection=Redis.from_url(os.environ["RQ_REDIS_URL"]))
for _ in range(int(sys.argv[1])):
    queue.enqueue("tests.job_workers.jobs.count")
