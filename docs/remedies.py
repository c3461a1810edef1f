"""Explanations of the log messages: what each message means for the data, and what to do.

A message is identified by its beginning, with ``…`` for inserted values. The page omits an explanation that the message
already contains. ``tests/documentation/test_messages.py`` requires exactly one entry for every log message.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Remedy:
    """The beginning of a message, its meaning for the data, and the remedy."""

    beginning: str
    data: str
    remedy: str


_INVALID_POINT: Final = "The data point is lost, and counted as `invalid`."
_REPORT: Final = (
    "Fix your own code if it created the data point, for example in a MetricProducer. Otherwise, report a bug."
)
_FIX_LOGGED: Final = "Fix the delivery problem logged earlier."
_INDISTINGUISHABLE: Final = "Totals are correct, but the new dimension combinations cannot be told apart."
_MOVE_IDS: Final = "Move variable parts of metric names (such as IDs) into dimensions, or raise max_metrics."
_IN_MEMORY: Final = "Nothing is lost yet, but metrics in memory are lost if the process ends before they are sent."

SECTIONS: Final[dict[str, tuple[Remedy, ...]]] = {
    "Delivery": (
        Remedy(
            "Cannot send metrics; they are kept and will be retried.",
            "Nothing is lost yet.",
            "Configure the credentials, Region or profile, as the message says. The original error is at the end of "
            "the message.",
        ),
        Remedy(
            "Metrics could not be sent (",
            "Nothing is lost yet.",
            "If the problem persists, follow the advice in the message. The cause in parentheses is `throttled`, "
            "`server`, `network`, `stream` or `unknown`.",
        ),
        Remedy(
            "… is published as …: in EMF",
            'Nothing is lost, but the metric has a different name than with `output="api"`.',
            "Rename the metric or the dimension.",
        ),
        Remedy("… is not used with output='emf'", "The setting has no effect.", "Remove it."),
        Remedy("Metrics can be sent again;", "Pending data points are sent, oldest first.", "None."),
        Remedy(
            "The backlog is full:",
            "The oldest data points are lost, and counted as `backlog_full`.",
            "Fix the delivery problem logged earlier, raise max_backlog_bytes, or set spool_directory.",
        ),
        Remedy(
            "… data point(s) expired and are lost",
            "The data points are counted as `expired` in `stats()`.",
            _FIX_LOGGED,
        ),
        Remedy(
            "Lost a data point of …: CloudWatch refused it",
            "The data point is counted as `refused`. For ten minutes, later data points with the same name and "
            "dimensions may also be lost.",
            "Report a bug if nothing is wrong with the metric.",
        ),
        Remedy(
            "… data point(s) could not be sent before the exporter was shut down",
            "The data points are lost, and counted as `shutdown`.",
            "Fix the delivery problem logged earlier, or set spool_directory to keep unsent data points for the next "
            "process.",
        ),
        Remedy(
            "… data point(s) could not be sent, and remain in the spool",
            "Nothing is lost if a process with the same spool directory sends the data points within two weeks.",
            "Fix the delivery problem logged earlier, then run a process with the same spool_directory to send them.",
        ),
        Remedy(
            "… data point(s) were sent, but CloudWatch has not responded",
            "CloudWatch may have stored the data points. If the next process sends them again from the spool, they may "
            "be counted twice.",
            "If this happens often, investigate the network latency to CloudWatch.",
        ),
        Remedy(
            "Metrics exported after shutdown are lost",
            "Lost data points are counted as `shutdown`.",
            "Shut down the metric reader before the exporter.",
        ),
        Remedy(
            "Cannot start the metric reader's thread",
            "Nothing is lost yet.",
            "Raise the thread limit of the process (`ulimit -u`) or of its container. Ignore this warning if the "
            "process is exiting.",
        ),
        Remedy(
            "A fork or exit hook failed",
            "Metrics of this process may be lost or counted twice.",
            "Report a bug, and include the traceback.",
        ),
        Remedy(
            "Metrics could not be collected before shutdown",
            "Measurements since the last successful collection are lost. Those of `add_metric` are counted as "
            "`shutdown`.",
            "Fix the observable callback or OpenTelemetry view that hangs or raises an exception.",
        ),
        Remedy(
            "Failed to collect metrics",
            "If an observable callback failed, counters and histograms lose nothing. If a view failed, the metrics "
            "collected before the failure are lost.",
            "Fix the observable callback or OpenTelemetry view at the end of the traceback.",
        ),
    ),
    "Metrics and dimensions": (
        Remedy(
            "Lost a metric (counted as invalid): …",
            "The call to `add_metric` had no effect. If [`STRICT`](configuration.md#strict) is true, such a call "
            "raises `InvalidMetricError` instead.",
            "Fix the call in the file and line that the message names.",
        ),
        Remedy(
            "Lost a measurement: OpenTelemetry did not accept",
            "One measurement is lost.",
            "Do not record this number. OpenTelemetry's histograms reject a few extreme numbers.",
        ),
        Remedy(
            "Lost a data point of …: it has …, which CloudWatch does not accept",
            _INVALID_POINT,
            "Fix the cause named in the message. [Data points that cannot be "
            "sent](#data-points-that-cannot-be-sent) lists all causes.",
        ),
        Remedy("Lost a data point of …: it could not be read", _INVALID_POINT, _REPORT),
        Remedy("Lost a data point of …: it could not be converted", _INVALID_POINT, _REPORT),
        Remedy(
            "CloudWatch has no equivalent of the unit",
            "Values are not affected.",
            "Use a unit from the [table of units](mapping.md#units).",
        ),
        Remedy(
            "No measurement of … had the attribute …",
            "The metric has fewer dimensions than its rule lists.",
            "If the rule misspells an attribute, correct it.",
        ),
        Remedy(
            "… has … attributes, but CloudWatch allows 30 dimensions.",
            "Values are not affected, but some attributes are missing.",
            "Name the attributes to keep in MetricRule(dimensions=...).",
        ),
        Remedy(
            "max_metrics has been reached: new dimension combinations of",
            _INDISTINGUISHABLE,
            "Find the dimension that has many values, such as user or order IDs, and drop it with a rule.",
        ),
        Remedy(
            "max_metrics has been reached, and there is no room for further overflow series",
            "Nothing is lost, but the metrics that are published together cannot be told apart.",
            _MOVE_IDS,
        ),
        Remedy(
            "add_metric has reached its limit of … dimension combinations",
            _INDISTINGUISHABLE,
            "Remove IDs and other variable parts from dimensions and metric names, or raise max_metrics.",
        ),
        Remedy(
            "Unsupported opentelemetry-sdk internals",
            "Counts and sums remain exact.",
            "[Compatibility](compatibility.md) lists the tested releases.",
        ),
    ),
    "Configuration": (
        Remedy(
            "No CloudWatch namespace is configured",
            "Metrics are sent to the namespace that the message names.",
            'To choose another, pass namespace="...", or set app.config["CLOUDWATCH_NAMESPACE"] or OTEL_SERVICE_NAME.',
        ),
        Remedy(
            "The default CloudWatch namespace is invalid",
            "Metrics are sent to the namespace that the message names.",
            'Pass `namespace="..."`, or choose a service or app name that is a valid namespace.',
        ),
        Remedy(
            "Unknown setting … is ignored",
            "The misspelled setting has no effect.",
            "Correct the spelling. [Configuration](configuration.md) lists all settings.",
        ),
        Remedy(
            "Metric dropped: no CloudWatchMetricsReporter",
            "The metric is not counted in any statistics.",
            "Call init_app(app) first, or call add_metric on a reporter.",
        ),
        Remedy(
            "Metrics are lost: a CloudWatchMetricsReporter without an app",
            "Lost metrics are counted as `not_set_up` in `measurements_lost`.",
            "Correct the setting named in this error",
        ),
        Remedy(
            "A CloudWatch exporter was added to a meter provider",
            "Measurements since the reporter's last flush may be missing.",
            "Add the exporter before the reporter, or remove the exporter.",
        ),
    ),
    "Spool": (
        Remedy("The spool is full", _IN_MEMORY, _FIX_LOGGED),
        Remedy(
            "Cannot read spooled metrics now",
            "Nothing is lost.",
            "Raise the limit on open files (`ulimit -n`), or find out what keeps so many files open.",
        ),
        Remedy(
            "Cannot write metrics to the spool",
            _IN_MEMORY,
            "Check the free space of spool_directory and this process's permission to write to it.",
        ),
        Remedy(
            "Cannot delete a batch from the spool",
            "If the batch is sent again, CloudWatch counts its metrics twice.",
            "Give this process permission to delete files in spool_directory.",
        ),
        Remedy(
            "Cannot take over a batch spooled by an earlier process",
            "Nothing is lost if a process takes over the batch within two weeks.",
            "Give this process permission to rename files in spool_directory.",
        ),
        Remedy(
            "… belongs to another user",
            "This process does not send the metrics in the directory. Deleting the directory also deletes them.",
            "Run all processes that share spool_directory as one user. If no process uses the ignored directory, you "
            "can delete it.",
        ),
        Remedy(
            "Cannot read the spool directory",
            "This process still sends its own metrics.",
            "Give this process permission to read it.",
        ),
        Remedy(
            "… is not a batch of metrics",
            "The metrics in the file are lost. If this process wrote the file, they are counted as `unreadable`.",
            "Find out what else writes to the spool directory, and delete the `.bad` file.",
        ),
        Remedy(
            "Cannot rename a file that is not a batch of metrics",
            "Other batches are not affected.",
            "Delete ….",
        ),
    ),
    "Errors in callbacks, and bugs": (
        Remedy(
            "CLOUDWATCH_LIVE_PAGE_CHECK raised",
            "Metrics are not affected.",
            "Fix the problem that the traceback shows.",
        ),
        Remedy("A callback passed to watch() failed", "Delivery is not affected.", "Fix the callback."),
        Remedy(
            "Recording or flushing metrics at the end of a request failed",
            "The request's metrics may be lost, but its response is not affected.",
            "Report a bug, and include the traceback.",
        ),
    ),
}
