"""Write a CloudFormation template of alarms or dashboards as Terraform configuration, or as a CDK stack in Python."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from otel_cloudwatch_flask.commands.reports.alarm_template import Resource

_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PARAMETER: Final = re.compile(r"\$\{(\w+)\}")
_RESOURCE_TYPES: Final = {
    "AWS::CloudWatch::Alarm": ("aws_cloudwatch_metric_alarm", "CfnAlarm"),
    "AWS::CloudWatch::Dashboard": ("aws_cloudwatch_dashboard", "CfnDashboard"),
}
"""Maps each CloudFormation resource type to the Terraform resource type and the CDK construct."""
_ACTIONS: Final = ("AlarmActions", "OKActions")
_TERRAFORM_NAMES: Final = {"EvaluateLowSampleCountPercentile": "evaluate_low_sample_count_percentiles"}
_CDK_TYPES: Final = {
    "Metrics": "MetricDataQueryProperty",
    "MetricStat": "MetricStatProperty",
    "Metric": "MetricProperty",
    "Dimensions": "DimensionProperty",
}
_CDK_HEAD: Final = '''"""{description}."""

from aws_cdk import Stack
from aws_cdk import aws_cloudwatch as cloudwatch


class Monitoring(Stack):
    """Add this stack to your CDK app."""

    def __init__(self, scope, construct_id, {parameters}**options):
        super().__init__(scope, construct_id, **options)
'''


def cloudformation(template: Mapping[str, Any]) -> str:
    """Return the template as JSON."""
    return json.dumps(template, indent=2)


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
        body = list(_terraform_resource(resource["Properties"]))
        kind, _ = _RESOURCE_TYPES[resource["Type"]]
        blocks.append(_block(f'resource "{kind}" "{_snake(name)}"', body))
    return "\n\n".join(blocks)


def cdk(template: Mapping[str, Any]) -> str:
    """Return the resources as a Python module with a CDK stack. The parameters become arguments of the stack."""
    defaults = {_snake(name): each["Default"] for name, each in template.get("Parameters", {}).items()}
    parameters = "".join(f"{name}={value!r}, " for name, value in defaults.items())
    head = _CDK_HEAD.replace("{description}", template["Description"].replace("\\", "").replace('"', "'"))
    head = head.replace("{parameters}", f"*, {parameters}" if parameters else "")
    if "topic_arn" in defaults:
        head += "        actions = [topic_arn] if topic_arn else []\n"
    return head + "\n".join(_cdk_resource(*each) for each in template["Resources"].items())


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


def _terraform_resource(properties: Resource) -> Iterator[str]:
    for name, value in properties.items():
        if name == "Metrics":
            yield from (_block("metric_query", list(_terraform_query(query))) for query in value)
        elif name == "Dimensions":
            yield _terraform_dimensions(value)
        elif name in _ACTIONS:
            yield f'{name[:-7].lower()}_actions = var.topic_arn == "" ? [] : [var.topic_arn]'
        else:
            yield f"{_TERRAFORM_NAMES.get(name, _snake(name))} = {_hcl(value)}"


def _terraform_query(query: Resource) -> Iterator[str]:
    for name, value in query.items():
        if name == "MetricStat":
            flat = {**value["Metric"], "Period": value["Period"], "Stat": value["Stat"]}
            yield _block("metric", list(_terraform_resource(flat)))
        else:
            yield f"{_snake(name)} = {_hcl(value)}"


def _terraform_dimensions(dimensions: list[Resource]) -> str:
    return _block("dimensions =", [f"{_hcl(each['Name'])} = {_hcl(each['Value'])}" for each in dimensions])


def _cdk_resource(name: str, resource: Resource) -> str:
    _, construct = _RESOURCE_TYPES[resource["Type"]]
    arguments = [f'        cloudwatch.{construct}(\n            self,\n            "{name}",']
    for key, value in resource["Properties"].items():
        text = "actions" if key in _ACTIONS else _python(key, value, indent=12)
        arguments.append(f"            {'ok_actions' if key == 'OKActions' else _snake(key)}={text},")
    return "\n".join([*arguments, "        )\n"])


def _python(key: str, value: Any, *, indent: int) -> str:
    """Return a property's value as a Python expression."""
    if isinstance(value, list):
        members = [f"{' ' * (indent + 4)}{_python(key, each, indent=indent + 4)},\n" for each in value]
        return f"[\n{''.join(members)}{' ' * indent}]"
    if not isinstance(value, dict):
        return repr(value)
    if "Ref" in value:
        return _snake(value["Ref"])
    if "Fn::Sub" in value:
        return "f" + repr(_PARAMETER.sub(lambda found: f"{{{_snake(found[1])}}}", value["Fn::Sub"]))
    if "Fn::Join" in value:
        return repr(_literal(value))
    arguments = ", ".join(f"{_snake(name)}={_python(name, each, indent=indent)}" for name, each in value.items())
    return f"cloudwatch.CfnAlarm.{_CDK_TYPES[key]}({arguments})"


FORMATS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "cloudformation": cloudformation,
    "terraform": terraform,
    "cdk": cdk,
}
"""Maps the name of each format to the function that writes it."""
