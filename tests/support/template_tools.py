"""Check generated resources with the tools that deploy them: cfn-lint, Terraform parsers and the CDK."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def cfn_lint(folder: Path, template: str) -> str:
    """Return cfn-lint's output for a template, which is empty if the template is valid.

    E1029 is ignored: it assumes that text such as ``${AWS::Region}`` is meant to be replaced, although CloudFormation
    replaces nothing outside of ``Fn::Sub``.
    """
    path = folder / "template.json"
    path.write_text(template, "utf-8")
    program = Path(sys.executable).with_name("cfn-lint")
    command = [str(program), "--include-checks", "I", "--ignore-checks", "E1029", "--", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert bool(ended.returncode) == bool(ended.stdout), ended.stderr
    return ended.stdout


def parsed_terraform(text: str) -> dict[str, Any]:
    """Return a Terraform configuration as parsed by python-hcl2; skip the test if that is not installed."""
    hcl2 = pytest.importorskip("hcl2", reason="needs python-hcl2")
    parsed: dict[str, Any] = hcl2.loads(text)
    return parsed


def synthesized(folder: Path, source: str, **arguments: str) -> dict[str, Any]:
    """Return the resources that the CDK creates from a module with a stack; skip the test without the CDK."""
    compile(source, "stack.py", "exec")
    aws_cdk = pytest.importorskip("aws_cdk", reason="needs aws-cdk-lib and Node.js")
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # noqa: S102 - the module that the command prints
    app = aws_cdk.App(outdir=str(folder))
    namespace["Monitoring"](app, "Stack", **arguments)
    resources: dict[str, Any] = app.synth().get_stack_by_name("Stack").template["Resources"]
    return {name: each for name, each in resources.items() if each["Type"] != "AWS::CDK::Metadata"}
