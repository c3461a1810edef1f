import contextlib
import json
import subprocess
import sys
import threading
from datetime import datetime, timezone
from decimal import Decimal
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from otel_cloudwatch_flask.delivery.stats import DeliveryStats
from otel_cloudwatch_flask.model.dimensions import dimensions
from otel_cloudwatch_flask.observation.tally import percentiles
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch, PublishedMetric, client_error


def datum(name: str, value: float, **dimensions: str) -> dict[str, Any]:
    """Return a datum with one value."""
    pairs = [{"Name": key, "Value": text} for key, text in dimensions.items()]
    return {"MetricName": name, "Value": value, "Dimensions": pairs, "Unit": "Count"}


@pytest.fixture
def cloudwatch() -> FakeCloudWatch:
    """A fake to which a datum of every form was published."""
    fake = FakeCloudWatch()
    fake.put_metric_data(
        Namespace="Shop",
        MetricData=[
            datum("Orders", 1),
            datum("Orders", 2, Page="Index"),
            datum("Orders", 4, Page="Index", Method="GET"),
            datum("Orders", 8, Page="Cart"),
            {"MetricName": "Latency", "Values": [5, 10.0, 20], "Counts": [1, 98, 1], "Unit": "Milliseconds"},
            {"MetricName": "Size", "StatisticValues": {"SampleCount": 3, "Sum": 9, "Minimum": 1, "Maximum": 6}},
            {"MetricName": "Same", "StatisticValues": {"SampleCount": 3, "Sum": 6, "Minimum": 2, "Maximum": 2}},
        ],
    )
    return fake


def test_dimensions_choose_the_series(cloudwatch: FakeCloudWatch) -> None:
    """A lookup without dimensions covers all series; an empty mapping selects the series without dimensions."""
    assert cloudwatch.sum("Orders") == 15
    assert cloudwatch.sum("Orders", {}) == 1
    assert cloudwatch.sum("Orders", Page="Index") == 2
    assert cloudwatch.sum("Orders", dimensions={"Method": "GET"}, Page="Index") == 4
    assert cloudwatch.sum("Orders", dimensions={"Method": "GET"}) == 0
    assert cloudwatch.sum("Orders", Page="Search") == 0


def test_dimensions_that_are_not_strings() -> None:
    """Lookups accept the values that the program passed, and convert them as the exporter does."""
    fake, attributes = FakeCloudWatch(), {"Cached": True, "Depth": 2, "Ratio": 0.5, "Tags": ["a", "b"], "User": None}
    fake.put_metric_data(Namespace="Shop", MetricData=[datum("Hits", 3, **dict(dimensions(attributes)))])
    assert fake.sum("Hits", attributes) == fake.where(Cached=True).sum("Hits") == 3
    fake.assert_published("Hits", attributes, count=1)


def test_some_of_the_dimensions(cloudwatch: FakeCloudWatch) -> None:
    """``where()`` restricts lookups to the metrics with certain dimensions."""
    found = cloudwatch.where(Page="Index")
    assert (found.sum("Orders"), found.sum("Orders", Page="Index")) == (6, 2)
    assert found.where({"Method": "GET"}).maximum("Orders") == 4
    assert cloudwatch.where(Page="Search").count("Orders") == 0
    assert cloudwatch.where().datums == cloudwatch.datums


def test_statistics_of_each_form(cloudwatch: FakeCloudWatch) -> None:
    """Statistics of values with counts and of statistic sets are found like those of single values."""
    assert (cloudwatch.sum("Latency"), cloudwatch.count("Latency")) == (1005, 100)
    assert (cloudwatch.minimum("Latency"), cloudwatch.maximum("Latency")) == (5, 20)
    assert cloudwatch.values("Latency") == {5: 1, 10: 98, 20: 1}
    assert (cloudwatch.sum("Size"), cloudwatch.count("Size")) == (9, 3)
    assert (cloudwatch.minimum("Size"), cloudwatch.maximum("Size")) == (1, 6)
    assert cloudwatch.values("Size") == {}
    assert cloudwatch.values("Same") == {2: 3}


@pytest.mark.parametrize(("percent", "value"), [(0, 5), (1, 5), (1.1, 10), (50, 10), (99, 10), (99.01, 20), (100, 20)])
def test_percentile(cloudwatch: FakeCloudWatch, percent: float, value: float) -> None:
    """Percentiles are by nearest rank, weighted by counts."""
    assert cloudwatch.percentile("Latency", percent) == value


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=200),
    st.sampled_from([0, 0.1, 12.5, 25, 50, 66.6, 90, 95, 99, 99.9, 100]),
)
def test_nearest_rank(samples: list[int], percent: float) -> None:
    """The nearest rank is the smallest sample for which at least that share of the samples is not larger."""
    (rank,) = percentiles(sorted(samples), [1] * len(samples), [percent])
    not_above = sum(sample <= rank for sample in samples)
    below = sum(sample < rank for sample in samples)
    assert not_above * 1000 >= round(percent * 10) * len(samples)
    assert below * 1000 < round(percent * 10) * len(samples) or rank == min(samples)


@pytest.mark.parametrize("percent", [-1, 100.1, inf])
def test_percentile_out_of_range(cloudwatch: FakeCloudWatch, percent: float) -> None:
    """A percentile outside the range from 0 to 100 raises an error."""
    with pytest.raises(ValueError, match="from 0 to 100"):
        cloudwatch.percentile("Latency", percent)


def test_percentile_of_statistic_sets(cloudwatch: FakeCloudWatch) -> None:
    """As in CloudWatch, statistic sets have no percentiles unless all samples are equal."""
    assert cloudwatch.percentile("Same", 50) == 2
    with pytest.raises(LookupError, match="statistic sets"):
        cloudwatch.percentile("Size", 50)


def test_never_published(cloudwatch: FakeCloudWatch) -> None:
    """A metric that was never published has count 0; its minimum raises an error that lists the published metrics."""
    assert cloudwatch.sum("Orderz") == cloudwatch.count("Orderz") == 0
    for look_up in (cloudwatch.minimum, cloudwatch.maximum, lambda name: cloudwatch.percentile(name, 50)):
        with pytest.raises(
            LookupError, match=r"Orderz[^{]+\n  Shop: Orders \{\} in Count: sum 1, count 1\n  .*\{Page=Index\}"
        ):
            look_up("Orderz")
    with pytest.raises(LookupError, match="nothing"):
        FakeCloudWatch().minimum("Orders")


def test_namespaces(cloudwatch: FakeCloudWatch) -> None:
    """Lookups can be restricted to a namespace."""
    cloudwatch.put_metric_data(Namespace="Other", MetricData=[datum("Orders", 100)])
    assert cloudwatch.sum("Orders", {}) == 101
    assert cloudwatch.sum("Orders", {}, namespace="Shop") == 1


def test_metrics_are_distinct(cloudwatch: FakeCloudWatch) -> None:
    """A metric published twice is one metric, whatever the order of its dimensions."""
    cloudwatch.put_metric_data(Namespace="Shop", MetricData=[datum("Orders", 4, Method="GET", Page="Index")])
    orders = [metric for metric in cloudwatch.metrics() if metric.name == "Orders"]
    assert len(orders) == 4
    assert PublishedMetric("Shop", "Orders", (("Method", "GET"), ("Page", "Index")), "Count") in orders
    assert cloudwatch.metrics()[-1].unit == "None"


def test_what_was_sent(cloudwatch: FakeCloudWatch) -> None:
    """Requests and datums are stored as they were sent; later changes by the sender have no effect."""
    data = [datum("Late", 1)]
    cloudwatch.put_metric_data(Namespace="Shop", MetricData=data)
    data[0]["Value"] = 2
    assert len(cloudwatch.requests) == 2
    assert cloudwatch.datums[-1] == datum("Late", 1)
    cloudwatch.clear()
    assert (len(cloudwatch.requests), len(cloudwatch.datums), len(cloudwatch.metrics())) == (0, 0, 0)


@pytest.mark.parametrize("text", ["NaN", "Infinity"])
def test_decimals_that_are_no_numbers(text: str) -> None:
    """Boto3 accepts decimals, even if they are no numbers, so the fake rejects them as CloudWatch does."""
    fake = FakeCloudWatch()
    with pytest.raises(ClientError, match=r"parameter MetricData\.member\.1\.Value is invalid"):
        fake.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": Decimal(text)}])


def test_datums_of_entities() -> None:
    """Datums with an entity are published like other datums."""
    fake = FakeCloudWatch()
    fake.put_metric_data(Namespace="Shop", EntityMetricData=[{"Entity": {}, "MetricData": [datum("Orders", 3)]}])
    assert fake.sum("Orders") == 3


def test_rejected_requests_store_nothing() -> None:
    """If one datum of a request is invalid, botocore's error is raised, and none of the datums is stored."""
    fake = FakeCloudWatch()
    with pytest.raises(ClientError) as caught:
        fake.put_metric_data(Namespace="Shop", MetricData=[datum("Orders", 1), datum("Orders", inf)])
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValue"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert caught.value.operation_name == "PutMetricData"
    assert fake.datums == []
    assert [error.code for error in fake.validation_errors] == ["InvalidParameterValue"]


@pytest.mark.parametrize(("size_bytes", "accepted"), [(1_000_000, 1000), (1_000_001, 0)])
def test_size(size_bytes: int, accepted: int) -> None:
    """A request over 1 MB, in botocore's encoding, is rejected with status 413."""
    fake = FakeCloudWatch()
    moment = datetime.now(timezone.utc)
    data = [{**datum("Orders", 1, Page="v" * 800), "Timestamp": moment} for _ in range(1000)]
    written = len(json.dumps({"Namespace": "Shop", "MetricData": data}, default=lambda moment: int(moment.timestamp())))
    for number in range(size_bytes - written):
        data[number % 1000]["Dimensions"][0]["Value"] += "v"
    with contextlib.suppress(ClientError):
        fake.put_metric_data(Namespace="Shop", MetricData=data)
    assert [error.status for error in fake.validation_errors] == [413] * (not accepted)
    assert len(fake.datums) == accepted


def test_faults() -> None:
    """Queued errors are raised in order, and these requests are not stored; then the client works again."""
    fake = FakeCloudWatch()
    fake.fail_next(client_error("ThrottlingException", "Rate exceeded"), times=2)
    fake.fail_next(EndpointConnectionError(endpoint_url="https://monitoring.invalid"))
    for error in (ClientError, ClientError, EndpointConnectionError):
        with pytest.raises(error):
            fake.put_metric_data(Namespace="Shop", MetricData=[datum("Orders", 1)])
    assert fake.datums == []
    fake.put_metric_data(Namespace="Shop", MetricData=[datum("Orders", 1)])
    assert fake.sum("Orders") == 1


def test_latency() -> None:
    """Each request takes the configured time, which can be changed later."""
    slept: list[float] = []
    fake = FakeCloudWatch(latency_seconds=0.5, sleep=slept.append)
    fake.put_metric_data(Namespace="Shop", MetricData=[datum("Orders", 1)])
    fake.latency_seconds = 0
    fake.put_metric_data(Namespace="Shop", MetricData=[datum("Orders", 1)])
    assert slept == [0.5]


def test_times() -> None:
    """A datum without a timestamp gets its time of arrival; the fake's clock decides which timestamps are too old."""
    fake = FakeCloudWatch(clock=lambda: 1_800_000_000.0)
    fake.put_metric_data(Namespace="Shop", MetricData=[datum("a", 1), {**datum("b", 1), "Timestamp": 1_799_999_940}])
    assert [accepted.unix_time for accepted in fake.accepted] == [1_800_000_000, 1_799_999_940]
    with pytest.raises(ClientError, match="past two weeks"):
        fake.put_metric_data(Namespace="Shop", MetricData=[{**datum("a", 1), "Timestamp": 1_700_000_000}])


def test_threads() -> None:
    """Requests from many threads are all stored."""
    fake = FakeCloudWatch()

    def publish() -> None:
        for _ in range(50):
            fake.put_metric_data(Namespace="Shop", MetricData=[datum("Orders", 1)])

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fake.sum("Orders") == fake.count("Orders") == 400


def test_import_is_light() -> None:
    """Importing the fake imports neither boto3 nor botocore."""
    program = (
        "import sys, otel_cloudwatch_flask.testing.published, otel_cloudwatch_flask.testing.request_rules as rules\n"
    )
    program += "rules.validation_error({}, now=0)\n"
    program += "print([name for name in sys.modules if name.startswith('boto')])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "expected", "problem"),
    [
        ("Orders", {"Page": "Index", "sum": 2, "count": 1}, None),
        ("Orders", {"sum": 15, "minimum": 1, "maximum": 8}, None),
        ("Latency", {"sum": pytest.approx(1005.0001)}, None),
        ("Latency", {"minimum": 6}, r"Latency has minimum 5, not 6\. .*\n  Shop: Latency"),
        ("Orders", {"Page": "Index", "sum": 3}, r"Orders \{Page=Index\} has sum 2, not 3\."),
        ("Orders", {"dimensions": {"Page": "Home"}}, r"Orders \{Page=Home\} was not published\."),
        (
            "latencies",
            {},
            r"latencies was not published\. Published metrics:\n  Shop: Latency .*: sum 1005, count 100",
        ),
        ("Orders", {"namespace": "Other"}, r"Orders was not published"),
    ],
)
def test_assert_published(cloudwatch: FakeCloudWatch, name: str, expected: dict[str, Any], problem: str | None) -> None:
    """The assertion passes, or its message shows the difference and the published metrics, the most similar first."""
    with pytest.raises(AssertionError, match=problem) if problem else contextlib.nullcontext():
        cloudwatch.assert_published(name, **expected)


def test_assert_no_losses(cloudwatch: FakeCloudWatch) -> None:
    """Rejected requests count as losses, and so do lost and pending datums of a reporter or exporter."""

    def publisher(**stats: Any) -> SimpleNamespace:
        return SimpleNamespace(stats=lambda: DeliveryStats(**stats))

    cloudwatch.assert_no_losses(publisher(datums_sent=5))
    with pytest.raises(
        AssertionError, match=r"2 data point.* lost: invalid; 3 data point.* not sent yet .*: no Region"
    ):
        cloudwatch.assert_no_losses(publisher(datums_lost={"invalid": 2}, datums_pending=3, last_error="no Region"))
    with pytest.raises(ClientError):
        cloudwatch.put_metric_data(Namespace="Shop", MetricData=[datum("Orders", inf)])
    with pytest.raises(AssertionError, match="rejected with InvalidParameterValue: The value Infinity"):
        cloudwatch.assert_no_losses()
    assert cloudwatch.report().endswith("for parameter MetricData.member.1.Value is invalid.")


def test_healing(cloudwatch: FakeCloudWatch) -> None:
    """Queued errors and latency can be reset."""
    cloudwatch.fail_next(client_error("ThrottlingException"), times=1000)
    cloudwatch.latency_seconds = 1000
    cloudwatch.heal()
    cloudwatch.put_metric_data(Namespace="Shop", MetricData=[datum("Orders", 1)])
    assert cloudwatch.sum("Orders") == 16


def test_a_long_list_is_cut() -> None:
    """With thousands of published metrics, the message stays readable."""
    fake = FakeCloudWatch()
    fake.put_metric_data(Namespace="Shop", MetricData=[datum(f"Metric{number}", 1) for number in range(60)])
    with pytest.raises(AssertionError, match=r"\n  Shop: Metric59 .*(\n.*){49}\n  and 10 more metrics$"):
        fake.assert_published("Metric 59", sum=2)
