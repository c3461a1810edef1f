"""Test vectors: OpenTelemetry input, and the CloudWatch requests expected from it; see vectors/README.md."""

import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.vectors.expectations import NAMESPACE, Export, Run, run_faults
from tests.vectors.harness import Case, faults_of, load_cases
from tests.vectors.inputs import Json
from tests.vectors.request_checks import Datum


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in load_cases()])
def test_what_arrives_is_what_the_vector_expects(case: Case) -> None:
    """The exporter sends exactly the requests that the vector expects."""
    assert faults_of(case) == [], case.why


def test_a_vector_has_an_id_of_its_own() -> None:
    """Vector IDs are unique, so that a failure identifies one case."""
    ids = [case.id for case in load_cases()]
    assert len(set(ids)) == len(ids)


HISTOGRAM: Json = {
    "kind": "histogram",
    "points": [{"bounds": [10, 20], "counts": [1, 3, 1], "sum": 75, "min": 5, "max": 25}],
}
EXPECTED: Json = {
    "series": [
        {
            "dims": {},
            "unit": "None",
            "count_exact": 5,
            "sum_rel_1e-9": 75,
            "min_exact": 5,
            "max_exact": 25,
            "values_within_bucket": True,
            "percentile": {"p50": [10, 20]},
        }
    ],
    "datums": 1,
    "requests": 1,
    "lost": 0,
}


def histogram_datum(**changes: Any) -> dict[str, Any]:
    """Return the datum that ``EXPECTED`` describes, with these changes."""
    values = {"Values": [5.0, 15.0, 25.0], "Counts": [1, 3, 1]}
    return {"MetricName": "m", "Timestamp": time.time(), "Unit": "None", **values, **changes}


def verdict(*datums: Datum, expect: Json = EXPECTED, lost: int = 0) -> list[str]:
    """Return the errors for an export of ``HISTOGRAM`` that sends these datums in one request."""
    requests = [{"Namespace": NAMESPACE, "MetricData": datums}] if datums else []
    return run_faults(expect, Run([Export([HISTOGRAM], requests, lost)]), now=time.time())


def test_the_judge_accepts_the_right_datum() -> None:
    """A correct datum has no errors."""
    assert verdict(histogram_datum()) == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"Counts": [1, 2, 1]}, "count_exact", id="count_off_by_one"),
        pytest.param({"Counts": [1, 2, 2]}, "not within 20", id="sample_in_the_wrong_bucket"),
        pytest.param({"Values": [5.0, 9.5, 17.75, 25.0], "Counts": [1, 1, 2, 1]}, "not within 10", id="value_astray"),
        pytest.param({"Values": [5.0, 15.000001, 25.0]}, "the sum is", id="sum_off"),
        pytest.param({"Values": [5.5, 15.0, 24.5]}, "min_exact", id="minimum_lost"),
        pytest.param({"Values": [5.0, 15.5, 23.5]}, "max_exact", id="maximum_lost"),
        pytest.param({"Unit": "Seconds"}, "unit", id="unit"),
        pytest.param({"StorageResolution": 1}, "resolution", id="resolution"),
        pytest.param({"Dimensions": [{"Name": "k", "Value": "v"}]}, "unexpected", id="dimension"),
        pytest.param({"MetricName": "n"}, "unexpected", id="name"),
        pytest.param({"Counts": [1, 0, 1]}, "counts", id="count_of_zero"),
        pytest.param({"Counts": [5]}, "3 values and 1 counts", id="count_missing"),
        pytest.param({"Values": [5.0, float("nan"), 25.0]}, "beyond 2^360", id="nan"),
        pytest.param({"Values": [5.0, 1e-300, 25.0]}, "below 2^-360", id="too_small"),
        pytest.param({"Values": [5.0, 5.0, 25.0]}, "twice", id="value_twice"),
        pytest.param({"Value": 15.0}, "as its value", id="two_forms"),
        pytest.param({"Timestamp": 0}, "timestamp", id="too_old"),
        pytest.param({"Dimensions": [{"Name": "k", "Value": " "}]}, "dimension value", id="blank_dimension"),
        pytest.param({"Unit": "Parsecs"}, "unit", id="no_unit_of_cloudwatch"),
    ],
)
def test_the_judge_finds_a_wrong_datum(changes: Mapping[str, Any], complaint: str) -> None:
    """A single wrong member of a datum is found and named."""
    assert any(complaint in fault for fault in verdict(histogram_datum(**changes)))


def test_the_judge_finds_an_extra_datum() -> None:
    """An unexpected datum is an error."""
    assert any("unexpected" in fault for fault in verdict(histogram_datum(), histogram_datum(MetricName="n")))


def test_the_judge_finds_a_series_sent_twice() -> None:
    """Two datums of one series in one export are an error."""
    assert any("2 datums" in fault for fault in verdict(histogram_datum(), histogram_datum()))


def test_the_judge_finds_a_missing_series() -> None:
    """A missing datum is an error, unless it may be absent."""
    assert any("0 datums" in fault for fault in verdict())
    assert verdict(expect={"series": [{"may_be_absent": True}]}) == []


def test_the_judge_finds_an_oversize_request() -> None:
    """A request within the limit of a thousand datums may still exceed the byte limit."""
    dimensions = [{"Name": "k", "Value": "v" * 1000}]
    datums = [histogram_datum(MetricName=f"m{index}", Dimensions=dimensions) for index in range(1000)]
    assert [fault for fault in verdict(*datums) if fault.startswith("a request of 11")]


def test_the_judge_finds_an_unaccounted_loss() -> None:
    """A difference between expected and counted losses is an error."""
    assert verdict(histogram_datum(), lost=1) == ["export 0: lost: 1, not 0"]
    assert verdict(expect={"lost_at_least": 1}) == ["export 0: lost: 0, not at least 1"]


def test_the_judge_lets_one_value_stand_for_neighboring_buckets_only_where_it_must() -> None:
    """Two buckets may share a value if there are 149 non-empty buckets, but not if there are 148."""
    assert not joint_value_verdict(filled_buckets=149)
    assert any("not within" in fault for fault in joint_value_verdict(filled_buckets=148))


def joint_value_verdict(*, filled_buckets: int) -> list[str]:
    """Return the errors if the first two of many buckets share a value."""
    point = {"bounds": list(range(1, filled_buckets)), "counts": [1] * filled_buckets, "sum": 0}
    values = [0.5, *(index + 0.5 for index in range(2, filled_buckets))]
    datum = histogram_datum(Values=values, Counts=[2, *[1] * (filled_buckets - 2)])
    return verdict(datum, expect={"series": [{"values_within_bucket": point}]})


def test_unknown_expectations_are_errors() -> None:
    """A misspelled expectation is an error, so that no check is skipped silently."""
    with pytest.raises(ValueError, match="sereis"):
        verdict(histogram_datum(), expect={"sereis": []})
