"""``doctor --audit`` compares the live page of an app with a local CloudWatch that has stored its metrics."""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.commands.doctor_checks.audit import Recorded, audit_checks
from otel_cloudwatch_flask.commands.doctor_checks.aws import Target
from otel_cloudwatch_flask.commands.doctor_checks.check import Check
from otel_cloudwatch_flask.commands.shared.command import CommandError
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.support.command_runs import run


@pytest.fixture
def cloudwatch() -> Iterator[LocalCloudWatch]:
    """A running CloudWatch emulator."""
    with LocalCloudWatch() as cloudwatch:
        yield cloudwatch


@pytest.fixture
def data(cloudwatch: LocalCloudWatch, tmp_path: Path) -> Path:
    """A file with the live page's data of an app that has published three samples."""
    app = Flask("shop")
    app.debug = True
    provider = MeterProvider(shutdown_on_exit=False)
    client: Any = cloudwatch.client()
    reporter = CloudWatchMetricsReporter(app, "Shop", client, meter_provider=provider)
    for page in "abb":
        reporter.add_metric("Views", 1, "Count", {"Page": page})
    assert reporter.flush()
    path = tmp_path / "data.json"
    path.write_text(app.test_client().get("/_cloudwatch/data.json").text, "utf-8")
    reporter.shutdown()
    return path


def saved(document: dict[str, Any], path: Path) -> str:
    """Write this document to the file, and return the file's path."""
    path.write_text(json.dumps(document), "utf-8")
    return str(path)


def audited(document: dict[str, Any], client: Any, path: Path) -> list[Check]:
    """Run the audit on a file with this document."""
    return [*audit_checks(Target(client), Recorded.read(saved(document, path)))]


def test_everything_delivered_is_in_cloudwatch(data: Path, cloudwatch: LocalCloudWatch) -> None:
    """The command reports that the totals agree; without usage metrics, the share of the quota is unknown."""
    ended = run("doctor", "--audit", str(data), "--json", environment=cloudwatch.environment())
    totals, quota = (check for check in json.loads(ended.stdout)["checks"] if check["section"] == "Audit")
    assert totals["status"] == "ok"
    assert totals["finding"] == (
        "3 samples of 2 metrics were recorded: 3 delivered, 0 pending or lost. CloudWatch has 3, including those of "
        "other processes."
    )
    assert quota["finding"] == "CloudWatch has no usage metrics for PutMetricData in this Region."


def test_missing_samples_and_other_metrics(data: Path, cloudwatch: LocalCloudWatch) -> None:
    """A metric with fewer samples than were delivered is a problem; pending and lost samples are not missing."""
    document = json.loads(data.read_text("utf-8"))
    first, second = sorted(document["series"], key=lambda each: each["samples"])
    first.update(samples=5.0, undelivered=1.0)
    second.update(samples=4.0, undelivered=2.0)
    cloudwatch.client().put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Old", "Value": 1.0}])
    checks = audited(document, cloudwatch.client(), data)
    assert [(each.status, each.finding) for each in checks[1:3]] == [
        ("problem", "Views {Page=a}: 4 samples were delivered, but CloudWatch has 1."),
        ("unknown", "The namespace has 1 other metric: Old."),
    ]


class UsageClient:
    """A client whose account made 18,000 calls of PutMetricData per minute in the last hour."""

    def get_paginator(self, operation: str) -> "UsageClient":
        """Store the operation, and return this client."""
        self.operation = operation
        return self

    def paginate(self, **parameters: Any) -> Iterable[dict[str, Any]]:
        """Return the only page of the response."""
        if self.operation == "list_metrics":
            return [{"Metrics": []}]
        queries = parameters["MetricDataQueries"]
        self.periods = {query["MetricStat"]["Period"] for query in queries}
        (period,), seconds = self.periods, (parameters["EndTime"] - parameters["StartTime"]).total_seconds()
        assert len(queries) * seconds / period <= 100_800
        assert parameters["StartTime"].timestamp() % period == 0
        return [{"MetricDataResults": [{"Id": query["Id"], "Values": [18_000.0] * 60} for query in queries]}]


def test_share_of_the_quota_and_a_long_run(data: Path) -> None:
    """The share of the quota is an average over an hour; queries about a long run stay within CloudWatch's limit."""
    document = json.loads(data.read_text("utf-8"))
    document["started"] -= 14 * 24 * 3600
    document["series"] *= 20
    *_, quota = audited(document, UsageClient(), data)
    expected = "The account called PutMetricData 1,080,000 times in the last hour: 60.0% of the default quota."
    assert (quota.status, quota.finding) == ("ok", expected)


@pytest.mark.parametrize(("days", "period"), [(13, 60), (20, 300), (62.5, 3600), (400, 3600)])
def test_a_process_that_is_older_than_data_by_the_minute(data: Path, days: float, period: int) -> None:
    """CloudWatch keeps data by the minute for 15 days, so older data is queried with longer periods."""
    document = json.loads(data.read_text("utf-8"))
    document["started"] -= days * 24 * 3600
    client = UsageClient()
    checks = audit_checks(Target(client), Recorded.read(saved(document, data)))
    next(checks)
    assert client.periods == {period}


def test_a_clock_that_was_set_back(data: Path, cloudwatch: LocalCloudWatch) -> None:
    """The samples of a process that started later than now, according to its clock, are found in CloudWatch."""
    document = json.loads(data.read_text("utf-8"))
    for seconds in (30, 90, 3600):
        totals, _ = audited({**document, "started": document["now"] + seconds}, cloudwatch.client(), data)
        assert totals.status == "ok"
        assert "CloudWatch has 3," in totals.finding


def test_a_failing_call_and_a_document_without_undelivered_samples(data: Path, cloudwatch: LocalCloudWatch) -> None:
    """A failing call is a problem with a remedy; the output of other commands is rejected."""
    client = cloudwatch.client()
    cloudwatch.stop()
    (check,) = audited(json.loads(data.read_text("utf-8")), client, data)
    assert check.status == "problem"
    assert check.finding.startswith("Cannot read metrics from CloudWatch: ")
    for document in (
        {"series": [], "started": "now"},
        {"series": [], "started": 1.0},
        {"series": [], "started": math.nan, "now": 1.0},
        {"series": [], "started": 1.0, "now": 10**400},
    ):
        with pytest.raises(CommandError, match=r"Pass a live page's data\.json, as a file"):
            Recorded.read(saved(document, data))
