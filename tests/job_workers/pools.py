"""A program that runs jobs in child processes. Its arguments are kinds of pools, a start method and a number."""

import concurrent.futures
import multiprocessing
import sys
import threading
from multiprocessing.context import BaseContext

from tests.job_workers import jobs


def _count(_number: int) -> None:
    jobs.count()


def processes(context: BaseContext, number: int) -> None:
    """Run each job in its own process."""
    children = [context.Process(target=jobs.count) for _ in range(number)]  # type: ignore[attr-defined]
    for child in children:
        child.start()
    for child in children:
        child.join()


def terminated_pool(context: BaseContext, number: int) -> None:
    """Run the jobs in a pool that is terminated with SIGTERM."""
    with context.Pool(2) as pool:
        pool.map(_count, range(number))


def executor(context: BaseContext, number: int) -> None:
    """Run the jobs in a ``ProcessPoolExecutor``."""
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        list(pool.map(_count, range(number)))


def scheduler(_context: BaseContext, number: int) -> None:
    """Run the jobs with APScheduler, in a thread and in processes."""
    from apscheduler.events import EVENT_JOB_EXECUTED  # noqa: PLC0415 - the other kinds do without APScheduler
    from apscheduler.executors.pool import ProcessPoolExecutor  # noqa: PLC0415
    from apscheduler.schedulers.background import BackgroundScheduler  # noqa: PLC0415

    ended = threading.Semaphore(0)
    executors = {"default": {"type": "threadpool"}, "processes": ProcessPoolExecutor(2)}
    background = BackgroundScheduler(executors=executors, job_defaults={"misfire_grace_time": None})
    background.add_listener(lambda _event: ended.release(), EVENT_JOB_EXECUTED)
    for each in range(number):
        background.add_job(jobs.count, executor="processes" if each % 2 else "default")
    background.start()
    for _ in range(number):
        ended.acquire()
    background.shutdown()


if __name__ == "__main__":
    *kinds, method, count = sys.argv[1:]
    for kind in kinds:
        globals()[kind](multiprocessing.get_context(method), int(count))
