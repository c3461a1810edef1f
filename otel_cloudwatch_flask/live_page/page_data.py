"""Compute the data that the page polls: published series, delivery, costs, rules and recent messages."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from otel_cloudwatch_flask.config import Settings
from otel_cloudwatch_flask.delivery.stats import DeliveryStats
from otel_cloudwatch_flask.live_page.remedies import remedy_document
from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.observation.record import SLICE_SECONDS
from otel_cloudwatch_flask.pricing import SECONDS_PER_MONTH, MonthlyCost, metrics_dollars, monthly_cost
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter

RATE_SECONDS: Final = 60.0
"""The length of time over which rates are averaged."""
_MIN_RATE_SECONDS: Final = 10.0
_MAX_TREND_POINTS: Final = 60
_LATE_SECONDS: Final = 5.0
"""Delivery counts as failing only if the last success is older than this; pending datums alone are normal."""
_RATES: Final = ("requests", "bytes")
_HOURS_PER_MONTH: Final = SECONDS_PER_MONTH / 3600


def rate_per_second(of: str, observed: Mapping[str, Any], *, now: float) -> float:
    """Return the rate of ``"requests"`` or ``"bytes"`` over the last minute, or the whole observation if it is shorter.

    An observation of less than 10 seconds counts as 10 seconds long.
    """
    recent: float = sum(each[of] for each in observed["slices"] if each["time"] + SLICE_SECONDS > now - RATE_SECONDS)
    # Extrapolating from less than ten seconds would exaggerate the rate of a process that has just started.
    seconds: float = min(max(observed["seconds"], _MIN_RATE_SECONDS), RATE_SECONDS + SLICE_SECONDS / 2)
    return recent / seconds


def cost(observed: Mapping[str, Any], *, now: float, writes_emf: bool = False) -> dict[str, Any]:
    """Return the monthly cost at the current rate, its trend over the last hour, and the cost so far, in dollars.

    In addition to metrics, CloudWatch bills requests or, if ``writes_emf`` is true, the size of log lines.
    """
    of, per_second = ("bytes", "log_bytes_per_second") if writes_emf else ("requests", "requests_per_second")

    def month(series: float, rate: float) -> MonthlyCost:
        return monthly_cost(metrics=int(series), **{per_second: rate})

    rate = rate_per_second(of, observed, now=now)
    hours = observed["seconds"] // 3600 + 1  # a metric is billed for each hour in which it had data
    metrics_so_far = metrics_dollars(observed["series_seen"]) * hours / _HOURS_PER_MONTH
    delivery_so_far = month(0, observed[of] / SECONDS_PER_MONTH).dollars
    return {
        **month(observed["series_active"], rate).document(),
        # Metrics that were never accepted are not billed.
        "so_far_dollars": metrics_so_far + delivery_so_far if observed["requests"] else 0.0,
        "trend": [month(point["series"], point[f"{of}_per_second"]).dollars for point in trend(observed, now=now)],
    }


def trend(observed: Mapping[str, Any], *, now: float) -> list[dict[str, float]]:
    """Return the rates of requests and bytes, and the number of series, over the last hour, as at most 60 points.

    Each point covers one or more time slices of ``SLICE_SECONDS``. The slice in which the observation started and the
    current slice are omitted because they are incomplete.
    """
    whole = list(_complete_slices(observed, now=now))
    size = -(-len(whole) // _MAX_TREND_POINTS) or 1
    return [_point(whole[start : start + size]) for start in range(0, len(whole), size)]


def _point(part: Sequence[Mapping[str, float]]) -> dict[str, float]:
    rates = {f"{of}_per_second": sum(each[of] for each in part) / (len(part) * SLICE_SECONDS) for of in _RATES}
    return {**rates, "series": part[-1]["series"]}


def _complete_slices(observed: Mapping[str, Any], *, now: float) -> Iterator[Mapping[str, float]]:
    """Yield all complete time slices of the last hour, including empty slices for times when nothing was sent."""
    by_time = {each["time"]: each for each in observed["slices"] if each["time"] >= observed["started"]}
    moment, series = max(min(by_time, default=now), now - now % SLICE_SECONDS - 3600), 0.0
    while moment + SLICE_SECONDS <= now:
        each = by_time.get(moment, {"requests": 0, "bytes": 0, "series": series})
        series = each["series"]
        yield each
        moment += SLICE_SECONDS


def delivery(stats: DeliveryStats, observed: Mapping[str, Any], *, now: float) -> dict[str, Any]:
    """Return the delivery statistics, the call rate and its trend, and the mean latency including failed calls."""
    calls = stats.requests_sent + stats.requests_failed
    is_late = stats.last_success is None or now - stats.last_success > _LATE_SECONDS
    return {
        **asdict(stats),
        "lost": Counter(stats.datums_lost) + Counter(stats.measurements_lost),
        "is_failing": bool(stats.datums_pending and stats.last_error and is_late),
        "calls_per_minute": 60 * rate_per_second("requests", observed, now=now),
        "mean_seconds": stats.requests_seconds / calls if calls else None,
        "trend": [60 * point["requests_per_second"] for point in trend(observed, now=now)],
    }


def rule_document(rule: MetricRule) -> dict[str, Any]:
    """Return the pattern of a rule, and the other fields of the rule that differ from the defaults."""
    default = asdict(MetricRule(rule.match))
    differing = {name: value for name, value in asdict(rule).items() if value != default[name]}
    return {"match": rule.match, "fields": differing}


def settings_document(settings: Settings, exporter: CloudWatchMetricExporter) -> dict[str, Any]:
    """Return the settings that the page shows.

    Some are taken from the exporter instead of the app, because several apps may share an exporter.
    """
    names = ("namespace", "max_metrics", "dry_run")
    return {
        "pid": os.getpid(),
        "flush": settings.flush,
        "export_interval_seconds": settings.export_interval_seconds,
        **{name: getattr(exporter.settings, name) for name in names},
        # If boto3 reads the Region from a profile, it is known once a client has been created.
        "region_name": exporter.region_name or exporter.settings.region_name,
    }


def page_document(
    observed: dict[str, Any],
    settings: Settings,
    exporter: CloudWatchMetricExporter,
    rules: Rules,
    messages: list[dict[str, Any]],
    *,
    is_debug: bool,
) -> dict[str, Any]:
    """Return the data that the page polls every few seconds.

    Each series refers to its rule by the index. The default rule is last.
    """
    now, every = time.time(), list(rules)
    series = [
        {**each, "rule": every.index(rules.of(each["metric_name"])), "kind": exporter.kind_of(each["metric_name"])}
        for each in observed["series"]
    ]
    return {
        **{name: value for name, value in observed.items() if name != "slices"},
        "now": now,
        "settings": settings_document(settings, exporter),
        "delivery": delivery(exporter.stats(), observed, now=now),
        "remedy": remedy_document(exporter.sender.last_failure, is_debug=is_debug),
        "cost": cost(observed, now=now, writes_emf=exporter.writes_emf),
        "rules": list(map(rule_document, every)),
        "messages": messages,
        "series": series,
    }
