"""Metrics outside of requests: in a command, a thread, a scheduler and a script. All are flushed at exit."""

import sched
import threading
import time

import click
from flask import Flask
from opentelemetry.metrics import get_meter

from otel_cloudwatch_flask import CloudWatchMetricsReporter

app = Flask(__name__)
metrics = CloudWatchMetricsReporter(app, "Jobs")
reminders = get_meter("jobs").create_counter("jobs.reminders", unit="{mail}")


@app.cli.command("import-orders")
@click.argument("orders", type=int)
def import_orders(orders: int) -> None:
    """Import this number of orders: `flask --app examples/jobs import-orders 3`."""
    with metrics.timer("Import Time"):
        for _ in range(orders):
            metrics.add_metric("Imported Orders", 1, "Count")
    # Optional, because the command also flushes at exit. Flush explicitly if the command may be killed.
    click.echo(f"imported {orders}, in CloudWatch: {metrics.flush()}")


def send_reminders() -> None:
    """Run a job, which needs no request and no app context."""
    reminders.add(2)
    metrics.add_metric("Job Runs", 1, "Count", {"Job": "reminders"})


def main() -> None:
    """Run jobs in a thread and in a scheduler, as APScheduler or Celery do."""
    thread = threading.Thread(target=send_reminders)
    thread.start()
    scheduler = sched.scheduler(time.monotonic)
    for delay_seconds in (0.01, 0.02, 0.03):
        scheduler.enter(delay_seconds, 0, send_reminders)
    scheduler.run()
    thread.join()
    print("ran 4 jobs")


if __name__ == "__main__":
    main()
