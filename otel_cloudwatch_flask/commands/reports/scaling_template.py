"""Generate a target-tracking scaling policy on a metric as a CloudFormation template.

https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-target-tracking.html
"""

from dataclasses import dataclass
from typing import Any, Final

from otel_cloudwatch_flask.commands.reports.template_formats import printable, template_of
from otel_cloudwatch_flask.commands.shared.document import SeriesSummary

STATISTICS: Final = ("Average", "Minimum", "Maximum", "SampleCount", "Sum")
"""The statistics that target tracking supports. It does not support percentiles."""
ALARMS_PER_POLICY: Final = 2
"""Application Auto Scaling creates one alarm to scale out, and one to scale in."""


@dataclass(frozen=True, slots=True)
class ScalableTarget:
    """The resource to scale, its scalable dimension, and its minimum and maximum capacity."""

    resource_id: str
    scalable_dimension: str
    minimum: int
    maximum: int

    @property
    def service(self) -> str:
        """The service namespace of the resource, such as ``ecs``."""
        return self.scalable_dimension.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Tracking:
    """The statistic that the policy tracks, its target value, and the cooldown periods."""

    statistic: str
    value: float
    scale_out_seconds: int
    scale_in_seconds: int


def scaling_template(series: SeriesSummary, tracking: Tracking, target: ScalableTarget) -> dict[str, Any]:
    """Return a template that registers ``target`` and a scaling policy that tracks the metric of ``series``."""
    resource = {
        "ServiceNamespace": target.service,
        "ResourceId": target.resource_id,
        "ScalableDimension": target.scalable_dimension,
    }
    limits = {"MinCapacity": target.minimum, "MaxCapacity": target.maximum}
    policy = {
        "PolicyName": printable(f"{series.namespace}: {tracking.statistic} of {series.name}"),
        "PolicyType": "TargetTrackingScaling",
        **resource,
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": tracking.value,
            "ScaleOutCooldown": tracking.scale_out_seconds,
            "ScaleInCooldown": tracking.scale_in_seconds,
            "CustomizedMetricSpecification": {**series.members, "Statistic": tracking.statistic},
        },
    }
    kind = "AWS::ApplicationAutoScaling"
    resources = {
        "Target": {"Type": f"{kind}::ScalableTarget", "Properties": {**resource, **limits}},
        "Policy": {"Type": f"{kind}::ScalingPolicy", "DependsOn": "Target", "Properties": policy},
    }
    return template_of(resources, f"Scaling on a metric published by otel_cloudwatch_flask in {series.namespace}")
