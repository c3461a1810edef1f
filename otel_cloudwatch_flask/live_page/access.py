"""Decide who may see the live page."""

import ipaddress
import logging
import pkgutil
from typing import Final

from flask import current_app, request

from otel_cloudwatch_flask.config import AccessCheck
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

_each_minute = RateLimitedLog(logging.getLogger(__name__), interval_seconds=60.0)

_OWN_SITES: Final = ("same-origin", "none")


def is_authorized(check: AccessCheck | None, *, reads_data: bool) -> bool:
    """Return whether the current request may see the page.

    :param check: the app's ``LIVE_PAGE_CHECK``. Without it, only a local request in debug mode is authorized.
    :param reads_data: whether the request is for JSON, which no page from another origin may read.
    """
    # The app may let all origins read its responses, but the browser reports that another origin sent the request:
    # https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
    if reads_data and request.headers.get("Sec-Fetch-Site", "none") not in _OWN_SITES:
        return False
    if check is None:  # debug mode was on during init_app, and may have been turned off since
        return current_app.debug and is_local_request()
    return _passes(check)


def is_local_request() -> bool:
    """Return whether the peer has a loopback address and the ``Host`` header names a loopback host.

    The ``Host`` is checked because a website can make its own name resolve to 127.0.0.1, and then read the page through
    a visitor's browser (DNS rebinding). Behind a proxy on the same machine, neither check is reliable, so this
    function protects only a developer's machine.
    """
    return _is_loopback(request.remote_addr or "") and _is_name_of_loopback(request.headers.get("Host", ""))


def _passes(check: AccessCheck) -> bool:
    try:
        function = pkgutil.resolve_name(check) if isinstance(check, str) else check
        answer = function()
        if answer is True or not answer:
            return bool(answer)
    except Exception:  # noqa: BLE001 - the boundary to the app's check
        _each_minute.error(
            "check",
            "CLOUDWATCH_LIVE_PAGE_CHECK raised an exception, so the live page returns 404. Metrics are not affected. "
            "Fix the problem that the traceback shows.",
            exc_info=True,
        )
        return False
    # A check behind a view's decorator, such as login_required, returns the response that denies access.
    kind = type(answer).__name__
    _each_minute.error(
        ("answer", kind),
        "CLOUDWATCH_LIVE_PAGE_CHECK returned an object of type %s, so the live page returns 404. Metrics are not "
        "affected. Return True or False from the check, and remove its view decorators.",
        kind,
    )
    return False


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    # A dual-stack socket reports 127.0.0.1 as ::ffff:127.0.0.1, which not every Python version considers loopback.
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _is_name_of_loopback(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() == "localhost" or name.lower().endswith(".localhost") or _is_loopback(name)
