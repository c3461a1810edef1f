"""What each log message means for the data, and what to do.

A message is identified by its beginning, with ``…`` for inserted values. Where the message itself contains an
explanation, the entry quotes that part of the message, and the page does not repeat it.
``tests/documentation/test_messages.py`` requires exactly one entry for every log message.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Remedy:
    """The beginning of a message, its meaning for the data, and the remedy."""

    beginning: str
    data: str
    remedy: str


_REPORT: Final = "report a bug, and include the traceback."
_FIX_LOGGED: Final = "Fix the delivery problem logged earlier"
_INSERTED: Final = "…"
"""Stands for a remedy that is inserted into the message."""

SECTIONS: Final[dict[str, tuple[Remedy, ...]]] = {
    "Delivery": (
        Remedy("Cannot send metrics; they are kept", "they are kept and will be retried", _INSERTED),
        Remedy("Metrics could not be sent (", "they are kept and will be retried", _INSERTED),
        Remedy("… is published as …: in EMF", "is published as", "Rename the metric or the dimension."),
        Remedy("… is not used with output='emf'", "is not used", "Remove it."),
        Remedy("Metrics can be sent again;", "sending … pending data point(s)", "Metrics can be sent again"),
        Remedy("The backlog is full:", "are lost", _FIX_LOGGED),
        Remedy("… data point(s) expired and are lost", "are lost", _FIX_LOGGED),
        Remedy(
            "Lost a data point of …: CloudWatch refused it",
            "For ten minutes, further data points with the same name, unit and dimensions may also be lost.",
            "If your metric is valid, report a bug.",
        ),
        Remedy("… data point(s) could not be sent before", "are lost", "fix any delivery problem logged earlier"),
        Remedy(
            "… data point(s) could not be sent, and remain in the spool",
            "remain in the spool",
            "run a process with the same spool_directory within two weeks",
        ),
        Remedy(
            "… data point(s) were being sent at shutdown",
            "If CloudWatch has stored the data points and the next process sends them again, they are counted twice.",
            "investigate the network latency to CloudWatch",
        ),
        Remedy("Metrics exported after shutdown are lost", "are lost", "Shut down the metric reader before"),
        Remedy("Cannot start the metric reader's thread", "metrics are sent only by", "raise its thread limit"),
        Remedy("A fork or exit hook failed", "may be lost or counted twice", _REPORT),
        Remedy("Metrics could not be collected before shutdown", "are lost", "Fix the observable callback"),
        Remedy(
            "Failed to collect metrics",
            "If an observable callback took too long, no counter or histogram data is lost. Otherwise, "
            "measurements since the last successful collection may be lost.",
            "Fix the cause that the traceback shows",
        ),
        Remedy(
            "Failed to flush metrics",
            "Pending data points stay pending.",
            _REPORT,
        ),
    ),
    "Metrics and dimensions": (
        Remedy("Lost a metric (counted as invalid): …", "Lost a metric", _INSERTED),
        Remedy("Lost a measurement of …", "Lost a measurement", "Fix the problem that the traceback shows."),
        Remedy(
            "Lost a data point of …: it has …",
            "Lost a data point",
            "[Data points that cannot be sent](#data-points-that-cannot-be-sent) lists the possible causes.",
        ),
        Remedy("Lost a data point of …: it could not be converted", "Lost a data point", _REPORT),
        Remedy(
            "CloudWatch has no equivalent of the unit",
            "is published without a unit",
            "See the [table of units](mapping.md#units).",
        ),
        Remedy("No measurement of … had the attribute …", "had the attribute", "If the rule misspells an attribute"),
        Remedy("… has … attributes", "are kept first", "Name the attributes to keep in MetricRule(dimensions=...)."),
        Remedy(
            "max_metrics has been reached: new dimension combinations of",
            "are published as its overflow series",
            "Drop a dimension with a MetricRule, or raise max_metrics",
        ),
        Remedy(
            "max_metrics has been reached, and there is no room for further overflow series",
            "are published together",
            "Remove IDs and other variable parts from metric names and dimensions, or raise max_metrics.",
        ),
        Remedy(
            "add_metric has reached its limit of … dimension combinations: new combinations of",
            "are recorded as that metric's overflow series",
            "Remove IDs and other variable parts from dimensions, or raise max_metrics.",
        ),
        Remedy(
            "add_metric has reached its limit of … dimension combinations: … and other new metrics",
            "are recorded together",
            "Remove IDs and other variable parts from metric names and dimensions, or raise max_metrics.",
        ),
        Remedy(
            "Unsupported opentelemetry-sdk internals",
            "Counts and sums remain exact.",
            "[Compatibility](compatibility.md) lists the tested releases.",
        ),
    ),
    "Configuration": (
        Remedy("No CloudWatch namespace is configured", "using the name", 'To choose another, pass namespace="..."'),
        Remedy("The default CloudWatch namespace is invalid", "is used instead", 'To choose another, pass namespace="'),
        Remedy("Unknown setting … is ignored", "is ignored", "did you mean …?"),
        Remedy(
            "Metric dropped: no CloudWatchMetricsReporter",
            "`stats()` does not count the metric.",
            "Call init_app(app) first, or call add_metric on a reporter.",
        ),
        Remedy("Metrics are lost: a CloudWatchMetricsReporter without an app", "are lost", "Correct the setting"),
        Remedy(
            "A CloudWatch exporter was added to a meter provider",
            "Measurements of other metrics since the reporter's last flush may be missing.",
            "Add the exporter before the reporter, or remove the exporter.",
        ),
    ),
    "Spool": (
        Remedy("The spool is full", "new metrics are kept in memory only", _FIX_LOGGED),
        Remedy("Cannot read spooled metrics now", "they remain in the spool", "Raise this process's limit"),
        Remedy("Cannot write metrics to the spool", "they are kept in memory", "Check the free space"),
        Remedy("Cannot delete a batch from the spool", "may send it again", "Check this process's permission"),
        Remedy("Cannot take over a batch", "it remains in the spool", "Check this process's permission"),
        Remedy("… belongs to another user", "its metrics are not sent", "Run all processes that share spool_directory"),
        Remedy("Cannot read the spool directory", "will not be sent until", "Check this process's permission"),
        Remedy(
            "Cannot read … as a batch of metrics",
            "The metrics in the file are lost. They are counted as `unreadable` only if this process wrote the file.",
            "Delete the file when you no longer need it.",
        ),
        Remedy(
            "Cannot rename …, which could not be read", "the next process will try to read it again", "Delete the file."
        ),
    ),
    "Errors in callbacks, and bugs": (
        Remedy("CLOUDWATCH_LIVE_PAGE_CHECK raised", "Metrics are not affected.", "Fix the problem"),
        Remedy("CLOUDWATCH_LIVE_PAGE_CHECK returned", "Metrics are not affected.", "Return True or False"),
        Remedy("A callback passed to watch() failed", "delivery is not affected", "Fix the callback."),
        Remedy("Recording or flushing metrics at the end", "the request's metrics may be lost", _REPORT),
    ),
}
