"""Credentials or a Region that are missing at first or expire: no metric is lost, and one warning names them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.cloudwatch import EXPIRED_TOKEN, FailingCloudWatch
from tests.reliability.processes import Program

CREDENTIALS = "[default]\naws_access_key_id = testing\naws_secret_access_key = testing\n"
REGION = "[default]\nregion = us-east-1\n"

CREDENTIALS_LATE: dict[str, str | None] = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
REGION_LATE: dict[str, str | None] = {"AWS_DEFAULT_REGION": None}


def fail_three_times(program: Program) -> None:
    """Record and flush until three requests have failed."""
    orders = 0
    while program.do("stats")["requests_failed"] < 3:
        orders = program.do("add", 1)
        assert program.do("flush", 0.5) is False
    assert orders


@pytest.mark.parametrize(
    ("variables", "file_variable", "content"),
    [
        (CREDENTIALS_LATE, "AWS_SHARED_CREDENTIALS_FILE", CREDENTIALS),
        (REGION_LATE, "AWS_CONFIG_FILE", REGION),
    ],
    ids=["credentials", "region"],
)
def test_missing_at_first(  # noqa: PLR0917
    cloudwatch: FailingCloudWatch,
    tmp_path: Path,
    variables: dict[str, str | None],
    file_variable: str,
    content: str,
    figures: Callable[..., None],
) -> None:
    """Credentials or a Region that become available while the process runs are used, after a single warning."""
    file = tmp_path / "appears later"
    variables = {**variables, file_variable: str(file)}
    with Program(cloudwatch, tmp_path / "log", "measure", **variables) as program:
        fail_three_times(program)
        file.write_text(content)
        orders = program.do("add", 100)
        assert program.do("flush", 60)
        stats = program.do("stats")
        said = program.said()
    assert (cloudwatch.published.sum("Orders"), stats["datums_lost"]) == (orders, {})
    assert said.count("WARNING") == said.count("Cannot send metrics; they are kept and will be retried.") == 1
    figures(failed_calls=stats["requests_failed"], published=orders, warnings=1)


def test_credentials_that_expire(cloudwatch: FailingCloudWatch, tmp_path: Path, figures: Callable[..., None]) -> None:
    """Credentials that expire twice and are renewed cause one warning per expiry."""
    with Program(cloudwatch, tmp_path / "log") as program:
        program.do("add", 1)
        assert program.do("flush", 30)
        for outage in (1, 2):
            cloudwatch.always(EXPIRED_TOKEN)
            failures = program.do("stats")["requests_failed"]
            while program.do("stats")["requests_failed"] < failures + 3:
                orders = program.do("add", 1)
                assert program.do("flush", 0.5) is False
            cloudwatch.always(None)
            assert program.do("flush", 60)
            assert cloudwatch.published.sum("Orders") == orders
            assert program.said().count("Cannot send metrics; they are kept and will be retried.") == outage
        stats = program.do("stats")
    assert stats["datums_lost"] == {}
    figures(failed_calls=stats["requests_failed"], published=cloudwatch.published.sum("Orders"), warnings=2)
