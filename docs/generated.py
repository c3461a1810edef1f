"""Generate parts of the documentation from the code. Run this file to update them.

A page has a generated part between ``<!-- generated: name -->`` and ``<!-- end -->``. The tests fail if it is outdated.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from docs.remedies import SECTIONS, Remedy  # noqa: E402 - the line above lets this file run as a program
from docs.source_messages import Message, attribute_docstrings, errors, logged  # noqa: E402
from otel_cloudwatch_flask import (  # noqa: E402
    CloudWatchMetricExporter,
    CloudWatchMetricReader,
    CloudWatchMetricsReporter,
    limits,
    pricing,
)
from otel_cloudwatch_flask.config import (  # noqa: E402
    DEFAULT_EXPORT_INTERVAL_SECONDS,
    DEFAULT_FLUSH_MIN_INTERVAL_SECONDS,
    KEYS,
    Key,
)

_PART: Final = re.compile(r"(?<=<!-- generated: )([\w-]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)

PROCESSES: Final = (1, 4, 16, 40, 100, 400)
LINES_BYTES: Final = 50 * pricing.EMF_BYTES_PER_METRIC
"""The size of the EMF lines of 50 metrics."""


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(text: str) -> str:
    """Return text as inline code, escaped for tables."""
    fence = "``" if "`" in text else "`"
    padding = " " if "`" in text else ""
    return f"{fence}{padding}{text}{padding}{fence}".replace("|", r"\|")


def dollars(amount: float) -> str:
    """Return an amount of money as text, with cents if it is below 100 dollars."""
    return f"${amount:,.2f}" if amount < 100 else f"${amount:,.0f}"


def settings() -> str:
    """Return a section for each setting."""
    texts = setting_texts()
    return "\n\n".join(_setting(key, texts[key.field]) for key in KEYS)


def setting_texts() -> dict[str, str]:
    """Return the description of each setting, by field."""
    return {field: text for field, text, _ in attribute_docstrings("config", "Settings")}


_TAKE_ARGUMENTS: Final = (CloudWatchMetricsReporter, CloudWatchMetricExporter, CloudWatchMetricReader)


def _setting(key: Key, text: str) -> str:
    default = "none" if key.default in (None, (), {}) else code(repr(key.default))
    takers = [each.__name__ for each in _TAKE_ARGUMENTS if key.field in inspect.signature(each).parameters]
    rows = [
        *((f"argument of {code(name)}", code(key.field)) for name in takers),
        ("Flask's `app.config`", code(key.app_config_name)),
        ("environment", f"{code(key.variable)}, {code(key.app_config_name)}"),
        *(("environment, as a fallback", code(variable)) for variable, _ in key.fallbacks),
        *([] if "Default: " in text else [("default", default)]),
    ]
    return f"## {key.name}\n\n{text}\n\n{table(('where', 'what'), rows)}"


_LIMITS: Final = (
    ("data points per request", "MAX_DATUMS_PER_REQUEST", "split into several requests"),
    ("request body, in bytes", "MAX_REQUEST_BYTES", "split into several requests"),
    ("distinct values per data point", "MAX_VALUES_PER_DATUM", "neighboring buckets share a value"),
    (
        "dimensions per metric",
        "MAX_DIMENSIONS",
        (
            "those named in a rule or `RESOURCE_DIMENSIONS` are kept first, then others alphabetically (a call to "
            "`add_metric` with more is rejected)"
        ),
    ),
    (
        "dimension name, in characters",
        "MAX_DIMENSION_NAME_LENGTH",
        "truncated, with a hash (`add_metric` rejects it instead)",
    ),
    ("dimension value, in characters", "MAX_DIMENSION_VALUE_LENGTH", "truncated, with a hash"),
    (
        "metric name, in characters",
        "MAX_METRIC_NAME_LENGTH",
        "truncated, with a hash (`add_metric` rejects it instead)",
    ),
    ("namespace, in characters", "MAX_NAMESPACE_LENGTH", "`ConfigurationError` (a service name may be truncated)"),
    ("age of a data point, in seconds", "MAX_AGE_SECONDS", "dropped, counted as `expired`"),
    ("timestamp in the future, in seconds", "MAX_AHEAD_SECONDS", "sent with the current time"),
)


def service_limits() -> str:
    """Return CloudWatch's limits, and what happens when they are exceeded."""
    rows = [(what, f"{getattr(limits, name):,}", more) for what, name, more in _LIMITS]
    return table(("", "limit", "what happens above it"), rows)


def prices() -> str:
    """Return the prices of metrics (by tier), requests and logs."""
    bounds = [0, *(up_to for up_to, _ in pricing.DOLLARS_PER_METRIC_MONTH)]
    rows = [
        (f"metrics {int(above) + 1:,} to {int(up_to):,}" if up_to < float("inf") else f"metrics above {int(above):,}",
         f"${price:.2f} per metric per month")
        for above, (up_to, price) in zip(bounds, pricing.DOLLARS_PER_METRIC_MONTH, strict=False)
    ]  # fmt: skip
    rows.append(("1,000 requests", f"${pricing.DOLLARS_PER_REQUEST * 1000:.2f}"))
    return table(("", "price"), [*rows, ("1 GB of logs", f"${pricing.DOLLARS_PER_LOG_GIGABYTE:.2f}")])


def requests_by_processes() -> str:
    """Return the monthly cost of delivery by busy processes, by their number, flush policy and output."""
    rows = []
    for processes in PROCESSES:
        intervals = DEFAULT_FLUSH_MIN_INTERVAL_SECONDS, DEFAULT_EXPORT_INTERVAL_SECONDS
        rates = [processes / seconds for seconds in intervals]
        costs = [
            *(pricing.monthly_cost(metrics=0, requests_per_second=rate) for rate in rates),
            *(pricing.monthly_cost(metrics=0, log_bytes_per_second=rate * LINES_BYTES) for rate in rates),
        ]
        share = rates[0] / limits.QUOTA_REQUESTS_PER_SECOND
        rows.append((f"{processes:,}", f"{rates[0]:,.1f}", f"{share:.2%}", *(dollars(cost.dollars) for cost in costs)))
    head = (
        "processes",
        "requests/s, at most",
        "share of the quota",
        '`"background"`, per month',
        '`"interval"`, per month',
        '`"background"`, EMF',
        '`"interval"`, EMF',
    )
    return table(head, rows)


def delivery_by_output() -> str:
    """Return the monthly cost of delivering the metrics of three apps, by output."""
    month = pricing.SECONDS_PER_MONTH
    sizes = (
        ("1,000,000 Lambda invocations, 3 metrics in each", 1e6 / month, 3),
        ("1 busy process, 50 metrics", 1 / DEFAULT_FLUSH_MIN_INTERVAL_SECONDS, 50),
        ('the same with `flush="interval"`', 1 / DEFAULT_EXPORT_INTERVAL_SECONDS, 50),
        ("40 busy processes, 200 metrics in each", 40 / DEFAULT_FLUSH_MIN_INTERVAL_SECONDS, 200),
        ('the same with `flush="interval"`', 40 / DEFAULT_EXPORT_INTERVAL_SECONDS, 200),
    )
    rows = []
    for size, flushes, metrics in sizes:
        api = pricing.monthly_cost(metrics=0, requests_per_second=flushes)
        log_bytes = flushes * metrics * pricing.EMF_BYTES_PER_METRIC
        emf = pricing.monthly_cost(metrics=0, log_bytes_per_second=log_bytes)
        rows.append((size, dollars(api.dollars), dollars(emf.dollars)))
    return table(("", "API", "EMF"), rows)


def metrics_by_dimensions() -> str:
    """Return the monthly cost of metrics with typical sets of dimensions."""
    cases = (
        ("a counter without dimensions", 1),
        ("a counter by status code (5)", 5),
        ("a histogram by route (20) and status code (5)", 100),
        ("the same, plus the total as a rollup", 101),
        ("a histogram by route (20), status code (5) and customer (1,000)", 100_000),
    )
    rows = [(what, f"{metrics:,}", dollars(pricing.metrics_dollars(metrics))) for what, metrics in cases]
    return table(("what you publish", "metrics", "per month"), rows)


def log_messages() -> str:
    """Return all log messages, by topic."""
    texts = {remedy.beginning: _message_with(remedy, logged()) for each in SECTIONS.values() for remedy in each}
    return "\n\n".join(
        f"### {title}\n\n" + "\n".join(_log_message(remedy, texts[remedy.beginning]) for remedy in remedies)
        for title, remedies in SECTIONS.items()
    )


def _message_with(remedy: Remedy, messages: Iterable[Message]) -> Message:
    found = [each for each in messages if each.text.startswith(remedy.beginning)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} messages begin with {remedy.beginning!r}; update docs/remedies.py.")
    return found[0]


def _log_message(remedy: Remedy, message: Message) -> str:
    """Return a list item for a message, with the explanations that the message does not contain."""
    said = message.text.lower()
    notes = [each for each in (remedy.data, remedy.remedy) if each.lower().rstrip(".") not in said]
    return "\n".join([f"* {message.how.capitalize()}: {code(message.text)}", *(f"  * {note}" for note in notes)])


_SETUP: Final = {"config": "<key>=<value> "}
_METRIC: Final = dict.fromkeys(("facade/arguments", "model/dimension_arguments"), "metric <name>: ")


def configuration_errors() -> str:
    """Return the errors raised during setup."""
    parts = [each for each in errors() if each.module in _SETUP and each.how == "ValueError"]
    return _error_list([*parts, *(each for each in errors() if each.how == "ConfigurationError")])


def metric_errors() -> str:
    """Return the errors that a call of ``add_metric`` raises or logs."""
    return _error_list(each for each in errors() if each.module in _METRIC)


def point_errors() -> str:
    """Return the reasons why a data point cannot be sent."""
    return _error_list(each for each in errors() if each.how == "InvalidPointError")


def other_errors() -> str:
    """Return the other errors of the package."""
    elsewhere = {"ConfigurationError", "InvalidPointError", "InvalidMetricError"}
    rest = [each for each in errors() if each.how not in elsewhere and each.module not in {*_SETUP, *_METRIC}]
    return "\n".join(sorted({f"* {code(f'{each.how}: {each.text}')}" for each in rest}))


def _error_list(found: Iterable[Message]) -> str:
    prefixes = {**_SETUP, **_METRIC}
    texts = sorted({prefixes.get(each.module, "") * (each.how == "ValueError") + each.text for each in found})
    return "\n".join(f"* {code(text)}" for text in texts)


def loss_reasons() -> str:
    """Return the values of ``LossReason``, with their docstrings."""
    rows = [(code(str(reason)), text) for _, text, reason in attribute_docstrings("delivery/stats", "LossReason")]
    return table(("reason", "why the data was lost"), rows)


PARTS: Final[dict[str, Callable[[], str]]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        settings,
        service_limits,
        prices,
        requests_by_processes,
        delivery_by_output,
        metrics_by_dimensions,
        log_messages,
        configuration_errors,
        metric_errors,
        point_errors,
        other_errors,
        loss_reasons,
    )
}


def current(page: str) -> str:
    """Return a page with all generated parts updated."""
    return _PART.sub(lambda part: f"{part[1]}{part[2]}\n{PARTS[part[1]]()}\n\n", page)


def main() -> None:
    """Update all outdated pages."""
    for path in sorted(DOCS.glob("**/*.md")):
        text = path.read_text("utf-8")
        if (new := current(text)) != text:
            path.write_text(new, "utf-8")
            print(f"wrote {path.relative_to(DOCS)}")


if __name__ == "__main__":
    main()
