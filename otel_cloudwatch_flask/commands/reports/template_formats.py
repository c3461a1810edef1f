"""Create a CloudFormation template, and write it as Terraform configuration, or as a CDK stack in Python."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import click

from otel_cloudwatch_flask.commands.shared.command import CommandError, echo_json, json_option

_F = TypeVar("_F", bound=Callable[..., Any])
Resource: TypeAlias = dict[str, Any]

MAX_NAME_LENGTH: Final = 255
"""The maximum length of the name of an alarm."""
_MAX_DEPLOYED_BYTES: Final = 51_200
"""The size above which CloudFormation reads templates only from S3:
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html.
"""
_DYNAMIC_REFERENCE: Final = "{{resolve:"
"""The start of a reference that CloudFormation replaces with a parameter or a secret. There is no escape sequence:
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/dynamic-references.html.
"""
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ACTIONS: Final = ("AlarmActions", "OKActions")
_ALARM: Final = "aws_cloudwatch_metric_alarm"
_TERRAFORM_TYPES: Final = {
    "AWS::CloudWatch::Alarm": _ALARM,
    "AWS::CloudWatch::Dashboard": "aws_cloudwatch_dashboard",
    "AWS::ApplicationAutoScaling::ScalableTarget": "aws_appautoscaling_target",
    "AWS::ApplicationAutoScaling::ScalingPolicy": "aws_appautoscaling_policy",
}
_TERRAFORM_NAMES: Final = {
    "EvaluateLowSampleCountPercentile": "evaluate_low_sample_count_percentiles",
    "Metrics": "metric_query",
    "PolicyName": "name",
}
_CDK_HEAD: Final = '''"""{description}."""

from aws_cdk import CfnResource, Stack


class Monitoring(Stack):
    """Add this stack to your CDK app."""

    def __init__(self, scope, construct_id, {topic}**options):
        super().__init__(scope, construct_id, **options)
'''
_CDK_ACTIONS: Final = """\
        topics = [topic_arn] if topic_arn else []
        actions = {"AlarmActions": topics, "OKActions": topics}
"""


def template_of(resources: Mapping[str, Resource], description: str, **sections: Resource) -> dict[str, Any]:
    """Return a CloudFormation template with these resources and further sections, such as ``Parameters``."""
    head = {"AWSTemplateFormatVersion": "2010-09-09", "Description": printable(description)}
    return {**head, **sections, "Resources": resources}


def printable(text: str) -> str:
    """Return at most 255 characters of ``text``, the limit for the name of an alarm, with unprintable ones replaced."""
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_NAME_LENGTH])


def cloudformation(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the template. Raises :class:`CommandError` if CloudFormation would replace part of a name or dimension."""
    if _DYNAMIC_REFERENCE in json.dumps(template):
        raise CommandError(
            f"A name or dimension of a metric contains {_DYNAMIC_REFERENCE}, which CloudFormation would replace with "
            "a parameter or a secret. Drop the metric or dimension, or pass --format terraform."
        )
    return template


def terraform(template: Mapping[str, Any]) -> str:
    """Return the resources as Terraform configuration for the AWS provider, with a variable for each parameter."""
    blocks = [
        _block(
            f'variable "{_snake(name)}"',
            [f"default = {_hcl(each['Default'])}", f"description = {_hcl(each['Description'])}"],
        )
        for name, each in template.get("Parameters", {}).items()
    ]
    resources = template["Resources"]
    for name, resource in resources.items():
        kind = _TERRAFORM_TYPES[resource["Type"]]
        body = list(_terraform_lines(kind, resource["Properties"]))
        if needed := resource.get("DependsOn"):
            body.append(f"depends_on = [{_TERRAFORM_TYPES[resources[needed]['Type']]}.{_snake(needed)}]")
        blocks.append(_block(f'resource "{kind}" "{_snake(name)}"', body))
    return "\n\n".join(blocks)


def cdk(template: Mapping[str, Any]) -> str:
    """Return the resources as a Python module with a CDK stack. Alarms notify the topic that is its argument.

    Raises :class:`CommandError` like :func:`cloudformation`, because the CDK creates a CloudFormation template.
    """
    template = cloudformation(template)
    has_topic = "Parameters" in template
    description = template["Description"].replace("\\", "").replace('"', "'")
    head = _CDK_HEAD.replace("{topic}", '*, topic_arn="", ' if has_topic else "").replace("{description}", description)
    resources = (_cdk_resource(*each) for each in template["Resources"].items())
    return head + (_CDK_ACTIONS if has_topic else "") + "\n".join(resources)


def _snake(name: str) -> str:
    return _WORD_START.sub("_", name).lower()


def _block(head: str, lines: list[str]) -> str:
    return "\n".join([f"{head} {{", *(f"  {line}" for each in lines for line in each.split("\n")), "}"])


def _hcl(value: object) -> str:
    """Return a value as HCL. Text is escaped so that Terraform interprets no part of it."""
    return json.dumps(value, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


def _terraform_lines(kind: str, properties: Resource) -> Iterator[str]:
    """Yield an argument or a block for each property of a resource or of a nested object."""
    for name, value in properties.items():
        argument = _TERRAFORM_NAMES.get(name, _snake(name))
        if name in _ACTIONS:
            yield f'{name[:-7].lower()}_actions = var.topic_arn == "" ? [] : [var.topic_arn]'
        elif name == "MetricStat":
            flat = {**value["Metric"], "Period": value["Period"], "Stat": value["Stat"]}
            yield _block("metric", list(_terraform_lines(kind, flat)))
        elif name == "Dimensions" and kind == _ALARM:
            yield _block("dimensions =", [f"{_hcl(each['Name'])} = {_hcl(each['Value'])}" for each in value])
        elif isinstance(value, (dict, list)):
            blocks = value if isinstance(value, list) else [value]
            yield from (_block(argument, list(_terraform_lines(kind, each))) for each in blocks)
        else:
            yield f"{argument} = {_hcl(value)}"


def _cdk_resource(name: str, resource: Resource) -> str:
    fixed = {key: value for key, value in resource["Properties"].items() if key not in _ACTIONS}
    actions = "" if fixed == resource["Properties"] else "actions | "
    # JSON escapes the quotes in a text, so the text around them is not replaced.
    properties = json.dumps(fixed, indent=4, ensure_ascii=False).replace('"ReturnData": true', '"ReturnData": True')
    properties = properties.replace('"ReturnData": false', '"ReturnData": False').replace("\n", "\n" + " " * 12)
    needed = f'.node.add_dependency(self.node.find_child("{resource["DependsOn"]}"))' if "DependsOn" in resource else ""
    return f"""\
        CfnResource(
            self,
            "{name}",
            type="{resource["Type"]}",
            properties={actions}{properties},
        ){needed}
"""


FORMATS: Final[Mapping[str, Callable[[Mapping[str, Any]], object]]] = {
    "cloudformation": cloudformation,
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
        help="Print a CloudFormation template, Terraform configuration, or a CDK stack in Python.",
    )
    return choice(json_option("the template and its price")(command))


def echo_output(output: object, form: str, *, as_json: bool, **facts: object) -> None:
    """Print ``output`` or, if ``as_json`` is true, a JSON object with the format, the output and ``facts``."""
    if as_json:
        echo_json({"format": form, "output": output, **facts})
        return
    text = output if isinstance(output, str) else json.dumps(output, indent=2)
    size_bytes = len(text) + 1  # with the final newline
    if form == "cloudformation" and size_bytes > _MAX_DEPLOYED_BYTES:
        click.echo(
            f"The template is {size_bytes:,} bytes long. To deploy more than {_MAX_DEPLOYED_BYTES:,} bytes, pass "
            "--s3-bucket BUCKET to aws cloudformation deploy.",
            err=True,
        )
    click.echo(text)
