"""Write a CloudFormation template as Terraform configuration, or as a CDK stack in Python."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import click

from otel_cloudwatch_flask.commands.reports.alarm_template import Resource
from otel_cloudwatch_flask.commands.shared.command import echo_json, json_option

_F = TypeVar("_F", bound=Callable[..., Any])

_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PARAMETER: Final = re.compile(r"\$\{(\w+)\}")
_ACTIONS: Final = ("AlarmActions", "OKActions")
_TERRAFORM_NAMES: Final = {
    "EvaluateLowSampleCountPercentile": "evaluate_low_sample_count_percentiles",
    "Metrics": "metric_query",
    "PolicyName": "name",
}


@dataclass(frozen=True, slots=True)
class _ResourceType:
    """The Terraform resource type, the CDK module and construct, and the CDK class of each nested property.

    ``has_dimension_map`` says whether Terraform expects the dimensions in one map instead of in blocks.
    """

    terraform: str
    module: str
    construct: str
    nested: Mapping[str, str] = field(default_factory=dict)
    has_dimension_map: bool = False

    @property
    def cdk(self) -> str:
        return f"{self.module.removeprefix('aws_')}.{self.construct}"


_RESOURCE_TYPES: Final = {
    "AWS::CloudWatch::Alarm": _ResourceType(
        "aws_cloudwatch_metric_alarm",
        "aws_cloudwatch",
        "CfnAlarm",
        {
            "Metrics": "MetricDataQueryProperty",
            "MetricStat": "MetricStatProperty",
            "Metric": "MetricProperty",
            "Dimensions": "DimensionProperty",
        },
        has_dimension_map=True,
    ),
    "AWS::CloudWatch::Dashboard": _ResourceType("aws_cloudwatch_dashboard", "aws_cloudwatch", "CfnDashboard"),
    "AWS::ApplicationAutoScaling::ScalableTarget": _ResourceType(
        "aws_appautoscaling_target", "aws_applicationautoscaling", "CfnScalableTarget"
    ),
    "AWS::ApplicationAutoScaling::ScalingPolicy": _ResourceType(
        "aws_appautoscaling_policy",
        "aws_applicationautoscaling",
        "CfnScalingPolicy",
        {
            "TargetTrackingScalingPolicyConfiguration": "TargetTrackingScalingPolicyConfigurationProperty",
            "CustomizedMetricSpecification": "CustomizedMetricSpecificationProperty",
            "Dimensions": "MetricDimensionProperty",
        },
    ),
}
_CDK_HEAD: Final = '''"""{description}."""

from aws_cdk import Stack
{imports}


class Monitoring(Stack):
    """Add this stack to your CDK app."""

    def __init__(self, scope, construct_id, {parameters}**options):
        super().__init__(scope, construct_id, **options)
'''


def terraform(template: Mapping[str, Any]) -> str:
    """Return the resources as Terraform configuration for the AWS provider, with a variable for each parameter."""
    blocks = [
        _block(
            f'variable "{_snake(name)}"',
            [f"default = {_hcl(each['Default'])}", f"description = {_hcl(each['Description'])}"],
        )
        for name, each in template.get("Parameters", {}).items()
    ]
    for name, resource in template["Resources"].items():
        body = list(_terraform_lines(_type(resource), resource["Properties"]))
        if "DependsOn" in resource:
            body.append(f"depends_on = [{_terraform_address(template, resource['DependsOn'])}]")
        blocks.append(_block(f'resource "{_type(resource).terraform}" "{_snake(name)}"', body))
    return "\n\n".join(blocks)


def cdk(template: Mapping[str, Any]) -> str:
    """Return the resources as a Python module with a CDK stack. The parameters become arguments of the stack."""
    defaults = {_snake(name): each["Default"] for name, each in template.get("Parameters", {}).items()}
    parameters = "".join(f"{name}={value!r}, " for name, value in defaults.items())
    head = _CDK_HEAD.replace("{description}", template["Description"].replace("\\", "").replace('"', "'"))
    head = head.replace("{parameters}", f"*, {parameters}" if parameters else "")
    modules = dict.fromkeys(_type(each).module for each in template["Resources"].values())
    imports = "\n".join(f"from aws_cdk import {each} as {each.removeprefix('aws_')}" for each in modules)
    head = head.replace("{imports}", imports)
    if "topic_arn" in defaults:
        head += "        actions = [topic_arn] if topic_arn else []\n"
    return head + "\n".join(_cdk_resource(*each) for each in template["Resources"].items())


def _type(resource: Resource) -> _ResourceType:
    return _RESOURCE_TYPES[resource["Type"]]


def _snake(name: str) -> str:
    return _WORD_START.sub("_", name).lower()


def _literal(value: Mapping[str, Any]) -> str:
    """Return the text of an ``Fn::Join``, which the template uses for text that contains ``${``."""
    separator, parts = value["Fn::Join"]
    text: str = separator.join(parts)
    return text


def _block(head: str, lines: list[str]) -> str:
    return "\n".join([f"{head} {{", *(f"  {line}" for each in lines for line in each.split("\n")), "}"])


def _hcl(value: Any) -> str:
    """Return a value as HCL. Text is escaped so that Terraform interprets only references to parameters."""
    if isinstance(value, dict) and "Ref" in value:
        return f"var.{_snake(value['Ref'])}"
    if isinstance(value, dict) and "Fn::Sub" in value:
        return _PARAMETER.sub(lambda found: f"${{var.{_snake(found[1])}}}", json.dumps(value["Fn::Sub"]))
    if isinstance(value, dict):
        value = _literal(value)
    if isinstance(value, str):
        value = value.replace("${", "$${").replace("%{", "%%{")
    return json.dumps(value, ensure_ascii=False)


def _terraform_lines(kind: _ResourceType, properties: Resource) -> Iterator[str]:
    """Yield an argument or a block for each property of a resource or of a nested object."""
    for name, value in properties.items():
        argument = _TERRAFORM_NAMES.get(name, _snake(name))
        if name in _ACTIONS:
            yield f'{name[:-7].lower()}_actions = var.topic_arn == "" ? [] : [var.topic_arn]'
        elif name == "MetricStat":
            flat = {**value["Metric"], "Period": value["Period"], "Stat": value["Stat"]}
            yield _block("metric", list(_terraform_lines(kind, flat)))
        elif name == "Dimensions" and kind.has_dimension_map:
            yield _block("dimensions =", [f"{_hcl(each['Name'])} = {_hcl(each['Value'])}" for each in value])
        elif isinstance(value, list) or _is_nested(value):
            blocks = value if isinstance(value, list) else [value]
            yield from (_block(argument, list(_terraform_lines(kind, each))) for each in blocks)
        else:
            yield f"{argument} = {_hcl(value)}"


def _is_nested(value: Any) -> bool:
    """Return whether a value is a nested object, rather than a call to a CloudFormation function."""
    return isinstance(value, dict) and not any(key == "Ref" or key.startswith("Fn::") for key in value)


def _terraform_address(template: Mapping[str, Any], name: str) -> str:
    return f"{_type(template['Resources'][name]).terraform}.{_snake(name)}"


def _cdk_resource(name: str, resource: Resource) -> str:
    kind = _type(resource)
    lines = [f'        {kind.cdk}(\n            self,\n            "{name}",']
    for key, value in resource["Properties"].items():
        text = "actions" if key in _ACTIONS else _python(kind, key, value, indent=12)
        lines.append(f"            {'ok_actions' if key == 'OKActions' else _snake(key)}={text},")
    needed = f'.node.add_dependency(self.node.find_child("{resource["DependsOn"]}"))' if "DependsOn" in resource else ""
    return "\n".join([*lines, f"        ){needed}\n"])


def _python(kind: _ResourceType, key: str, value: Any, *, indent: int) -> str:
    """Return a property's value as a Python expression."""
    if isinstance(value, list):
        members = [f"{' ' * (indent + 4)}{_python(kind, key, each, indent=indent + 4)},\n" for each in value]
        return f"[\n{''.join(members)}{' ' * indent}]"
    if not isinstance(value, dict):
        return repr(value)
    if "Ref" in value:
        return _snake(value["Ref"])
    if "Fn::Sub" in value:
        return "f" + repr(_PARAMETER.sub(lambda found: f"{{{_snake(found[1])}}}", value["Fn::Sub"]))
    if "Fn::Join" in value:
        return repr(_literal(value))
    arguments = ", ".join(f"{_snake(name)}={_python(kind, name, each, indent=indent)}" for name, each in value.items())
    return f"{kind.cdk}.{kind.nested[key]}({arguments})"


FORMATS: Final[Mapping[str, Callable[[Mapping[str, Any]], object]]] = {
    "cloudformation": dict,
    "terraform": terraform,
    "cdk": cdk,
}
"""Maps the name of each format to the function that converts a template to text or to a JSON object."""


def template_options(command: _F) -> _F:
    """Add the option ``--format``, which click passes to the command as ``form``, and the option ``--json``."""
    choice = click.option(
        "--format",
        "form",
        type=click.Choice(list(FORMATS)),
        default="cloudformation",
        show_default=True,
        help="A CloudFormation template, Terraform configuration, or a CDK stack in Python.",
    )
    return choice(json_option("the template and its price")(command))


def echo_output(output: object, form: str, *, as_json: bool, **facts: object) -> None:
    """Print ``output`` or, if ``as_json`` is true, a JSON object with the format, the output and ``facts``."""
    if as_json:
        echo_json({"format": form, "output": output, **facts})
    else:
        click.echo(output if isinstance(output, str) else json.dumps(output, indent=2))
