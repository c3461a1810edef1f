"""Text from other programs is written to one line, and its secrets are masked."""

import time

import boto3
import pytest
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st

from otel_cloudwatch_flask.delivery.error_codes import failure
from otel_cloudwatch_flask.runtime.safe_text import one_line, safe_repr, without_secrets


@given(st.text())
def test_one_line(text: str) -> None:
    """Any text becomes one printable line of bounded length that can be encoded as UTF-8."""
    line = one_line(text * 50)
    assert len(line.splitlines()) <= 1
    assert not set(line) & set("\n\r\x1b\x00\x85\u2028\u202e")
    assert len(line) <= 2000
    assert line.encode().decode() == line


@pytest.mark.parametrize("text", ["CloudWatch said no: 400", "Größe", "Zürich 東京", "C:\\temp"])
def test_what_is_harmless_stays(text: str) -> None:
    """Only control characters are escaped."""
    assert one_line(text) == without_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("POST\nx-amz-security-token:IQoJb3JpZ2luX2VjE==\nhost", "POST\nx-amz-security-token:***\nhost"),
        ('{"SecretAccessKey": "wJalrXUt/nFEMI", "x": 1}', '{"SecretAccessKey": "***", "x": 1}'),
        ("aws_session_token=abc, aws_secret_access_key = d/e+f", "aws_session_token=***, aws_secret_access_key = ***"),
        ("SignedHeaders=host, Signature=0123abcd", "SignedHeaders=host, Signature=***"),
        ("?X-Amz-Signature=0123&X-Amz-Security-Token=ab%2F&a=b", "?X-Amz-Signature=***&X-Amz-Security-Token=***&a=b"),
        (
            "proxy http://user:pass@proxy:3128 or https://token@host/",
            "proxy http://***@proxy:3128 or https://***@host/",
        ),
        ("proxy http://user:p#a/s@s?@proxy:3128, quoted", "proxy http://***@proxy:3128, quoted"),
        ("https://monitoring.eu-west-1.amazonaws.com/a@b", "https://monitoring.eu-west-1.amazonaws.com/a@b"),
        ("The request signature we calculated does not match", "The request signature we calculated does not match"),
        (
            "The security token included in the request is expired",
            "The security token included in the request is expired",
        ),
    ],
)
def test_secrets(text: str, masked: str) -> None:
    """Credentials and signatures are masked; the rest of the message is unchanged."""
    assert without_secrets(text) == masked


@pytest.mark.parametrize("text", ["://a:", '"a://', "Failed to parse: '", "://a@", "token="])
def test_long_texts_take_no_time(text: str) -> None:
    """Masking takes linear time, however repetitive the text; a quadratic search would take minutes."""
    begun = time.process_time()
    without_secrets(text * 50_000)
    assert time.process_time() - begun < 20


@pytest.mark.parametrize("password", ["Q#Q", "Q@Q", "Q/Q", "Q?Q", "Q:Q", "Q Q", "Q%23Q", "Q'#Q", "#Q", "1#Q"])
@pytest.mark.parametrize("place", ["proxy", "endpoint"])
def test_passwords_that_botocore_cannot_parse(place: str, password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Error messages never reveal a password, even one with reserved characters that botocore cannot parse."""
    url = f"http://user:{password}@127.0.0.1:9"
    monkeypatch.setenv("HTTP_PROXY", url if place == "proxy" else "")
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", url if place == "endpoint" else "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("NO_PROXY", raising=False)
    try:
        client = boto3.client("cloudwatch", region_name="us-east-1", config=Config(retries={"total_max_attempts": 1}))
        client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1}])
    except Exception as error:  # noqa: BLE001 - whatever it is
        message = failure(error).message
    assert "Q" not in message, message


class Hostile:
    """An object whose ``repr()`` raises."""

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Shop", "'Shop'"),
        (10**5000, "<unprintable int object>"),
        ([10**5000], "<unprintable list object>"),
        (Hostile(), "<unprintable Hostile object>"),
    ],
    ids=["text", "int", "list", "object"],  # pytest cannot print these either
)
def test_every_value_can_be_shown(value: object, text: str) -> None:
    """Ints of more than 4,300 digits, and objects whose ``repr()`` raises, are described by their type."""
    assert safe_repr(value) == text
