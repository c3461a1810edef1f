"""What each message in the log means for the data, and what to do: found by how the message begins.

What a message does not say itself is said here. ``tests/documentation/test_messages.py`` sees to it that every message has its line.
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
        Remedy("CloudWatch takes metrics again;", "What waited is sent, oldest first.", _NOTHING),
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
            "Mend what CloudWatch names. If nothing is wrong with the metric, it is a fault of this package: report "
            "it.",
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
            "A fork or exit hook failed",
            "Metrics of this process may be lost or counted twice.",
            "Report it with the traceback.",
        ),
        Remedy(
            "Metrics could not be collected before the shutdown",
            "Those recorded since the last flush are lost; the measurements of `add_metric` are counted as `shutdown`.",
            "Find the callback of an observable instrument that hangs or raises, and give it a timeout.",
        ),
        Remedy(
            "Collecting metrics failed",
            "This collection is not sent. Counters and histograms keep adding up, and come with the next one.",
            "The traceback ends in the callback of an observable instrument, or in a view: mend that.",
        ),
    ),
    "A metric is not what it could be": (
        Remedy(
            "… (it is lost, and counted as invalid",
            "This metric is lost, and counted as `invalid`. In debug mode and in tests the same text is raised as "
            "`InvalidMetricError`.",
            "The message says what to write instead, and in which file and line.",
        ),
        Remedy(
            "A metric could not be read",
            "This metric is lost, and counted as `invalid`.",
            "What was given to `add_metric` raised when it was looked at; the traceback has where. Give it plain texts "
            "and numbers.",
        ),
        Remedy(
            "OpenTelemetry did not take",
            "This metric is lost, and counted as `invalid`.",
            "The traceback has what the SDK raised. There are a few finite numbers that its histograms do not take.",
        ),
        Remedy(
            "A data point of … has …: CloudWatch takes no such number",
            "This data point is lost, and counted as `invalid`. All others are sent.",
            "Do not record NaN, infinities, or magnitudes beyond 2^360. The reasons are listed "
            "[below](#data-points-that-cannot-be-sent).",
        ),
        Remedy(
            "A data point of … could not be read",
            "This data point is lost, and counted as `invalid`. All others are sent.",
            "The traceback has the reason. It is a fault of this package, or of what made the data point: report it.",
        ),
        Remedy(
            "A datum of … could not be made",
            "What several data points were to become together is lost, and counted as `invalid`. All others are sent.",
            "The traceback has the reason. It is a fault of this package, or of what made the data points: report it.",
        ),
        Remedy(
            "CloudWatch has no unit for",
            "The numbers are right. The metric has the unit None.",
            "Give the instrument a UCUM unit that [the table of units](mapping.md#units) has.",
        ),
        Remedy(
            "… has … attributes, CloudWatch takes 30 dimensions",
            "The numbers are right. The metric has fewer dimensions than the instrument has attributes.",
            "Name the attributes to keep in a rule: `MetricRule(dimensions=[...])`.",
        ),
        Remedy(
            "… has more combinations of dimensions than max_metrics",
            "The totals are right. New combinations of dimensions are published together, as "
            "`otel.metric.overflow=true`.",
            "See which dimension has so many values, and drop it with a rule. Raise `MAX_METRICS` only if you want to "
            "pay for each of them.",
        ),
        Remedy(
            "More than … metrics have combinations of dimensions",
            "Nothing is lost. But what such combinations brought is published together, as the metric "
            "`otel.metric.overflow`, and cannot be told apart any more.",
            "See which part of a name has so many values (a user, an order, a URL), and make it a dimension. Raise "
            "`MAX_METRICS` only if you want to pay for each of them.",
        ),
        Remedy(
            "add_metric was given … sets of dimensions: … and whatever other names",
            "Nothing is lost. But what new names brought is recorded together, as the metric `otel.metric.overflow`.",
            "See which part of a name has so many values (a user, an order, a URL), and make it a dimension.",
        ),
        Remedy(
            "add_metric was given … sets of dimensions: further ones",
            "The totals are right. New combinations of dimensions are recorded together, as "
            "`otel.metric.overflow=true`.",
            "See which dimension has so many values (a user, an order, a URL), and leave it out.",
        ),
        Remedy(
            "Unsupported opentelemetry-sdk internals",
            "Counts, sums, minimum and maximum are exact. Percentiles of a series stay coarse after an outlier.",
            "Use a release that [this package is tested with](compatibility.md), or report the new one.",
        ),
    ),
    "The setup is not what was meant": (
        Remedy(
            "No CloudWatch namespace is set",
            "Metrics are sent, to a namespace that is named like the app.",
            'Give `namespace="..."`, or set `CLOUDWATCH_NAMESPACE` or `OTEL_SERVICE_NAME`.',
        ),
        Remedy(
            "Metrics are published in the namespace",
            "Metrics are sent, to the namespace that the message names first.",
            'Give `namespace="..."`, or give the service or the app a name that can be a namespace. A meter provider '
            "shows its resource only with its first collection, so this is said then.",
        ),
        Remedy(
            "… is no setting of otel_cloudwatch_flask",
            "Metrics are sent, with the default of what was meant.",
            "Write the key as the message does. [Configuration](configuration.md) has all of them.",
        ),
        Remedy(
            "Metrics are dropped: no CloudWatchMetricsReporter",
            "What is added before a reporter serves an app is lost, and counted nowhere.",
            "Call `init_app(app)`, or make the reporter with the app, before the first `add_metric`.",
        ),
        Remedy(
            "A CloudWatch exporter was added to a meter provider",
            "Nothing is counted twice. What was measured between the reporter's last flush and now may be missing.",
            "Add the exporter before the reporter, or leave it out: the reporter publishes the same metrics.",
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
            "Nothing is lost yet: metrics are pending in memory, and lost if the process ends before they are sent.",
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
            "A spooled batch cannot be taken over",
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
            "… is no batch of metrics",
            "What the file held is lost, and counted as `unreadable` if this process has written it.",
            "Nothing else should write to the spool directory. Delete the `.bad` file if you do not want to look at "
            "it.",
        ),
        Remedy(
            "A file that is no batch of metrics cannot be set aside",
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
            "The end of a request was not recorded",
            "Metrics of that request may be lost. Its response is not touched.",
            "It is a fault of this package: report it, with the traceback.",
        ),
    ),
}
