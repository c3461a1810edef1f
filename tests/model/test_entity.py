"""The entity of a request, which tells CloudWatch the service that the metrics belong to."""

from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch

SHOP = {"service.name": "shop", "deployment.environment.name": "prod"}

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Entity.html
MAX_KEY_ATTRIBUTES = 4
MAX_ATTRIBUTES = 10
MAX_KEY_LENGTH, MAX_KEY_ATTRIBUTE_LENGTH = 32, 2048
MAX_NAME_LENGTH, MAX_VALUE_LENGTH = 256, 2048


def published(resource: Mapping[str, Any], *, entity: bool | None = True, metrics: int = 1) -> FakeCloudWatch:
    """Return a fake CloudWatch with the metrics that a program with this resource published."""
    cloudwatch = FakeCloudWatch()
    reader = CloudWatchMetricReader(
        CloudWatchMetricExporter("Shop", client=cloudwatch, entity=entity, max_metrics=2000)
    )
    provider = MeterProvider([reader], resource=Resource(dict(resource)), shutdown_on_exit=False)
    for number in range(metrics):
        provider.get_meter("m").create_counter(f"orders{number}").add(1)
    assert reader.flush()
    reader.shutdown()
    return cloudwatch


def entity_of(resource: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the entity of the only request."""
    (request,) = published(resource).requests
    (part,) = request["EntityMetricData"]
    entity: dict[str, dict[str, str]] = part["Entity"]
    return entity


def test_the_form_of_the_request() -> None:
    """All data points belong to the entity, and strict validation of the entity is off."""
    (request,) = published(SHOP).requests
    assert set(request) == {"Namespace", "EntityMetricData", "StrictEntityValidation"}
    assert request["StrictEntityValidation"] is False
    (part,) = request["EntityMetricData"]
    assert set(part) == {"Entity", "MetricData"}
    assert [datum["MetricName"] for datum in part["MetricData"]] == ["orders0"]


def test_the_service_and_where_it_runs() -> None:
    """Service and environment identify the entity; where the service runs is described by the entity's attributes."""
    place = {"cloud.platform": "aws_ecs", "host.name": "h1", "k8s.pod.name": "shop-1", "k8s.namespace.name": "web"}
    resource = SHOP | place
    assert entity_of(resource) == {
        "KeyAttributes": {"Type": "Service", "Name": "shop", "Environment": "prod"},
        "Attributes": {"PlatformType": "AWS::ECS", "Host": "h1", "K8s.Pod": "shop-1", "K8s.Namespace": "web"},
    }


@pytest.mark.parametrize(
    ("resource", "environment"),
    [
        ({"service.name": "shop"}, "generic:default"),
        ({"service.name": "shop", "deployment.environment": "staging"}, "staging"),
        ({**SHOP, "deployment.environment": "staging"}, "prod"),
    ],
)
def test_the_environment(resource: dict[str, str], environment: str) -> None:
    """The newer environment attribute takes precedence over the older one; without both, a default applies."""
    assert entity_of(resource)["KeyAttributes"]["Environment"] == environment


@pytest.mark.parametrize("resource", [{}, {"service.name": ""}, {"service.name": "unknown_service:python"}])
def test_a_service_without_a_name_is_none(resource: dict[str, str]) -> None:
    """Without a service name, metrics are published without an entity."""
    (request,) = published(resource).requests
    assert set(request) == {"Namespace", "MetricData"}


@pytest.mark.parametrize("entity", [False, None])
def test_only_if_asked_for(entity: bool | None) -> None:  # noqa: FBT001
    """Requests have no entity by default."""
    (request,) = published(SHOP, entity=entity).requests
    assert set(request) == {"Namespace", "MetricData"}


def test_at_most_two_entities_a_request() -> None:
    """Each request of a large export has exactly one entity."""
    parts = [request["EntityMetricData"] for request in published(SHOP, metrics=1500).requests]
    assert [len(part) for part in parts] == [1, 1]
    assert [len(part[0]["MetricData"]) for part in parts] == [1000, 500]


@pytest.mark.parametrize(
    "value",
    ["x" * 5000, "Größe", "日本語" * 400, "\t", "tab\there", " ", True, 17, ["a", "b"]],
    ids=lambda value: ascii(value)[:12],
)
def test_sizes_and_characters(value: Any) -> None:
    """Whatever the resource, the entity is within CloudWatch's limits."""
    resource = {
        "service.name": value,
        "deployment.environment.name": value,
        "cloud.platform": "aws_eks",
        **dict.fromkeys(
            (
                "host.id", "host.name", "aws.ecs.cluster.arn", "k8s.cluster.name", "k8s.namespace.name",
                "k8s.deployment.name", "k8s.node.name", "k8s.pod.name", "faas.name",
            ),
            value,
        ),
    }  # fmt: skip
    entity = entity_of(resource)
    keys, attributes = entity["KeyAttributes"], entity["Attributes"]
    assert 2 <= len(keys) <= MAX_KEY_ATTRIBUTES
    assert len(attributes) <= MAX_ATTRIBUTES
    for name, text in keys.items():
        assert 1 <= len(name) <= MAX_KEY_LENGTH
        assert 1 <= len(text) <= MAX_KEY_ATTRIBUTE_LENGTH
        assert text.isascii()
        assert text.isprintable()
        assert text.strip()
    for name, text in attributes.items():
        assert 1 <= len(name) <= MAX_NAME_LENGTH
        assert 1 <= len(text) <= MAX_VALUE_LENGTH


def test_over_http_through_boto3() -> None:
    """The strict fake CloudWatch and botocore both accept the encoded body of a request with an entity."""
    with LocalCloudWatch() as cloudwatch:
        client: Any = cloudwatch.client()
        reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=client, entity=True))
        provider = MeterProvider([reader], resource=Resource(SHOP), shutdown_on_exit=False)
        histogram = provider.get_meter("m").create_histogram("latency", unit="ms")
        for sample in (12.5, 80.0, 3.25):
            histogram.record(sample)
        assert reader.flush()
        assert cloudwatch.validation_errors == []
        (request,) = cloudwatch.published.requests
        assert request["EntityMetricData"][0]["Entity"]["KeyAttributes"]["Name"] == "shop"
        assert request["StrictEntityValidation"] is False
        assert cloudwatch.published.count("latency") == 3
        reader.shutdown()
