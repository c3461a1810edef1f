"""Bodies encoded by this package pass through botocore and arrive exactly like those of a plain call."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import BotoCoreError
from botocore.loaders import JSONFileLoader
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricsData
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from otel_cloudwatch_flask import CloudWatchMetricExporter
from otel_cloudwatch_flask.delivery.batch import Batch, Envelope, encoded
from otel_cloudwatch_flask.delivery.boto_client import (
    CONNECT_TIMEOUT_SECONDS,
    READ_TIMEOUT_SECONDS,
    Put,
    client_factory,
    encoded_put,
    plain_put,
)
from otel_cloudwatch_flask.delivery.error_codes import Failure, failure, unconfirmed
from otel_cloudwatch_flask.histograms.values_counts import MAX_BUCKETS, Distribution
from otel_cloudwatch_flask.limits import MAX_REQUEST_BYTES
from otel_cloudwatch_flask.model.datum import Datum, Series, Statistics
from otel_cloudwatch_flask.model.entity import service_entity
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from otel_cloudwatch_flask.version import __version__

NOW = 1_700_000_000

CONTENTS: list[float | Distribution | Statistics] = [
    5.0,
    -0.25,
    Distribution((0.5, 1e100), (3, 10**6)),
    Statistics(3, 6.5, 1.0, 3.0),
]


@pytest.fixture
def cloudwatch(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloudWatch]:
    """A strict CloudWatch emulator that clients configured from the environment use."""
    with LocalCloudWatch(clock=lambda: NOW) as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


def batch(datums: int, *, with_entity: bool = False) -> Batch:
    """Return a batch with datums of every kind, and names that need escaping."""
    entity = service_entity({"service.name": "shop"}) if with_entity else None
    series = [Series(f'Größe "{n}"', (("Route", "/a\\b"),), "Count", 1 if n % 2 else 60) for n in range(datums)]
    made = (Datum(each, NOW, CONTENTS[n % len(CONTENTS)]) for n, each in enumerate(series))
    return Batch(Envelope("Shop", entity), tuple(made))


def wide_histograms(number: int) -> MetricsData:
    """Return a collection of ``number`` series, each with a sample in every bucket that fits in one datum."""
    aggregation = ExponentialBucketHistogramAggregation(max_size=MAX_BUCKETS - 1)
    reader = InMemoryMetricReader(
        preferred_temporality={Histogram: AggregationTemporality.DELTA}, preferred_aggregation={Histogram: aggregation}
    )
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("tests").create_histogram("latency")
    for power in range(MAX_BUCKETS - 1):
        histogram.record(2 ** ((power + 0.5) / 16))
    data = reader.get_metrics_data()
    assert data is not None
    points: Any = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    points[:] = [replace(points[0], attributes={"n": str(n)}) for n in range(number)]
    return data


@pytest.mark.parametrize("with_entity", [False, True])
@pytest.mark.parametrize("datums", [1, 300])
def test_the_encoded_call_stores_what_the_plain_call_stores(
    cloudwatch: LocalCloudWatch, datums: int, *, with_entity: bool
) -> None:
    """Both calls store the same datums, in small and in large (compressed) requests, with and without an entity."""
    stored = []
    for put in (encoded_put(client_factory()()), plain_put(client_factory()())):
        cloudwatch.published.clear()
        put(batch(datums, with_entity=with_entity))
        stored.append(list(cloudwatch.published.datums))
    assert len(stored[0]) == datums
    assert stored[0] == stored[1]
    assert cloudwatch.validation_errors == []


@pytest.mark.parametrize("is_plain", [False, True])
def test_full_requests(cloudwatch: LocalCloudWatch, *, is_plain: bool) -> None:
    """Requests are filled up to CloudWatch's limit, whether this package or botocore encodes them."""
    content = Distribution(tuple(n + 0.5 for n in range(150)), (1,) * 150)
    datums = [Datum(Series(f"Latency {n}", (), "Count"), NOW, content) for n in range(1500)]
    put = (plain_put if is_plain else encoded_put)(client_factory()())
    sizes = []
    for full in Envelope("Shop", is_plain=is_plain).batches(datums):
        before = cloudwatch.traffic.bytes_uncompressed
        put(full)
        sizes.append(cloudwatch.traffic.bytes_uncompressed - before)
    assert cloudwatch.validation_errors == []
    assert len(cloudwatch.published.datums) == 1500
    assert all(MAX_REQUEST_BYTES - 2 * len(encoded(datums[0])) < size <= MAX_REQUEST_BYTES for size in sizes[:-1])
    assert len(sizes) == (3 if is_plain else 2)


def test_a_program_s_own_client_gets_requests_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection that fits in one request encoded by this package, but not in one encoded by botocore, is split."""
    data = wide_histograms(800)
    with LocalCloudWatch() as cloudwatch:
        for name, value in cloudwatch.environment().items():
            monkeypatch.setenv(name, value)
        for client in (None, client_factory()()):
            exporter = CloudWatchMetricExporter("Shop", client=client)
            exporter.export(data)
            assert exporter.stats().datums_sent == 800
            assert exporter.stats().requests_sent == (1 if client is None else 2)
        assert cloudwatch.validation_errors == []


def test_large_bodies_are_compressed(cloudwatch: LocalCloudWatch) -> None:
    """The compressed body is at most a quarter of the size that counts toward CloudWatch's limit."""
    encoded_put(client_factory()())(batch(300))
    assert cloudwatch.traffic.bytes_received < cloudwatch.traffic.bytes_uncompressed / 4


def test_other_calls_with_the_client_are_unchanged(cloudwatch: LocalCloudWatch) -> None:
    """Calls that the program makes with the same client keep their own body."""
    client = client_factory()()
    encoded_put(client)(batch(1))
    client.put_metric_data(Namespace="Other", MetricData=[{"MetricName": "Own", "Value": 7.0}])
    assert cloudwatch.published.sum("Own", namespace="Other") == 7


def test_another_protocol_gets_the_plain_call() -> None:
    """A client with an unsupported protocol gets a plain call with keyword arguments."""
    calls: list[dict[str, Any]] = []
    model = SimpleNamespace(resolved_protocol="smithy-rpc-v2-cbor")
    client = SimpleNamespace(
        meta=SimpleNamespace(service_model=model), put_metric_data=lambda **arguments: calls.append(arguments)
    )
    encoded_put(client)(batch(2))
    assert [len(call["MetricData"]) for call in calls] == [2]


def test_timeouts_and_retries_are_ours() -> None:
    """The client has short timeouts and never retries; the sender is responsible for retries and deadlines."""
    config = client_factory("eu-west-1", access_key_id="x", secret_access_key="y")().meta.config
    assert (config.connect_timeout, config.read_timeout) == (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
    assert config.retries["total_max_attempts"] == 1
    assert config.region_name == "eu-west-1"


def test_requests_say_where_they_come_from() -> None:
    """The user agent identifies this package in a proxy's log or in CloudTrail."""
    seen: list[str] = []
    client = client_factory("eu-west-1", access_key_id="x", secret_access_key="y")()

    def refuse(request: Any, **_: object) -> None:
        seen.append(request.headers["User-Agent"].decode())
        raise ConnectionError

    client.meta.events.register("before-send.cloudwatch.PutMetricData", refuse)
    with pytest.raises(ConnectionError):
        client.put_metric_data(Namespace="Shop", MetricData=[])
    (user_agent,) = seen
    assert user_agent.startswith(f"otel-cloudwatch-flask/{__version__} Python/3.")
    assert " Botocore/" in user_agent


def test_clients_share_the_data_files_of_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first client of a process reads botocore's data files, which is slow."""
    client_factory("eu-west-1")()
    monkeypatch.setattr(JSONFileLoader, "load_file", Mock(side_effect=AssertionError))
    client_factory("eu-west-2")()


RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: CloudWatch\r\nx-amzn-RequestId: b7a1\r\nContent-Type: application/x-amz-json-1.0\r\n"
    b"Date: Tue, 22 Sep 2026 14:13:20 GMT\r\nContent-Length: 2\r\n\r\n{}"
)


def test_a_response_cut_off_at_any_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """A truncated response either still confirms the request, or leaves open whether CloudWatch stored the data."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def respond() -> None:
            for length in range(len(RESPONSE) + 1):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(RESPONSE[:length])

        threading.Thread(target=respond, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", f"http://127.0.0.1:{listener.getsockname()[1]}")
        put = encoded_put(client_factory("eu-west-1", access_key_id="testing", secret_access_key="testing")())
        failures = [outcome(put, batch(1)) for _ in range(len(RESPONSE) + 1)]
    assert all(each is None or each.may_be_stored for each in failures)
    assert failures[-1] is None
    assert sum(each is not None for each in failures) > RESPONSE.index(b"b7a1")


def outcome(put: Put, batch: Batch) -> Failure | None:
    """Send ``batch`` and return the failure, or None."""
    try:
        return unconfirmed(put(batch))
    except BotoCoreError as error:
        return failure(error)
