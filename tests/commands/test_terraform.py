"""HashiCorp's own parser, fetched from npm, accepts the Terraform configuration of every command."""

import json
import shutil
import subprocess
from typing import Any

import pytest

from otel_cloudwatch_flask.commands.reports.alarm_template import Thresholds, alarms
from otel_cloudwatch_flask.commands.reports.dashboard_body import dashboard
from otel_cloudwatch_flask.commands.reports.scaling_template import ScalableTarget, Tracking, scaling_template
from otel_cloudwatch_flask.commands.reports.template_formats import terraform
from otel_cloudwatch_flask.commands.shared.document import SeriesSummary
from tests.commands.test_alarms import HOSTILE, duration
from tests.support.npm_packages import fetched

PARSE = """
const { parse } = require("@cdktf/hcl2json");
parse("main.tf", require("fs").readFileSync(0, "utf8")).then(
    (parsed) => { process.stdout.write(JSON.stringify(parsed), () => process.exit(0)); },
    (error) => { process.stderr.write(String(error), () => process.exit(1)); },
);
"""
REQUESTS = [duration(route, p99=1.0) for route in HOSTILE]
NAMED = [SeriesSummary(f"Shop {text}", text, ((text, text),), "Count") for text in HOSTILE]
TARGET = ScalableTarget("service/shop/web", "ecs:service:DesiredCount", 2, 20)
TEMPLATES = {
    "alarms": alarms(REQUESTS, Thresholds(), routes=10).template,
    "anomaly detection": alarms(REQUESTS, Thresholds(is_learned=True), routes=10).template,
    "dashboard": dashboard([*REQUESTS, *NAMED], region="us-east-1", name=HOSTILE[0]).template(),
    **{f"scaling on {each.name}": scaling_template(each, Tracking("Sum", 4, 60, 300), TARGET) for each in NAMED},
}


def ran(config: pytest.Config, text: str) -> "subprocess.CompletedProcess[str]":
    """Parse Terraform configuration with HashiCorp's parser, compiled to WebAssembly (MPL-2.0)."""
    assert config.cache is not None
    modules = fetched(config.cache, "@cdktf/hcl2json", "0.21.0")
    command = [shutil.which("node") or "node", "-e", PARSE]
    return subprocess.run(
        command, cwd=modules.parent, input=text, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_parser_reads_every_resource(pytestconfig: pytest.Config) -> None:
    """The parser finds all resources and variables, and no name or value is an expression."""
    blocks = [terraform(template) for template in TEMPLATES.values()]
    ended = ran(pytestconfig, "\n\n".join(blocks))
    assert ended.returncode == 0, ended.stderr
    parsed: dict[str, Any] = json.loads(ended.stdout)
    found = sum(len(each) for named in parsed["resource"].values() for each in named.values())
    assert found == sum(len(template["Resources"]) for template in TEMPLATES.values())
    assert parsed["variable"].keys() == {"topic_arn"}
    policies = parsed["resource"]["aws_appautoscaling_policy"]["policy"]
    expected = [name.replace("${", "$${").replace("%{", "%%{") for name in HOSTILE]
    assert [_metric_name(policy) for policy in policies] == expected


def _metric_name(policy: dict[str, Any]) -> object:
    (configuration,) = policy["target_tracking_scaling_policy_configuration"]
    (metric,) = configuration["customized_metric_specification"]
    return metric["metric_name"]


def test_the_parser_refuses_a_fault(pytestconfig: pytest.Config) -> None:
    """An unescaped reference is an error, which shows that the parser interprets text."""
    assert "Invalid expression" in ran(pytestconfig, 'variable "x" {\n  default = "${}"\n}\n').stderr
