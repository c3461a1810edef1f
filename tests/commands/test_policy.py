import json

import pytest
from click.testing import CliRunner

from otel_cloudwatch_flask.cli import main
from otel_cloudwatch_flask.commands.policy import policy_document


@pytest.mark.parametrize("namespaces", [["Shop"], ["Shop", "Cafe"]])
def test_the_policy_allows_only_publishing(namespaces: list[str]) -> None:
    """The policy has one statement with one action, for exactly these namespaces."""
    (statement,) = policy_document(namespaces)["Statement"]
    assert statement["Effect"] == "Allow"
    assert statement["Action"] == "cloudwatch:PutMetricData"
    assert statement["Resource"] == "*"
    (operator,) = statement["Condition"].items()
    assert operator == ("StringEquals", {"cloudwatch:namespace": namespaces[0] if len(namespaces) == 1 else namespaces})


def test_a_namespace_contains_no_variables() -> None:
    """IAM does not replace any part of a namespace by the name of the caller."""
    (statement,) = policy_document(["Shop/${aws:username}"])["Statement"]
    assert statement["Condition"]["StringEquals"] == {"cloudwatch:namespace": "Shop/${$}{aws:username}"}


@pytest.mark.parametrize(
    ("arguments", "environment", "namespace"),
    [
        (["--namespace", "Shop"], {}, "Shop"),
        (["--namespace", "Shop", "--namespace", "Cafe", "--namespace", "Shop"], {}, ["Shop", "Cafe"]),
        ([], {"OTEL_EXPORTER_CLOUDWATCH_NAMESPACE": "Shop"}, "Shop"),
        ([], {"OTEL_SERVICE_NAME": "AWS/shop"}, "_AWS/shop"),
    ],
)
def test_the_namespace_is_the_configured_one(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str], namespace: object
) -> None:
    """The namespace is that of the option, or else the app's configured namespace."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(main, ["policy", *arguments])
    assert result.exit_code == 0
    condition = json.loads(result.output)["Statement"][0]["Condition"]["StringEquals"]
    assert condition["cloudwatch:namespace"] == namespace


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "pass --namespace NAME"), (["--namespace", "AWS/EC2"], "is reserved for AWS's own services")],
)
def test_a_namespace_is_required(monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    """A namespace is required, because a policy for all namespaces would not restrict anything."""
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    result = CliRunner().invoke(main, ["policy", *arguments])
    assert result.exit_code == 2
    assert message in result.output
