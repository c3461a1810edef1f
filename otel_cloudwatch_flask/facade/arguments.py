"""Validate the arguments of ``add_metric``."""

import difflib
import math
import re
from collections.abc import Mapping
from typing import Final, SupportsFloat

from otel_cloudwatch_flask.errors import InvalidMetricError
from otel_cloudwatch_flask.facade.call_cache import FacadeSeries, Measurement
from otel_cloudwatch_flask.limits import MAX_MAGNITUDE, MAX_METRIC_NAME_LENGTH
from otel_cloudwatch_flask.model.dimension_arguments import Dimensions, dimension_texts
from otel_cloudwatch_flask.model.units import CLOUDWATCH_UNITS, canonical_unit, from_ucum
from otel_cloudwatch_flask.runtime.safe_text import plain_text, safe_repr

# Matches control characters, and lone surrogates, which cannot be encoded as UTF-8.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def parse_arguments(
    metric_name: object, value: object, unit: object, dimensions: Dimensions, default_dimensions: Mapping[str, str]
) -> Measurement:
    """Validate the arguments of an ``add_metric`` call, and return its series and value.

    Raises :class:`InvalidMetricError` if an argument is invalid. The message says what is wrong and how to fix it.

    >>> parse_arguments("Request Count", 1, "count", {"cached": True}, {})
    (FacadeSeries(metric_name='Request Count', unit='Count', dimensions={'cached': 'true'}), 1.0)
    """
    argument: object = metric_name  # the argument being validated, for the error
    try:
        checked_name = _metric_name(metric_name)
        argument = value
        checked_value = _value(value)
        argument = unit
        checked_unit = _unit(unit)
        argument = dimensions
        texts = dimension_texts(dimensions)
        return FacadeSeries(checked_name, checked_unit, texts, {**default_dimensions, **texts}), checked_value
    except ValueError as problem:
        message = f"metric {safe_repr(metric_name)}: {problem}"
        raise InvalidMetricError(message, metric_name=metric_name, value=argument) from None
    except Exception as error:  # boundary: methods of the caller's objects may raise anything
        message = (
            f"metric {safe_repr(metric_name)}: {safe_repr(argument)} raises {type(error).__name__} when it is read; "
            "pass plain strings and numbers"
        )
        raise InvalidMetricError(message, metric_name=metric_name, value=argument) from error


def _metric_name(name: object) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ValueError("the name must be a string with a visible character, such as 'RequestCount'")
    if len(name) > MAX_METRIC_NAME_LENGTH:
        raise ValueError(f"the name has {len(name)} characters; use at most {MAX_METRIC_NAME_LENGTH}")
    if _UNPRINTABLE.search(name):
        raise ValueError("the name has control characters; remove them")
    return plain_text(name)


def _value(value: object) -> float:
    number = _number(value)
    if not math.isfinite(number):
        raise ValueError(
            f"the value {safe_repr(value)} is not a finite number; skip the call when there is no value to report"
        )
    if abs(number) > MAX_MAGNITUDE:
        raise ValueError(
            f"the value {safe_repr(value)} is beyond ±2**360, the largest value that CloudWatch accepts; use a "
            "larger unit"
        )
    return number + 0.0  # -0.0 becomes 0.0


def _number(value: object) -> float:
    """Convert ``value`` to a float. Raises ``ValueError`` if it is a boolean, is not a number, or is too large."""
    if isinstance(value, SupportsFloat) and not isinstance(value, (bool, str)):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"the value {safe_repr(value)} is not a number that CloudWatch can store ({error}); pass a "
                "finite number"
            ) from None
    raise ValueError(f"the value {safe_repr(value)} is a {type(value).__name__}; pass a number, such as 1 or 0.25")


def _unit(unit: object) -> str:
    name = canonical_unit(plain_text(unit)) if isinstance(unit, str) else None
    if name is None:
        raise ValueError(f"{safe_repr(unit)} is not a CloudWatch unit; {_better_unit(unit)}")
    return name


def _better_unit(unit: object) -> str:
    if unit is None:
        return "for a metric without a unit, pass the string 'None', or omit the argument"
    text = unit if isinstance(unit, str) else safe_repr(unit)
    if meant := from_ucum(text):
        return f"use {meant.name!r}"
    by_lower_name = {name.lower(): name for name in CLOUDWATCH_UNITS}
    for match in difflib.get_close_matches(text.lower(), by_lower_name, n=1):
        return f"did you mean {by_lower_name[match]!r}?"
    return "use one of " + ", ".join(CLOUDWATCH_UNITS)
