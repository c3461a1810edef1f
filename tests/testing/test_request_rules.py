import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from botocore.session import get_session
from botocore.utils import parse_to_aware_datetime
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from otel_cloudwatch_flask.model.units import CLOUDWATCH_UNITS
from otel_cloudwatch_flask.testing.request_rules import is_acceptable_number, unix_time, validation_error

NOW = 1_800_000_000.0
DAY = 24 * 3600
PUT_METRIC_DATA = get_session().get_service_model("cloudwatch").operation_model("PutMetricData")
STATISTICS = {"SampleCount": 2, "Sum": 3.0, "Minimum": 1.0, "Maximum": 2.0}


def datum(*without: str, **members: Any) -> dict[str, Any]:
    """Return a valid datum with these members changed or omitted."""
    every = {"MetricName": "Orders", "Value": 1, **members}
    return {name: value for name, value in every.items() if name not in without}


def request(*datums: object, **members: Any) -> dict[str, Any]:
    """Return a request with these datums."""
    return {"Namespace": "Shop", "MetricData": list(datums), **members}


def dimensions(number: int) -> list[dict[str, str]]:
    """Return this number of distinct dimensions."""
    return [{"Name": f"d{i}", "Value": "x"} for i in range(number)]


def dimension(name: object, value: object) -> dict[str, Any]:
    """Return a datum with one dimension."""
    return datum(Dimensions=[{"Name": name, "Value": value}])


def values(*numbers: object, **members: Any) -> dict[str, Any]:
    """Return a datum with several values."""
    return datum("Value", Values=list(numbers), **members)


def statistics(**members: Any) -> dict[str, Any]:
    """Return a datum with a statistic set, with these members changed."""
    return datum("Value", StatisticValues={**STATISTICS, **members})


ACCEPTED = {
    "one value": datum(),
    "zero": datum(Value=0),
    "largest": datum(Value=-(2.0**360)),
    "smallest": datum(Value=2.0**-360),
    "values without counts": values(1, 2.5),
    "150 values": values(*range(150), Counts=[0.5] * 150),
    "statistics": statistics(),
    "all statistics the same": statistics(Minimum=2, Maximum=2),
    "30 dimensions": datum(Dimensions=dimensions(30)),
    "longest dimension": dimension("n" * 255, "v" * 1024),
    "colon within a name": dimension("a:b", ":c"),
    "blank at an edge": dimension("a", " b"),
    "longest name": datum(MetricName="n" * 255),
    "name with blanks": datum(MetricName="Request Count ✓"),
    "two weeks old": datum(Timestamp=NOW - 14 * DAY),
    "two hours ahead": datum(Timestamp=int(NOW) + 2 * 3600),
    "datetime": datum(Timestamp=datetime.fromtimestamp(NOW, timezone.utc)),
    "ISO string": datum(Timestamp="2027-01-15T08:00:00Z"),
    "high resolution": datum(StorageResolution=1),
}

NUMBER_FAULTS: list[tuple[object, str]] = [
    (math.nan, "The value NaN for"),
    (math.inf, "The value Infinity for"),
    (-math.inf, "The value -Infinity for"),
    ("NaN", "The value NaN for"),
    ("1", "The value 1 for"),
    (True, "The value true for"),
    (2.0**361, "is invalid"),
    (10**400, "is invalid"),
    (-(2.0**-361), "is invalid"),
    (5e-324, "is invalid"),
]

VALUE, COMBINATION, MISSING, UNKNOWN = (
    "InvalidParameterValue",
    "InvalidParameterCombination",
    "MissingParameter",
    "ValidationError",
)
DATUM_FAULTS: dict[str, tuple[object, str, str]] = {
    "not a structure": (7, VALUE, "MetricData.member.2 is invalid"),
    "unknown member": (datum(Storage=1), UNKNOWN, "MetricData.member.2.Storage is unknown"),
    "no name": (datum("MetricName"), MISSING, "MetricData.member.2.MetricName"),
    "empty name": (datum(MetricName=""), VALUE, "MetricName must be longer than 0"),
    "long name": (datum(MetricName="n" * 256), VALUE, "MetricName must be shorter than 256"),
    "name not text": (datum(MetricName=5), VALUE, "MetricName is invalid"),
    "no value": (datum("Value"), MISSING, "MetricData.member.2.Value is required"),
    "no value but null": (datum(Value=None), MISSING, "MetricData.member.2.Value is required"),
    "value and values": (datum(Values=[1]), COMBINATION, "member.2.Value and MetricData.member.2.Values are mutually"),
    "value and statistics": (datum(StatisticValues=STATISTICS), COMBINATION, "member.2.StatisticValues are mutually"),
    "values and statistics": (
        values(1, StatisticValues=STATISTICS),
        COMBINATION,
        "Values and MetricData.member.2.Stat",
    ),
    "counts alone": (datum(Counts=[1]), MISSING, "MetricData.member.2.Values is required"),
    "no values": (values(), VALUE, "Values must not be empty"),
    "151 values": (values(*range(151)), VALUE, "collection MetricData.member.2.Values must not have a size greater"),
    "values not a list": (datum("Value", Values=5), VALUE, "Values is invalid"),
    "a bad value": (values(1, math.nan), VALUE, "The value NaN for parameter MetricData.member.2.Values.member.2"),
    "too few counts": (values(1, 2, Counts=[1]), VALUE, "must be of the same size"),
    "a zero count": (values(1, 2, Counts=[1, 0]), VALUE, "Counts.member.2 must be greater than 0"),
    "a negative count": (values(1, Counts=[-1]), VALUE, "Counts.member.1 must be greater than 0"),
    "a bad count": (values(1, Counts=[math.inf]), VALUE, "Infinity for parameter MetricData.member.2.Counts.member.1"),
    "statistics not a structure": (datum("Value", StatisticValues=1), VALUE, "StatisticValues is invalid"),
    "statistics incomplete": (statistics(Sum=None), MISSING, "StatisticValues.Sum is required"),
    "statistics unknown": (statistics(Average=1), UNKNOWN, "StatisticValues.Average"),
    "statistics of nothing": (statistics(SampleCount=0), VALUE, "SampleCount must be greater than 0"),
    "statistics crossed": (statistics(Minimum=3), VALUE, "Maximum must not be less than MetricData.member.2.Stat"),
    "statistics infinite": (statistics(Maximum=math.inf), VALUE, "The value Infinity for parameter"),
    "unit": (datum(Unit="Bogus"), VALUE, "Unit must be a value in the set [ Seconds,"),
    "unit in lower case": (datum(Unit="count"), VALUE, "Unit must be"),
    "unit not text": (datum(Unit=["Count"]), VALUE, "Unit must be"),
    "resolution": (datum(StorageResolution=5), VALUE, "StorageResolution must be a value in the set [ 1, 60 ]"),
    "resolution a bool": (datum(StorageResolution=True), VALUE, "StorageResolution must be"),
    "resolution a float": (datum(StorageResolution=60.0), VALUE, "StorageResolution must be"),
    "null": (datum(Unit=None), VALUE, "The value null for parameter MetricData.member.2.Unit is invalid"),
    "too old": (datum(Timestamp=NOW - 14 * DAY - 1), VALUE, "Timestamp must specify a time within the past two weeks"),
    "too new": (datum(Timestamp=NOW + 7201), VALUE, "Timestamp must specify a time no more than two hours"),
    "milliseconds": (datum(Timestamp=NOW * 1000), VALUE, "Timestamp must specify"),
    "no time": (datum(Timestamp=math.nan), VALUE, "Timestamp is invalid"),
    "endless time": (datum(Timestamp=math.inf), VALUE, "Timestamp is invalid"),
    "time not readable": (datum(Timestamp="yesterday"), VALUE, "The value yesterday for parameter"),
    "time a bool": (datum(Timestamp=True), VALUE, "Timestamp is invalid"),
    "31 dimensions": (datum(Dimensions=dimensions(31)), VALUE, "Dimensions must not have a size greater than 30"),
    "dimensions a mapping": (datum(Dimensions={"a": "b"}), VALUE, "Dimensions is invalid"),
    "a dimension twice": (datum(Dimensions=dimensions(1) * 2), VALUE, "Dimensions.member.2.Name must not be the name"),
    "dimension not a structure": (datum(Dimensions=["a"]), VALUE, "Dimensions.member.1 is invalid"),
    "dimension without value": (datum(Dimensions=[{"Name": "a"}]), MISSING, "Dimensions.member.1.Value is required"),
    "dimension name empty": (dimension("", "x"), VALUE, "Dimensions.member.1.Name must be longer than 0"),
    "dimension name long": (dimension("n" * 256, "x"), VALUE, "Name must be shorter than 256"),
    "dimension name colon": (dimension(":a", "x"), VALUE, "The value :a for parameter"),
    "dimension name control": (dimension("a\tb", "x"), VALUE, "Name must contain only printable ASCII"),
    "dimension value empty": (dimension("a", ""), VALUE, "Value must be longer than 0"),
    "dimension value long": (dimension("a", "v" * 1025), VALUE, "Value must be shorter than 1025"),
    "dimension value blank": (dimension("a", "  "), VALUE, "Value must contain at least one non-whitespace"),
    "dimension value Latin": (dimension("a", "café"), VALUE, "Value must contain only printable ASCII"),
    "dimension value DEL": (dimension("a", "b\x7f"), VALUE, "Value must contain only printable ASCII"),
    "dimension value a number": (dimension("a", 200), VALUE, "The value 200 for parameter"),
    "dimension unknown": (datum(Dimensions=[{"Name": "a", "Value": "b", "Key": "c"}]), UNKNOWN, "member.1.Key"),
}

REQUEST_FAULTS: dict[str, tuple[Mapping[str, Any], str, str]] = {
    "no namespace": ({"MetricData": [datum()]}, MISSING, "Namespace is required"),
    "empty namespace": (request(datum(), Namespace=""), VALUE, "Namespace must be longer than 0"),
    "long namespace": (request(datum(), Namespace="n" * 256), VALUE, "Namespace must be shorter than 256"),
    "namespace with colon": (request(datum(), Namespace=":a"), VALUE, "The value :a for parameter Namespace"),
    "reserved namespace": (request(datum(), Namespace="AWS/EC2"), VALUE, "The value AWS/EC2 for parameter Namespace"),
    "namespace not ASCII": (request(datum(), Namespace="Café"), VALUE, "Namespace must contain only printable ASCII"),
    "namespace not text": (request(datum(), Namespace=1), VALUE, "Namespace is invalid"),
    "no datums": (request(), MISSING, "MetricData is required"),
    "no datums at all": ({"Namespace": "Shop"}, MISSING, "MetricData is required"),
    "datums not a list": (request(MetricData=datum()), VALUE, "MetricData is invalid"),
    "1001 datums": (request(*[datum()] * 1001), VALUE, "MetricData must not have a size greater than 1000"),
    "1001 datums with entities": (
        request(*[datum()] * 1000, EntityMetricData=[{"MetricData": [datum()]}]),
        VALUE,
        "MetricData must not have a size greater than 1000",
    ),
    "three entities": (
        request(EntityMetricData=[{"MetricData": [datum()]}] * 3),
        VALUE,
        "EntityMetricData must not have a size greater than 2",
    ),
    "entity not a structure": (request(datum(), EntityMetricData=[1]), VALUE, "EntityMetricData.member.1 is invalid"),
    "datum of an entity": (
        request(EntityMetricData=[{"Entity": {}, "MetricData": [datum(Value=math.nan)]}]),
        VALUE,
        "NaN for parameter EntityMetricData.member.1.MetricData.member.1.Value",
    ),
    "unknown member": (request(datum(), Metrics=[]), UNKNOWN, "Metrics is unknown"),
}


@pytest.mark.parametrize("good", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(good: Mapping[str, Any]) -> None:
    """Requests within the documented limits are accepted, even exactly at a limit."""
    assert validation_error(request(good), size_bytes=1_000_000, now=NOW) is None


@pytest.mark.parametrize("unit", CLOUDWATCH_UNITS)
def test_units(unit: str) -> None:
    """Each of the 27 units is accepted."""
    assert validation_error(request(datum(Unit=unit)), now=NOW) is None


@pytest.mark.parametrize(("bad", "code", "fragment"), DATUM_FAULTS.values(), ids=DATUM_FAULTS)
def test_one_bad_datum(bad: object, code: str, fragment: str) -> None:
    """One invalid datum among valid ones makes the request invalid, and the message contains its path."""
    error = validation_error(request(datum(), bad, datum()), now=NOW)
    assert error is not None
    assert (error.code, error.status) == (code, 400)
    assert fragment in error.message


@pytest.mark.parametrize(("number", "fragment"), NUMBER_FAULTS)
@pytest.mark.parametrize("place", [lambda x: datum(Value=x), values, lambda x: statistics(Sum=x)])
def test_bad_number(place: Callable[[object], dict[str, Any]], number: object, fragment: str) -> None:
    """A number that CloudWatch does not accept is rejected wherever it occurs."""
    error = validation_error(request(place(number)), now=NOW)
    assert error is not None
    assert error.code == VALUE
    assert fragment in error.message


@pytest.mark.parametrize(("bad", "code", "fragment"), REQUEST_FAULTS.values(), ids=REQUEST_FAULTS)
def test_bad_request(bad: Mapping[str, Any], code: str, fragment: str) -> None:
    """An invalid parameter of the request itself is rejected."""
    error = validation_error(bad, now=NOW)
    assert error is not None
    assert error.code == code
    assert fragment in error.message


def test_entities() -> None:
    """Datums may be in entities only, or both in entities and in the request itself."""
    entities = [{"Entity": {"KeyAttributes": {"Type": "Service"}}, "MetricData": [datum()] * 500}] * 2
    assert (
        validation_error({"Namespace": "Shop", "EntityMetricData": entities, "StrictEntityValidation": True}, now=NOW)
        is None
    )


def test_size() -> None:
    """A body over 1 MB is rejected with 413, whatever its content."""
    error = validation_error(request(datum()), size_bytes=1_000_001, now=NOW)
    assert error is not None
    assert (error.code, error.status) == ("RequestEntityTooLarge", 413)


def test_every_fault_is_told() -> None:
    """Each violation has its own line in the message, up to a readable number of lines."""
    error = validation_error(request(datum("MetricName"), datum(Unit="x"), *[datum(Value=math.nan)] * 100), now=NOW)
    assert error is not None
    lines = error.message.splitlines()
    assert len(lines) == 10
    assert [line.split(".")[2] for line in lines[:3]] == ["1", "2", "3"]
    assert error.code == MISSING


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
DATUM_MEMBERS = ("Value", "Values", "Counts", "StatisticValues", "MetricName", "Dimensions", "Timestamp", "Unit")


@given(st.sampled_from(("Namespace", "MetricData", "EntityMetricData")), ANY_JSON)
def test_any_request_is_judged(member: str, anything: object) -> None:
    """Any JSON value in a request is accepted or rejected without another exception."""
    validation_error(request(datum(), **{member: anything}), now=NOW)


@given(st.sampled_from(DATUM_MEMBERS), ANY_JSON)
def test_any_datum_is_judged(member: str, anything: object) -> None:
    """Any JSON value in a datum is accepted or rejected without another exception."""
    validation_error(request(datum(**{member: anything})), now=NOW)


@given(st.sampled_from([each for each in (*DATUM_MEMBERS, "StorageResolution") if each != "Timestamp"]), ANY_JSON)
def test_what_boto3_rejects_is_rejected(member: str, anything: object) -> None:
    """A datum that boto3 does not send because a type is wrong, such as that of None, is rejected."""
    changed, shape = request(datum(**{member: anything})), PUT_METRIC_DATA.input_shape
    assert shape is not None
    if ParamValidator().validate(changed, shape).has_errors():
        assert validation_error(changed, now=NOW) is not None


@given(st.floats() | st.integers())
def test_acceptable_numbers(number: float) -> None:
    """A number is acceptable if and only if it is 0 or its magnitude is within the range."""
    in_range = abs(number) <= 2**360 and (abs(number) * 2**361 >= 2 if abs(number) < 1 else True)
    assert is_acceptable_number(number) == (number == 0 or in_range)


def test_naive_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times without a time zone are in UTC, as in botocore, whatever the local time zone is."""
    moment = datetime(2027, 1, 15, 8)  # noqa: DTZ001 - naive on purpose
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        of_botocore = parse_to_aware_datetime(moment).timestamp()  # type: ignore[arg-type]  # the stubs allow only str
        found = unix_time(moment), unix_time(moment.isoformat()), of_botocore
    time.tzset()
    assert found == (NOW, NOW, NOW)


@given(st.datetimes(timezones=st.sampled_from([timezone.utc, timezone(timedelta(hours=-7))])))
def test_time_has_many_shapes(moment: datetime) -> None:
    """A datetime, its ISO 8601 string and its Unix seconds denote the same time."""
    assert unix_time(moment) == unix_time(moment.isoformat()) == unix_time(moment.timestamp())
