"""Explanations of the log messages: what each message means for the data, and what to do.

A message is identified by its beginning, with ``…`` for inserted values.
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


_INVALID_POINT: Final = "This data point is lost, and counted as `invalid`. All others are sent."
_REPORT: Final = (
    "The traceback shows the reason. Unless your own code built the data point, for example in a MetricProducer, this "
    "is a bug: report it."
)

SECTIONS: Final[dict[str, tuple[Remedy, ...]]] = {
    "Delivery": (
        Remedy(
            "Cannot send metrics; they are kept and will be retried.",
            "Nothing is lost yet. Metrics are buffered in memory or in the spool, and retried.",
            "Follow the message: configure credentials that allow `cloudwatch:PutMetricData`, or a Region. The error "
            "of boto3 or CloudWatch is in parentheses. Logged once per outage.",
        ),
        Remedy(
            "Metrics could not be sent (",
            "Nothing is lost yet. Totals stay complete; only their time resolution gets coarser in a long outage.",
            "None if the problem is temporary. `throttled`: flush less often, see [operations](operations.md). "
            "`server`: wait. `network`: check that the process can reach the endpoint. `stream`: check that the "
            "stream (standard output by default) is open, and that its reader keeps up. `unknown`: see the error. "
            "Logged once a minute.",
        ),
        Remedy(
            "… is published as …, because in EMF",
            "Nothing is lost, but the metric's name differs from that of `PutMetricData`.",
            "Rename the metric or the attribute, or exclude the attribute with a `MetricRule`.",
        ),
        Remedy(
            "… is not used with output='emf'",
            "Nothing is lost. Metrics are written to standard output or to the stream that was passed.",
            'Remove the setting, or `output="emf"`.',
        ),
        Remedy("CloudWatch accepts metrics again;", "Buffered metrics are sent, oldest first.", "None."),
        Remedy(
            "The backlog is full:",
            "The oldest data points are lost, and counted as `backlog_full`.",
            "Fix the delivery problem logged earlier. To survive longer outages, raise `MAX_BACKLOG_BYTES`, or set "
            "`SPOOL_DIRECTORY`.",
        ),
        Remedy(
            "… data point(s) expired and are lost",
            "They are lost, and counted as `expired`: CloudWatch does not accept data older than two weeks.",
            "Fix the delivery problem logged earlier.",
        ),
        Remedy(
            "CloudWatch refused a data point of",
            "This data point is lost, and counted as `refused`. The rest of the request is not affected.",
            "Fix the problem that CloudWatch reports. If nothing is wrong with the metric, this is a bug: report it.",
        ),
        Remedy(
            "… data point(s) could not be sent before the exporter was shut down",
            "They are lost, and counted as `shutdown`.",
            "Fix the delivery problem logged earlier. To keep data across restarts, set `SPOOL_DIRECTORY`.",
        ),
        Remedy(
            "… data point(s) could not be sent, and remain in the spool",
            "Nothing is lost: the next process with this spool directory sends them, for up to two weeks.",
            "Fix the delivery problem logged earlier. Keep the directory on a disk that outlives the process.",
        ),
        Remedy(
            "… data point(s) were sent, but CloudWatch has not responded",
            "They may or may not be in CloudWatch. With a spool, the next process sends them again, so CloudWatch may "
            "count them twice.",
            "None if it happens once. Otherwise, check the latency between the process and CloudWatch.",
        ),
        Remedy(
            "Metrics exported after shutdown are lost",
            "They are lost, and counted as `shutdown`.",
            "Shut down the exporter last: after the reader, and after all threads that record metrics.",
        ),
        Remedy(
            "Cannot start the reader's thread",
            'Nothing is lost: `flush()`, `flush="sync"` and the exit of the process send all metrics.',
            "Raise the thread limit of the process (`ulimit -u`, or the container's pids limit). None if the process "
            "is exiting.",
        ),
        Remedy(
            "A fork or exit hook failed",
            "Metrics of this process may be lost or counted twice.",
            "This is a bug: report it with the traceback.",
        ),
        Remedy(
            "Metrics could not be collected before shutdown",
            "Those recorded since the last flush are lost; the measurements of `add_metric` are counted as `shutdown`.",
            "Find the callback of an observable instrument that hangs or raises, and give it a timeout.",
        ),
        Remedy(
            "Failed to collect metrics",
            "If a callback failed, nothing is lost: counters and histograms are sent with the next collection. If a "
            "view failed, what had been collected before it is lost.",
            "Fix the callback of an observable instrument, or the view, at the end of the traceback.",
        ),
    ),
    "Metrics and dimensions": (
        Remedy(
            "Lost a metric (counted as invalid): …",
            "This metric is lost, and counted as `invalid`. In debug mode and in tests, `InvalidMetricError` is raised "
            "instead, with the same text.",
            "Fix the call in the file and line that the message names.",
        ),
        Remedy(
            "Lost a metric: its arguments could not be read",
            "This metric is lost, and counted as `invalid`.",
            "An argument of `add_metric` raised an exception when it was read; the traceback shows where. Pass plain "
            "strings and numbers.",
        ),
        Remedy(
            "Lost a measurement: OpenTelemetry did not accept",
            "This measurement is lost, and counted as `invalid`.",
            "The traceback shows the exception of the SDK, whose histograms reject a few finite numbers.",
        ),
        Remedy(
            "Lost a data point of …: it has …, which CloudWatch does not accept",
            _INVALID_POINT,
            "Do not record NaN, infinities, or magnitudes beyond 2^360. The reasons are listed "
            "[below](#data-points-that-cannot-be-sent).",
        ),
        Remedy("Lost a data point of …: it could not be read", _INVALID_POINT, _REPORT),
        Remedy(
            "Lost a data point of …: it could not be converted",
            "The merged data point is lost, and counted as one `invalid`. All others are sent.",
            _REPORT,
        ),
        Remedy(
            "CloudWatch has no equivalent of the unit",
            "Values are correct. The metric has the unit None.",
            "Give the instrument a UCUM unit from [the table of units](mapping.md#units).",
        ),
        Remedy(
            "No measurement of … had the attribute …",
            "Values are correct. The metric has fewer dimensions than its rule lists.",
            "Correct the names in the rule's `dimensions`; the message lists those that the measurements have. Logged "
            "once per metric, in the tenth collection after its first measurement.",
        ),
        Remedy(
            "… has … attributes, but CloudWatch allows 30 dimensions",
            "Values are correct. The metric has fewer dimensions than the instrument has attributes.",
            "Select the attributes to keep with a rule: `MetricRule(dimensions=[...])`.",
        ),
        Remedy(
            "… has more dimension combinations than max_metrics",
            "Totals are correct. New dimension combinations are published together, as `otel.metric.overflow=true`.",
            "Find the dimension with many values, and drop it with a rule. Raise `MAX_METRICS` only if you want to pay "
            "for every combination.",
        ),
        Remedy(
            "max_metrics is reached, including overflow series",
            "Nothing is lost, but these dimension combinations are published together as the metric "
            "`otel.metric.overflow`, and cannot be distinguished.",
            "Find the part of the name that varies (a user, an order, a URL), and make it a dimension. Raise "
            "`MAX_METRICS` only if you want to pay for every combination.",
        ),
        Remedy(
            "add_metric has reached its limit of … dimension combinations: … and any other new metrics",
            "Nothing is lost, but new metric names are recorded together, as the metric `otel.metric.overflow`.",
            "Find the part of the name that varies (a user, an order, a URL), and make it a dimension.",
        ),
        Remedy(
            "add_metric has reached its limit of … dimension combinations: new combinations",
            "Totals are correct. New dimension combinations are recorded together, as `otel.metric.overflow=true`.",
            "Find the dimension with many values (a user, an order, a URL), and drop it.",
        ),
        Remedy(
            "Unsupported opentelemetry-sdk internals",
            "Counts, sums, minimum and maximum are exact. After an outlier, the percentiles of a series lose "
            "precision permanently.",
            "Use a release that [this package is tested with](compatibility.md), or report the new one.",
        ),
    ),
    "Configuration": (
        Remedy(
            "No CloudWatch namespace is configured",
            "Metrics are sent to a namespace with the app's name.",
            'Pass `namespace="..."`, or set `CLOUDWATCH_NAMESPACE` or `OTEL_SERVICE_NAME`.',
        ),
        Remedy(
            "The default CloudWatch namespace is invalid",
            "Metrics are sent to the namespace that the message names.",
            'Pass `namespace="..."`, or choose a service or app name that is a valid namespace. It is logged at the '
            "first collection, because the meter provider's resource is not known earlier.",
        ),
        Remedy(
            "Unknown setting … is ignored",
            "The misspelled setting has no effect. The setting that was probably meant keeps its default.",
            "Correct the spelling. [Configuration](configuration.md) lists all settings.",
        ),
        Remedy(
            "Metric dropped: no CloudWatchMetricsReporter",
            "Metrics that are added on the class before a reporter exists are lost, and not counted.",
            "Call `init_app(app)` before the first `add_metric`, or call `add_metric` on a reporter.",
        ),
        Remedy(
            "Metrics are lost, because a CloudWatchMetricsReporter without an app",
            "Metrics are lost until the reporter can be set up, and counted as `not_set_up` in `measurements_lost`.",
            "Correct the setting that the message names.",
        ),
        Remedy(
            "A CloudWatch exporter was added to a meter provider",
            "Nothing is counted twice. Measurements since the reporter's last flush may be missing.",
            "Add the exporter before the reporter, or remove the exporter: the reporter publishes the same metrics.",
        ),
    ),
    "Spool": (
        Remedy(
            "The spool is full",
            "Nothing is lost yet: further metrics are kept in memory, and lost if the process ends before they are "
            "sent.",
            "Fix the delivery problem logged earlier.",
        ),
        Remedy(
            "Cannot read spooled metrics now",
            "Nothing is lost: they stay in the spool, and are sent when a file descriptor is free.",
            "Raise the open-file limit of the process (`ulimit -n`), or find out what keeps so many files open.",
        ),
        Remedy(
            "Cannot write metrics to the spool",
            "Nothing is lost yet: pending metrics are kept in memory, and lost if the process ends before they are "
            "sent.",
            "Check the free disk space, and the permission to write to the directory.",
        ),
        Remedy(
            "Cannot delete a batch from the spool",
            "It is in CloudWatch, and is counted twice if the next process sends the file.",
            "Give the process permission to delete files in the directory.",
        ),
        Remedy(
            "Cannot take over a batch spooled by an earlier process",
            "The batch stays in the spool for up to two weeks.",
            "Give the process permission to rename files in the directory. Run all processes that share "
            "it as one user.",
        ),
        Remedy(
            "… belongs to another user",
            "Its batches stay there for a process of that user; this process neither sends nor changes them.",
            "Run all processes that share a spool directory as one user. Delete the directory if it is not yours.",
        ),
        Remedy(
            "Cannot read the spool directory",
            "Batches of earlier processes stay there for up to two weeks. This process's own metrics are sent.",
            "Give the process permission to read the directory.",
        ),
        Remedy(
            "… is not a batch of metrics",
            "The file is not sent. Its metrics are counted as `unreadable` if this process wrote it.",
            "Make sure that nothing else writes to the spool directory. Delete the `.bad` file after inspecting it.",
        ),
        Remedy(
            "Cannot rename a file that is not a batch of metrics",
            "All other batches are sent. The next process will read the file again.",
            "Delete the file, and give the process permission to rename files in the directory.",
        ),
    ),
    "Errors in callbacks, and bugs": (
        Remedy(
            "CLOUDWATCH_LIVE_PAGE_CHECK raised",
            "Metrics are not affected. The page returns 404 for every request.",
            "Fix the function at the end of the traceback.",
        ),
        Remedy(
            "A callback passed to watch() failed",
            "Nothing is lost: delivery is not affected.",
            "Fix the callback passed to `watch()`, at the end of the traceback.",
        ),
        Remedy(
            "Recording or flushing metrics at the end of a request failed",
            "Metrics of that request may be lost. Its response is not affected.",
            "This is a bug: report it with the traceback.",
        ),
    ),
}
