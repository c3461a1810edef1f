import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from otel_cloudwatch_flask.cli import main
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.support.command_runs import run
from tests.support.template_tools import cfn_lint, parsed_terraform, synthesized

HOSTILE = "a ${AWS::Region} %{if} \"'\\ b"
SERIES = [
    ("In Progress", {}),
    ("In Progress", {"Stage": "prod"}),
    ("Orders", {"Plan": "pro", "Stage": "prod"}),
    ("Orders", {"Plan": "free", "Stage": "prod"}),
    (HOSTILE, {HOSTILE: HOSTILE}),
]
REQUIRED = ("--target=4", "--resource=service/shop/web", "--min=2", "--max=20")


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """A file with a document of published series."""
    path = tmp_path / "seen.json"
    series = [{"namespace": "Shop", "metric_name": name, "dimensions": pairs} for name, pairs in SERIES]
    path.write_text(json.dumps({"series": series}), "utf-8")
    return path


def printed(seen: Path, *arguments: str) -> str:
    """Run the command with these arguments and all required options except the metric, and return its output."""
    result = CliRunner().invoke(main, ["scaling", f"--from={seen}", *REQUIRED, *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def properties(template: str) -> dict[str, dict[str, Any]]:
    """Return the properties of each resource of a template."""
    return {name: each["Properties"] for name, each in json.loads(template)["Resources"].items()}


def test_the_policy_tracks_the_metric(seen: Path, tmp_path: Path) -> None:
    """The template registers the resource and its limits, and keeps the metric's statistic at the target value."""
    template = printed(seen, "--metric=In Progress", "--statistic=Maximum", "--scale-in-cooldown=600")
    assert cfn_lint(tmp_path, template) == ""
    made = properties(template)
    service = {"ServiceNamespace": "ecs", "ResourceId": "service/shop/web"}
    service["ScalableDimension"] = "ecs:service:DesiredCount"
    assert made["Target"] == {**service, "MinCapacity": 2, "MaxCapacity": 20}
    assert made["Policy"] == {
        "PolicyName": "Shop: Maximum of In Progress",
        "PolicyType": "TargetTrackingScaling",
        **service,
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 4,
            "ScaleOutCooldown": 60,
            "ScaleInCooldown": 600,
            "CustomizedMetricSpecification": {
                "Namespace": "Shop",
                "MetricName": "In Progress",
                "Statistic": "Maximum",
            },
        },
    }


def test_any_resource_of_application_auto_scaling_can_be_scaled(seen: Path, tmp_path: Path) -> None:
    """The service follows from the scalable dimension."""
    name = "lambda:function:ProvisionedConcurrency"
    chosen = ("--metric=In Progress", f"--scalable-dimension={name}", "--resource=function:shop:live")
    template = printed(seen, *chosen)
    assert cfn_lint(tmp_path, template) == ""
    for each in properties(template).values():
        assert (each["ServiceNamespace"], each["ScalableDimension"]) == ("lambda", name)
        assert each["ResourceId"] == "function:shop:live"


@pytest.mark.parametrize(
    ("given", "dimensions"),
    [
        (["--metric=In Progress"], {}),
        (["--metric=In Progress", "--dimension=Stage=prod"], {"Stage": "prod"}),
        (["--metric=Orders", "--dimension=Plan=pro"], {"Plan": "pro", "Stage": "prod"}),
        (["--metric=Orders", "--dimension=Stage=prod", "--dimension=Plan=free"], {"Plan": "free", "Stage": "prod"}),
    ],
)
def test_dimensions_select_the_series(seen: Path, given: list[str], dimensions: dict[str, str]) -> None:
    """The options select one series, and the policy has all of its dimensions."""
    policy = properties(printed(seen, *given))["Policy"]["TargetTrackingScalingPolicyConfiguration"]
    pairs = policy["CustomizedMetricSpecification"].get("Dimensions", [])
    assert {each["Name"]: each["Value"] for each in pairs} == dimensions


def test_each_format_has_the_same_policy(seen: Path, tmp_path: Path) -> None:
    """Terraform and the CDK create the policy of the template, and interpret no names and values."""
    hostile = ("--metric", HOSTILE)
    template = printed(seen, *hostile)
    assert cfn_lint(tmp_path, template) == ""
    text = printed(seen, *hostile, "--format=terraform")
    escaped = json.dumps(HOSTILE).replace("${", "$${").replace("%{", "%%{")
    assert f"name = {escaped}" in text
    assert "depends_on = [aws_appautoscaling_target.target]" in text
    kinds = [kind.strip('"') for each in parsed_terraform(text)["resource"] for kind in each]
    assert kinds == ["aws_appautoscaling_target", "aws_appautoscaling_policy"]
    made = synthesized(tmp_path, printed(seen, *hostile, "--format=cdk"))
    assert made["Policy"]["DependsOn"] == ["Target"]
    given = properties(template)
    assert {name: each["Properties"] for name, each in made.items()} == given
    policy = given["Policy"]["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]
    assert (policy["MetricName"], policy["Dimensions"]) == (HOSTILE, [{"Name": HOSTILE, "Value": HOSTILE}])


def test_metrics_are_listed_from_cloudwatch() -> None:
    """With --list, the metric is selected from those in CloudWatch."""
    with LocalCloudWatch() as cloudwatch:
        cloudwatch.client().put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "In Progress", "Value": 1}])
        listing = ("--list", "--namespace=Shop", "--metric=In Progress")
        ended = run("scaling", *listing, *REQUIRED, environment=cloudwatch.environment())
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == (
        "Keeps the Average of In Progress at 4 with a capacity of 2 to 20. Its 2 alarms cost $0.20 a month.\n"
    )
    assert "Policy" in properties(ended.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric=Order"], f"No metric is named 'Order'. Available: In Progress, Orders, {HOSTILE[:3]}"),
        (["--metric=Orders"], "Orders matches 2 series; pass --dimension NAME=VALUE for one of: "),
        (["--metric=Orders"], ": Orders {Plan=free, Stage=prod}, Orders {Plan=pro, Stage=prod}."),
        (["--metric=Orders", "--dimension=Plan=gold"], "Orders {Plan=gold} matches 0 series; pass"),
        (["--metric=Orders", "--dimension=Plan"], "'Plan' is invalid; use NAME=VALUE."),
        (["--metric=Orders", "--min=21"], "--min 21 exceeds --max 20."),
        (["--metric=Orders", "--resource=web"], "--resource 'web' is not an ECS service; use service/CLUSTER/SERVICE"),
        (["--metric=Orders", "--scalable-dimension=ecs"], "'ecs' is invalid; use one of appstream:fleet:"),
        (["--metric=Orders", "--statistic=p99"], "'p99' is not one of 'Average', 'Minimum', 'Maximum'"),
        (["--metric=Orders", "--target=0"], "0.0 is not in the range x>0"),
    ],
)
def test_an_invalid_choice_names_what_is_allowed(seen: Path, arguments: list[str], message: str) -> None:
    """The exit status is 2, and the message repeats the value and lists the valid ones."""
    result = CliRunner().invoke(main, ["scaling", f"--from={seen}", *REQUIRED, *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())
