"""What each message in the log means for the data, and what to do: found by how the message begins.

``tests/documentation/test_messages.py`` requires an entry for every log message.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Remedy:
    """The beginning of a message, what it means for what was measured, and what to do."""

    beginning: str
    data: str
    remedy: str


_NOTHING: Final = "Nothing."

SECTIONS: Final[dict[str, tuple[Remedy, ...]]] = {
    "Metrics do not get to CloudWatch": (
        Remedy(
            "Metrics cannot be sent, and are kept until they can.",
            "Nothing is lost yet. What was measured waits in the process, or in the spool, and is tried again.",
            "The message has it: credentials that may call `cloudwatch:PutMetricData`, or a Region. What boto3 or "
            "CloudWatch said stands in brackets. It is said once an outage.",
        ),
        Remedy(
            "Metrics could not be sent (",
            "Nothing is lost yet. Counts that wait are complete; only their time gets coarser if it takes long.",
            "Nothing, if it does not last. `throttled`: flush less often, see [operations](operations.md). `server`: "
            "wait. `network`: see whether the process reaches the endpoint. `unknown`: read the error. It is said once "
            "a minute.",
        ),
        Remedy("CloudWatch accepts metrics again;", "What waited is sent, oldest first.", _NOTHING),
        Remedy(
            "The backlog is full:",
            "The oldest datums are lost, and counted as `backlog_full`.",
            "Find the reason in an earlier message. To hold out longer, raise `MAX_BACKLOG_BYTES`, or set "
            "`SPOOL_DIRECTORY`.",
        ),
        Remedy(
            "… datum(s) are lost: they waited for two weeks",
            "They are lost, and counted as `expired`: CloudWatch takes nothing that is older.",
            "Find the reason in an earlier message.",
        ),
        Remedy(
            "CloudWatch refused a datum of",
            "This datum is lost, and counted as `refused`. All others of its request are sent without it.",
            "Fix what CloudWatch names. If nothing is wrong with the metric, it is a fault of this package: report it.",
        ),
        Remedy(
            "… datum(s) could not be sent before the exporter was shut down",
            "They are lost, and counted as `shutdown`.",
            "Find the reason in an earlier message. Where ends of processes meet outages, set `SPOOL_DIRECTORY`.",
        ),
        Remedy(
            "… datum(s) could not be sent, and are left in the spool",
            "Nothing is lost: the next process with this spool directory sends them, for up to two weeks.",
            "Find the reason in an earlier message. Keep the directory on a disk that outlives the process.",
        ),
        Remedy(
            "… datum(s) were sent, and CloudWatch has not answered yet",
            "They may be in CloudWatch, and are if its answer still comes. With a spool, the next process sends them "
            "again: then CloudWatch may have them twice.",
            "Nothing, if it happens once. Otherwise see what is slow between the process and CloudWatch.",
        ),
        Remedy(
            "Metrics exported after shutdown are lost",
            "They are lost, and counted as `shutdown`.",
            "Shut the exporter down last: after the reader, and after the threads that record.",
        ),
        Remedy(
            "Cannot start the reader's thread",
            'Nothing is lost: `flush()`, `flush="sync"` and the end of the process send what was recorded.',
            "Raise the limit of threads of the process (`ulimit -u`, or the container's limit of pids). Nothing if the "
            "program is at its end.",
        ),
        Remedy(
            "A fork hook failed",
            "Metrics of this child process may be lost or counted twice.",
            "Report it with the traceback.",
        ),
        Remedy(
            "Collecting metrics failed",
            "This collection is not sent. Counters and histograms keep adding up, and come with the next one.",
            "The traceback ends in the callback of an observable instrument, or in a view: mend that.",
        ),
    ),
    "A metric is not what it could be": (
        Remedy(
            "Lost a metric: …. It is counted as invalid",
            "This metric is lost, and counted as `invalid`. In debug mode and in tests `InvalidMetricError` is raised "
            "instead, with the same text.",
            "Change the call in the file and line that the message names, as it says.",
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
            "The traceback shows what the SDK raised: its histograms reject a few finite numbers.",
        ),
        Remedy(
            "Lost a data point of …: it has …, which CloudWatch does not accept",
            "This data point is lost, and counted as `invalid`. All others are sent.",
            "Do not record NaN, infinities, or magnitudes beyond 2^360. The reasons are listed "
            "[below](#data-points-that-cannot-be-sent).",
        ),
        Remedy(
            "Lost a data point of …: it could not be read",
            "This data point is lost, and counted as `invalid`. All others are sent.",
            "The traceback shows the reason: the fault is in this package or in its producer: report it.",
        ),
        Remedy(
            "Lost a data point of …: it could not be converted",
            "Data points that are merged into one are lost, and counted as one `invalid`. All others are sent.",
            "The traceback shows the reason: the fault is in this package or in its producer: report it.",
        ),
        Remedy(
            "CloudWatch has no equivalent of the unit",
            "The numbers are right. The metric has the unit None.",
            "Give the instrument a UCUM unit that [the table of units](mapping.md#units) has.",
        ),
        Remedy(
            "… has … attributes, but CloudWatch allows 30 dimensions",
            "The numbers are right. The metric has fewer dimensions than the instrument has attributes.",
            "Name the attributes to keep in a rule: `MetricRule(dimensions=[...])`.",
        ),
        Remedy(
            "… has more dimension combinations than max_metrics",
            "The totals are right. New combinations of dimensions are published together, as "
            "`otel.metric.overflow=true`.",
            "See which dimension has so many values, and drop it with a rule. Raise `MAX_METRICS` only if you want to "
            "pay for each of them.",
        ),
        Remedy(
            "More than … metrics have overflow series",
            "Nothing is lost. But what such combinations brought is published together, as the metric "
            "`otel.metric.overflow`, and cannot be told apart any more.",
            "See which part of a name has so many values (a user, an order, a URL), and make it a dimension. Raise "
            "`MAX_METRICS` only if you want to pay for each of them.",
        ),
        Remedy(
            "add_metric has recorded … dimension combinations, the maximum: … and further new metrics",
            "Nothing is lost, but new metric names are recorded together, as the metric `otel.metric.overflow`.",
            "Find the part of the name that varies (a user, an order, a URL), and make it a dimension.",
        ),
        Remedy(
            "add_metric has recorded … dimension combinations, the maximum: further ones",
            "Totals are correct. New dimension combinations are recorded together, as `otel.metric.overflow=true`.",
            "Find the dimension with many values (a user, an order, a URL), and drop it.",
        ),
        Remedy(
            "Unsupported opentelemetry-sdk internals",
            "Counts, sums, minimum and maximum are exact. Percentiles of a series stay coarse after an outlier.",
            "Use a release that [this package is tested with](compatibility.md), or report the new one.",
        ),
    ),
    "The setup is not what was meant": (
        Remedy(
            "No CloudWatch namespace is configured",
            "Metrics are sent to a namespace with the app's name.",
            'Pass `namespace="..."`, or set `CLOUDWATCH_NAMESPACE` or `OTEL_SERVICE_NAME`.',
        ),
        Remedy(
            "Using the CloudWatch namespace",
            "Metrics are sent to the namespace that the message names.",
            'Pass `namespace="..."`, or choose a service or app name that is a valid namespace. It is logged at the '
            "first collection, because the meter provider's resource is not known earlier.",
        ),
        Remedy(
            "Unknown setting … is ignored",
            "Metrics are sent with the default of the setting that was probably meant.",
            "Correct the spelling. [Configuration](configuration.md) lists all settings.",
        ),
        Remedy(
            "Metric dropped: no CloudWatchMetricsReporter",
            "Metrics added before the first `init_app` are lost, and not counted.",
            "Call `init_app(app)`, or create the reporter with the app, before the first `add_metric`.",
        ),
        Remedy(
            "A CloudWatch exporter was added to a meter provider",
            "Nothing is counted twice. Measurements since the reporter's last flush may be missing.",
            "Add the exporter before the reporter, or remove it: the reporter publishes the same metrics.",
        ),
    ),
    "The spool": (
        Remedy(
            "The spool holds … bytes",
            "Nothing is lost yet: further metrics wait in memory, and are lost if the process ends before they are "
            "sent.",
            "Find in an earlier message why CloudWatch does not take them.",
        ),
        Remedy(
            "Cannot open the spool",
            "Nothing is lost yet: pending metrics are in memory, and lost if the process ends before they are sent.",
            "Give the forked process the right to write to `spool_directory`, and free disk space.",
        ),
        Remedy(
            "Metrics cannot be spooled",
            "Nothing is lost yet: they wait in memory, and are lost if the process ends before they are sent.",
            "See to the room on the disk, and to the right to write to the directory.",
        ),
        Remedy(
            "A spooled batch cannot be removed",
            "It is in CloudWatch, and will be there twice if the next process finds the file.",
            "See to the right to delete files in the directory.",
        ),
        Remedy(
            "A spooled batch of an earlier process cannot be adopted",
            "What a process left there waits, for up to two weeks.",
            "See to the right to rename files in the directory: all processes that share it must be of one user.",
        ),
        Remedy(
            "… belongs to another user",
            "What is in it waits for a process of that user; this process neither sends nor changes it.",
            "Run what shares a spool directory as one user; delete the directory if nobody of yours has made it.",
        ),
        Remedy(
            "The spool directory cannot be read",
            "What other processes left there waits, for up to two weeks. This process's own metrics are sent.",
            "See to the right to read the directory.",
        ),
        Remedy(
            "… is not a batch of metrics",
            "What the file held is lost, and counted as `unreadable` if this process has written it.",
            "Nothing else should write to the spool directory. Delete the `.bad` file if you do not want to look at "
            "it.",
        ),
        Remedy(
            "A file that is not a batch of metrics cannot be renamed",
            "Other batches are sent. The file is met again by the next process.",
            "Delete it, and see to the right to rename files in the directory.",
        ),
    ),
    "Faults of a program, or of this package": (
        Remedy(
            "CLOUDWATCH_LIVE_PAGE_CHECK raised",
            "Nothing is lost: metrics are sent as before. The page answers 404 to every request.",
            "Fix the function that the traceback ends in.",
        ),
        Remedy(
            "A callback passed to watch() failed",
            "Nothing is lost: the metrics are in CloudWatch.",
            "The traceback ends in the callable that was given to `watch()`: mend that.",
        ),
        Remedy(
            "Recording or flushing metrics at the end of a request failed",
            "Metrics of that request may be lost. Its response is not affected.",
            "This is a bug of this package: report it with the traceback.",
        ),
    ),
}
