import gzip
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from math import inf, nan
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from otel_cloudwatch_flask.testing.local.server import Fault, LocalCloudWatch

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

NO_RETRIES = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20)
INDEX: list[Any] = [{"Name": "Page", "Value": "Index"}, {"Name": "Method", "Value": "GET"}]
JSON_HEADERS = {
    "Content-Type": "application/x-amz-json-1.0",
    "X-Amz-Target": "GraniteServiceVersion20100801.PutMetricData",
}
FORM_HEADERS = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


@pytest.fixture
def cloudwatch() -> Iterator[LocalCloudWatch]:
    """A running CloudWatch emulator."""
    with LocalCloudWatch() as local:
        yield local


@pytest.fixture
def client(cloudwatch: LocalCloudWatch) -> "Iterator[CloudWatchClient]":
    """A boto3 client for the emulator, without retries."""
    client = cloudwatch.client(config=NO_RETRIES)
    yield client
    client.close()


ALL: Any = ["Sum", "SampleCount", "Minimum", "Maximum", "Average"]


def statistics(client: "CloudWatchClient", name: str, **asked: Any) -> list[Any]:
    """Return the data points from half an hour ago to half an hour ahead, in periods of a day."""
    if "ExtendedStatistics" not in asked:
        asked.setdefault("Statistics", ALL)
    now = datetime.now(timezone.utc)
    asked.setdefault("Period", 86400)
    found = client.get_metric_statistics(
        Namespace="Shop",
        MetricName=name,
        StartTime=now - timedelta(minutes=30),
        EndTime=now + timedelta(minutes=30),
        **asked,
    )
    return list(found["Datapoints"])


def post(cloudwatch: LocalCloudWatch, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
    """Send a request that no SDK would send, and return the status, headers and body of the response."""
    connection = http.client.HTTPConnection(cloudwatch.endpoint_url.removeprefix("http://"), timeout=20)
    credential = "AWS4-HMAC-SHA256 Credential=testing/20270115/us-east-1/monitoring/aws4_request, Signature=0"
    connection.request("POST", "/", body, {"Authorization": credential, **headers})
    response = connection.getresponse()
    answer = response.status, dict(response.getheaders()), response.read().decode()
    connection.close()
    return answer


def test_published_metrics_come_back(client: "CloudWatchClient") -> None:
    """Datums of every form are found by their exact dimensions."""
    client.put_metric_data(
        Namespace="Shop",
        MetricData=[
            {"MetricName": "Orders", "Value": 2, "Unit": "Count", "Dimensions": INDEX},
            {"MetricName": "Orders", "Value": 3, "Unit": "Count", "Dimensions": INDEX[::-1]},
            {"MetricName": "Orders", "Value": 100, "Unit": "Count"},
            {"MetricName": "Latency", "Values": [10, 20], "Counts": [3, 1], "Unit": "Milliseconds"},
            {
                "MetricName": "Latency",
                "StatisticValues": {"SampleCount": 2, "Sum": 50, "Minimum": 5, "Maximum": 45},
                "Unit": "Milliseconds",
            },
        ],
    )
    (orders,) = statistics(client, "Orders", Dimensions=INDEX)
    assert (orders["Sum"], orders["SampleCount"], orders["Average"], orders["Unit"]) == (5, 2, 2.5, "Count")
    (orders,) = statistics(client, "Orders")
    assert orders["Sum"] == 100
    assert statistics(client, "Orders", Dimensions=INDEX[:1]) == []
    (latency,) = statistics(client, "Latency")
    assert (latency["Sum"], latency["SampleCount"], latency["Minimum"], latency["Maximum"]) == (100, 6, 5, 45)


def test_what_is_not_supported(cloudwatch: LocalCloudWatch, client: "CloudWatchClient") -> None:
    """Metric math and other operations are rejected."""
    asked: Any = {"StartTime": 1, "EndTime": 2, "MetricDataQueries": [{"Id": "b", "Expression": "a"}]}
    with pytest.raises(ClientError, match="does not support metric math"):
        client.get_metric_data(**asked)
    with pytest.raises(ClientError, match="does not support DescribeAlarms"):
        client.describe_alarms()
    assert cloudwatch.traffic.put_requests == 0


def test_each_starts_empty(cloudwatch: LocalCloudWatch, client: "CloudWatchClient") -> None:
    """A new server has no data of an earlier one."""
    client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1}])
    with LocalCloudWatch() as fresh:
        fresh_client = fresh.client()
        assert fresh_client.list_metrics()["Metrics"] == []
        fresh_client.close()
    assert cloudwatch.published.sum("Orders") == 1


def test_list_metrics(client: "CloudWatchClient") -> None:
    """Each metric is listed once, and can be found by namespace, name and a subset of its dimensions."""
    data: list[Any] = [{"MetricName": "Latency", "Values": [1, 2], "Counts": [5, 5], "Dimensions": INDEX}] * 2
    client.put_metric_data(Namespace="Shop", MetricData=data)
    client.put_metric_data(Namespace="Other", MetricData=[{"MetricName": "Latency", "Value": 1}])
    assert len(client.list_metrics(MetricName="Latency")["Metrics"]) == 2
    (metric,) = client.list_metrics(Dimensions=[{"Name": "Page"}])["Metrics"]
    assert (metric["Namespace"], metric["MetricName"]) == ("Shop", "Latency")
    assert sorted(metric["Dimensions"], key=str) == sorted(INDEX, key=str)
    assert client.list_metrics(Namespace="Other", Dimensions=[{"Name": "Page", "Value": "Index"}])["Metrics"] == []


def test_list_metrics_in_pages(client: "CloudWatchClient") -> None:
    """More than 500 metrics are paginated."""
    data: list[Any] = [{"MetricName": f"m{number}", "Value": 1} for number in range(700)]
    client.put_metric_data(Namespace="Shop", MetricData=data)
    pages = list(client.get_paginator("list_metrics").paginate(Namespace="Shop"))
    assert [len(page["Metrics"]) for page in pages] == [500, 200]


def test_percentiles(client: "CloudWatchClient") -> None:
    """Percentiles are by nearest rank over all values and counts of a metric."""
    data: list[Any] = [
        {"MetricName": "Latency", "Values": [10, 20], "Counts": [500, 498], "Dimensions": INDEX},
        {"MetricName": "Latency", "Values": [30, 40], "Counts": [1, 1], "Dimensions": INDEX},
        {"MetricName": "Latency", "Value": 1000},
    ]
    client.put_metric_data(Namespace="Shop", MetricData=data)
    asked: Any = {"ExtendedStatistics": ["p50", "p90", "p99.9", "p100"], "Dimensions": INDEX}
    (point,) = statistics(client, "Latency", **asked)
    assert point["ExtendedStatistics"] == {"p50": 10, "p90": 20, "p99.9": 30, "p100": 40}
    assert statistics(client, "Latency", **asked, Unit="Seconds") == []


@pytest.mark.parametrize(
    "datum",
    [
        {"StatisticValues": {"SampleCount": 2, "Sum": 3, "Minimum": 1, "Maximum": 2}},
        {"Values": [-1, 1]},
    ],
)
def test_no_percentiles(client: "CloudWatchClient", datum: Any) -> None:
    """As in CloudWatch, statistic sets and negative values have no percentiles."""
    data: list[Any] = [{"MetricName": "Odd", **datum}]
    client.put_metric_data(Namespace="Shop", MetricData=data)
    assert statistics(client, "Odd", ExtendedStatistics=["p50"]) == []


def query(number: int, stat: str, **metric_stat: Any) -> Any:
    """Return a GetMetricData query for the metric that ``test_metric_data`` publishes."""
    metric = {"Namespace": "Shop", "MetricName": "Latency", "Dimensions": INDEX}
    return {"Id": f"q{number}", "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat, **metric_stat}}


def test_metric_data(client: "CloudWatchClient") -> None:
    """GetMetricData returns the data of each query by exact dimensions, newest first, including percentiles."""
    minute = datetime.now(timezone.utc).replace(second=0, microsecond=0)
    for moment, values in ((minute, [30, 40]), (minute - timedelta(minutes=1), [10, 20])):
        datum: Any = {"MetricName": "Latency", "Values": values, "Timestamp": moment, "Unit": "Seconds"}
        data: list[Any] = [datum | {"Dimensions": INDEX}, datum]
        client.put_metric_data(Namespace="Shop", MetricData=data)
    queries = [query(number, stat) for number, stat in enumerate(["p50", "Sum", "p100", "SampleCount"])]
    queries[2] |= {"ReturnData": False}
    queries[3]["MetricStat"] |= {"Unit": "Count"}
    asked: Any = {"StartTime": minute - timedelta(hours=1), "EndTime": minute + timedelta(hours=1)}
    found = client.get_metric_data(MetricDataQueries=queries, **asked)["MetricDataResults"]
    newest_first = [minute, minute - timedelta(minutes=1)]
    assert found == [
        {"Id": "q0", "Label": "Latency p50", "Timestamps": newest_first, "Values": [30, 10], "StatusCode": "Complete"},
        {"Id": "q1", "Label": "Latency Sum", "Timestamps": newest_first, "Values": [70, 30], "StatusCode": "Complete"},
        {"Id": "q3", "Label": "Latency SampleCount", "Timestamps": [], "Values": [], "StatusCode": "Complete"},
    ]
    queries = [query(0, "Maximum") | {"Label": "Longest"}]
    asked["ScanBy"] = "TimestampAscending"
    (longest,) = client.get_metric_data(MetricDataQueries=queries, **asked)["MetricDataResults"]
    assert (longest["Label"], longest["Values"]) == ("Longest", [20, 40])
    with pytest.raises(client.exceptions.ClientError, match="tm90 is not supported here"):
        client.get_metric_data(MetricDataQueries=[query(0, "tm90")], **asked)


def test_periods(client: "CloudWatchClient") -> None:
    """Data points are aligned to whole minutes, and each unit has its own data points."""
    minute = datetime.now(timezone.utc).replace(second=0, microsecond=0)
    times = [minute - timedelta(seconds=65), minute - timedelta(seconds=60), minute - timedelta(seconds=1)]
    data: list[Any] = [{"MetricName": "a", "Value": 1, "Timestamp": moment} for moment in times]
    client.put_metric_data(Namespace="Shop", MetricData=[*data, data[-1] | {"Unit": "Count"}])
    points = statistics(client, "a", Period=60)
    assert [(point["Timestamp"], point["Unit"], point["Sum"]) for point in points] == [
        (minute - timedelta(minutes=2), "None", 1),
        (minute - timedelta(minutes=1), "Count", 1),
        (minute - timedelta(minutes=1), "None", 2),
    ]


def test_periods_begin_at_the_start_of_the_time_range(client: "CloudWatchClient") -> None:
    """The first period begins at the given minute, even if that is not a multiple of the period."""
    start = datetime.now(timezone.utc).replace(minute=7, second=0, microsecond=0) - timedelta(hours=2)
    times = [start, start + timedelta(minutes=59), start + timedelta(minutes=60)]
    data: list[Any] = [{"MetricName": "Latency", "Value": 1, "Timestamp": moment} for moment in times]
    client.put_metric_data(Namespace="Shop", MetricData=data)
    asked: Any = {"StartTime": start + timedelta(seconds=30), "EndTime": start + timedelta(hours=2)}
    metric: Any = {"Namespace": "Shop", "MetricName": "Latency"}
    points = client.get_metric_statistics(**metric, **asked, Period=3600, Statistics=["Sum"])["Datapoints"]
    expected = [(start, 2), (start + timedelta(hours=1), 1)]
    assert [(point["Timestamp"], point["Sum"]) for point in points] == expected
    queries: Any = [{"Id": "q", "MetricStat": {"Metric": metric, "Period": 3600, "Stat": "Sum"}}]
    (found,) = client.get_metric_data(MetricDataQueries=queries, **asked, ScanBy="TimestampAscending")[
        "MetricDataResults"
    ]
    assert list(zip(found["Timestamps"], found["Values"], strict=True)) == expected


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"Statistics": ["Sum"], "ExtendedStatistics": ["p50"]}, "InvalidParameterCombination"),
        ({"ExtendedStatistics": ["p101"]}, "InvalidParameterValue"),
        ({"Statistics": ["Median"]}, "InvalidParameterValue"),
        ({"Period": 7}, "InvalidParameterValue"),
        ({"Period": 90}, "InvalidParameterValue"),
    ],
)
def test_invalid_queries(client: "CloudWatchClient", asked: Any, code: str) -> None:
    """A statistic or a period that CloudWatch does not support is rejected."""
    with pytest.raises(ClientError) as caught:
        statistics(client, "Latency", **asked)
    assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"EndTime": 1}, "InvalidParameterValue"),
        ({"StartTime": "yesterday"}, "InvalidParameterValue"),
        ({"Period": 0}, "InvalidParameterValue"),
    ],
)
def test_questions_that_boto3_does_not_ask(cloudwatch: LocalCloudWatch, changed: dict[str, object], code: str) -> None:
    """A query with an invalid time or period is rejected, and counted as refused."""
    question = {
        "Namespace": "Shop",
        "MetricName": "a",
        "StartTime": 1,
        "EndTime": 2,
        "Period": 60,
        "Statistics": ["Sum"],
    }
    headers = {**JSON_HEADERS, "X-Amz-Target": "GraniteServiceVersion20100801.GetMetricStatistics"}
    status, answer_headers, _ = post(cloudwatch, json.dumps({**question, **changed}).encode(), headers)
    assert (status, answer_headers["x-amzn-query-error"]) == (400, f"{code};Sender")
    assert [refused.code for refused in cloudwatch.validation_errors] == [code]
    assert cloudwatch.traffic.refused == 1


@pytest.mark.parametrize(
    ("bad", "code", "fragment"),
    [
        ({"Value": nan}, "InvalidParameterValue", "The value NaN for parameter MetricData.member.2.Value is invalid."),
        ({"Values": [inf]}, "InvalidParameterValue", "The value Infinity for parameter MetricData.member.2.Values"),
        ({"Value": True}, "InvalidParameterValue", "The value true for"),
        ({"Value": 1, "Unit": "Bogus"}, "InvalidParameterValue", "MetricData.member.2.Unit must be"),
        ({"Value": 1, "StorageResolution": 5}, "InvalidParameterValue", "StorageResolution"),
        ({"Value": 1, "Timestamp": 1}, "InvalidParameterValue", "past two weeks"),
        ({"Value": 1, "Dimensions": [{"Name": "a", "Value": "é"}]}, "InvalidParameterValue", "printable ASCII"),
        ({"Value": 1, "Values": [1]}, "InvalidParameterCombination", "mutually exclusive"),
        ({}, "MissingParameter", "MetricData.member.2.Value is required"),
    ],
)
def test_rejected_requests(
    cloudwatch: LocalCloudWatch, client: "CloudWatchClient", bad: Any, code: str, fragment: str
) -> None:
    """boto3 raises CloudWatch's error, and no datum of the request is stored."""
    data: list[Any] = [{"MetricName": "Orders", "Value": 1}, {"MetricName": "Orders", **bad}]
    with pytest.raises(ClientError) as caught:
        client.put_metric_data(Namespace="Shop", MetricData=data)
    assert caught.value.response["Error"]["Code"] == code
    assert fragment in caught.value.response["Error"]["Message"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert [refused.code for refused in cloudwatch.validation_errors] == [code]
    assert cloudwatch.published.datums == []
    assert statistics(client, "Orders") == []
    assert (cloudwatch.traffic.put_requests, cloudwatch.traffic.refused, cloudwatch.traffic.datums) == (1, 1, 0)


def test_modelled_exception(client: "CloudWatchClient") -> None:
    """boto3 raises the exception class defined by its service model."""
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.put_metric_data(Namespace=":a", MetricData=[{"MetricName": "Orders", "Value": 1}])


def test_gzip(cloudwatch: LocalCloudWatch, client: "CloudWatchClient") -> None:
    """Bodies that botocore compresses are counted in both sizes; the limit applies to the uncompressed size."""
    data: list[Any] = [{"MetricName": "Orders", "Value": 1, "Dimensions": INDEX}] * 1000
    client.put_metric_data(Namespace="Shop", MetricData=data)
    traffic = cloudwatch.traffic
    assert traffic.datums == 1000
    assert traffic.bytes_received * 10 < traffic.bytes_uncompressed
    assert traffic.bytes_uncompressed > 100_000
    data[0]["Dimensions"] = [{"Name": "long", "Value": "v" * 1000}]  # the same datum 1000 times
    with pytest.raises(ClientError) as caught:
        client.put_metric_data(Namespace="Shop", MetricData=data)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert caught.value.response["Error"]["Code"] == "RequestEntityTooLarge"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", JSON_HEADERS, 400, "SerializationException"),
        (b"[]", JSON_HEADERS, 400, "SerializationException"),
        (b"{}", {**JSON_HEADERS, "Content-Encoding": "gzip"}, 400, "SerializationException"),
        (b"{}", {**JSON_HEADERS, "Content-Encoding": "br"}, 415, "UnsupportedContentEncoding"),
        (b"Action=PutMetricData&Version=2010-08-01", FORM_HEADERS, 415, "UnsupportedProtocol"),
        (b"\xa0", {"Content-Type": "application/cbor", "Smithy-Protocol": "rpc-v2-cbor"}, 415, "UnsupportedProtocol"),
    ],
)
def test_unreadable(cloudwatch: LocalCloudWatch, body: bytes, headers: dict[str, str], status: int, code: str) -> None:
    """A request that cannot be parsed is rejected with a clear error, and counted."""
    answered, answer_headers, text = post(cloudwatch, body, headers)
    assert (answered, json.loads(text)["__type"].partition("#")[2]) == (status, code)
    assert answer_headers["x-amzn-query-error"] == f"{code};Sender"
    assert cloudwatch.traffic.refused == 1


def test_compressed_by_hand(cloudwatch: LocalCloudWatch) -> None:
    """A body compressed by another client is accepted like one from botocore."""
    body = gzip.compress(b'{"Namespace":"Shop","MetricData":[{"MetricName":"Orders","Value":1}]}')
    status, _, text = post(cloudwatch, body, {**JSON_HEADERS, "Content-Encoding": "gzip"})
    assert (status, json.loads(text or "{}")) == (200, {})
    assert cloudwatch.published.sum("Orders") == 1
    assert cloudwatch.traffic.bytes_received == len(body)


@pytest.mark.parametrize(
    ("fault", "code"),
    [(Fault(), "InternalServiceError"), (Fault("ThrottlingException", 400), "ThrottlingException")],
)
@pytest.mark.parametrize("after_storing", [False, True])
def test_faults(
    client: "CloudWatchClient", cloudwatch: LocalCloudWatch, fault: Fault, code: str, *, after_storing: bool
) -> None:
    """The next request fails, before or after it is stored; the one after that succeeds."""
    cloudwatch.fail_next(Fault(fault.code, fault.status, after_storing=after_storing))
    with pytest.raises(ClientError) as caught:
        client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1}])
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == fault.status
    assert cloudwatch.published.count("Orders") == after_storing
    client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1}])
    assert (cloudwatch.traffic.put_requests, cloudwatch.traffic.faulted) == (2, 1)


@pytest.mark.parametrize("after_storing", [False, True])
def test_dropped_connection(client: "CloudWatchClient", cloudwatch: LocalCloudWatch, *, after_storing: bool) -> None:
    """A connection can be closed without a response, before or after the data is stored."""
    cloudwatch.fail_next(Fault(status=None, after_storing=after_storing))
    with pytest.raises(ConnectionClosedError):
        client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1}])
    assert cloudwatch.published.count("Orders") == after_storing


def test_connection_that_ends_in_a_head(cloudwatch: LocalCloudWatch) -> None:
    """A request with incomplete headers gets no response, and is not counted."""
    head = b"POST / HTTP/1.1\r\nX-Amz-Target: GraniteServiceVersion20100801.PutMetricData\r\n"
    for end in (len(head) - 2, len(head)):
        address = urlsplit(cloudwatch.endpoint_url)
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as connection:
            connection.sendall(head[:end])
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
    assert cloudwatch.traffic.put_requests == 0


def test_connection_that_ends_in_a_body(cloudwatch: LocalCloudWatch, caplog: pytest.LogCaptureFixture) -> None:
    """A request with an incomplete body is neither stored nor counted, and no error is logged."""
    address = urlsplit(cloudwatch.endpoint_url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert cloudwatch.traffic.put_requests == 0
    assert not caplog.messages


def test_outage(client: "CloudWatchClient", cloudwatch: LocalCloudWatch) -> None:
    """A hook receives the parameters of each request and chooses the response, until the hook is removed."""
    cloudwatch.answer_with = lambda parameters: Fault() if parameters["Namespace"] == "Shop" else None
    for _ in range(2):
        with pytest.raises(ClientError):
            client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1}])
    client.put_metric_data(Namespace="Other", MetricData=[{"MetricName": "Orders", "Value": 1}])
    cloudwatch.answer_with = None
    client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1}])
    assert [metric.namespace for metric in cloudwatch.published.metrics()] == ["Other", "Shop"]


def test_latency() -> None:
    """PutMetricData takes the configured time; other operations do not."""
    slept: list[float] = []
    with LocalCloudWatch(latency_seconds=2.5, sleep=slept.append) as cloudwatch:
        client = cloudwatch.client()
        client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1}])
        client.list_metrics()
        cloudwatch.latency_seconds = 0
        client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1}])
        client.close()
    assert slept == [2.5]


def test_arrival(client: "CloudWatchClient", cloudwatch: LocalCloudWatch) -> None:
    """Each datum is stored with its own time or, without one, with its time of arrival."""
    before = time.time()
    data: list[Any] = [
        {"MetricName": "Orders", "Value": 1, "Timestamp": int(before) - 3600},
        {"MetricName": "Orders", "Value": 1},
    ]
    client.put_metric_data(Namespace="Shop", MetricData=data)
    with_time, without_time = cloudwatch.published.accepted
    assert with_time.unix_time == int(before) - 3600
    assert before <= without_time.unix_time <= time.time()


def test_stopped(cloudwatch: LocalCloudWatch, client: "CloudWatchClient") -> None:
    """A stopped server responds to no request, not even on a keep-alive connection; lookups still work."""
    client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1}])
    cloudwatch.stop()
    cloudwatch.stop()
    with pytest.raises((EndpointConnectionError, ConnectionClosedError)):
        client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1}])
    assert cloudwatch.published.sum("Orders") == 1
    with pytest.raises(RuntimeError, match="with statement"):
        _ = cloudwatch.endpoint_url


def test_threads(cloudwatch: LocalCloudWatch) -> None:
    """Requests from many concurrent clients are all stored and counted."""
    body = b'{"Namespace":"Shop","MetricData":[{"MetricName":"Orders","Value":1}]}'
    threads = [
        threading.Thread(target=lambda: [post(cloudwatch, body, JSON_HEADERS) for _ in range(5)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cloudwatch.published.sum("Orders") == cloudwatch.traffic.datums == cloudwatch.traffic.put_requests == 40


def test_child_process(cloudwatch: LocalCloudWatch, capfd: pytest.CaptureFixture[str]) -> None:
    """With the emulator's environment, a child process's boto3 client uses the emulator, which logs nothing."""
    program = (
        "import boto3; boto3.client('cloudwatch').put_metric_data("
        "Namespace='Shop', MetricData=[{'MetricName': 'Orders', 'Value': 1}])"
    )
    subprocess.run([sys.executable, "-c", program], env={**os.environ, **cloudwatch.environment()}, check=True)
    assert cloudwatch.published.sum("Orders") == 1
    assert capfd.readouterr() == ("", "")
