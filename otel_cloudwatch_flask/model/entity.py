"""The entity that metrics belong to, which lets CloudWatch's "Explore related" find an app's logs and traces.

See https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/adding-your-own-related-telemetry.html and
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Entity.html.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from otel_cloudwatch_flask.model.dimensions import dimension_value

_DEFAULT_ENVIRONMENT: Final = "generic:default"
"""Application Signals' environment for services that specify none and do not run on a known platform."""

_PLATFORM_TYPES: Final = {
    "aws_ec2": "AWS::EC2",
    "aws_ecs": "AWS::ECS",
    "aws_eks": "AWS::EKS",
    "aws_lambda": "AWS::Lambda",
}

# CloudWatch's names for the attributes of https://opentelemetry.io/docs/specs/semconv/resource/ that identify a host or
# workload. Together with PlatformType, they add up to 10 attributes, the maximum that CloudWatch accepts.
_ATTRIBUTE_NAMES: Final = {
    "host.id": "EC2.InstanceId",
    "host.name": "Host",
    "aws.ecs.cluster.arn": "ECS.Cluster",
    "k8s.cluster.name": "K8s.Cluster",
    "k8s.namespace.name": "K8s.Namespace",
    "k8s.deployment.name": "K8s.Workload",
    "k8s.node.name": "K8s.Node",
    "k8s.pod.name": "K8s.Pod",
    "faas.name": "Lambda.Function.Name",
}


@dataclass(frozen=True, slots=True)
class Entity:
    """A service in an environment. Only ``key_attributes`` identify it."""

    key_attributes: tuple[tuple[str, str], ...]
    attributes: tuple[tuple[str, str], ...]

    @classmethod
    def from_member(cls, member: Mapping[str, Mapping[str, str]]) -> "Entity":
        """Recreate the entity from the return value of :meth:`member`."""
        return cls(tuple(member["KeyAttributes"].items()), tuple(member["Attributes"].items()))

    def member(self) -> dict[str, dict[str, str]]:
        """Return the entity in boto3's form, as the value of a request's ``Entity`` member."""
        return {"KeyAttributes": dict(self.key_attributes), "Attributes": dict(self.attributes)}


def service_entity(resource_attributes: Mapping[str, object]) -> Entity | None:
    """Return the entity of the service that a resource describes, or ``None`` if its ``service.name`` is not set.

    The SDK's placeholder, ``unknown_service``, counts as not set.

    >>> service_entity({"service.name": "shop", "deployment.environment.name": "prod"}).key_attributes
    (('Type', 'Service'), ('Name', 'shop'), ('Environment', 'prod'))
    """
    name = str(resource_attributes.get("service.name", ""))
    if not name or name.startswith("unknown_service"):
        return None
    # Older semantic conventions use the second name.
    environment = resource_attributes.get("deployment.environment.name") or resource_attributes.get(
        "deployment.environment", _DEFAULT_ENVIRONMENT
    )
    key_attributes = (
        ("Type", "Service"),
        ("Name", dimension_value(name)),
        ("Environment", dimension_value(environment)),
    )
    return Entity(key_attributes, tuple(_attributes(resource_attributes)))


def _attributes(resource_attributes: Mapping[str, object]) -> list[tuple[str, str]]:
    platform = str(resource_attributes.get("cloud.platform", ""))
    known = [
        (name, dimension_value(resource_attributes[key]))
        for key, name in _ATTRIBUTE_NAMES.items()
        if key in resource_attributes
    ]
    return [("PlatformType", _PLATFORM_TYPES.get(platform, "Generic")), *known]
