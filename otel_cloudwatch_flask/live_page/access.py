"""Detect requests from this machine, which may see the page, and requests from other sites, which may not."""

import ipaddress
from typing import TYPE_CHECKING, Final

from flask import request

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_OWN_SITES: Final = ("same-origin", "none")


def is_local_request() -> bool:
    """Return whether the current request is local, as defined by :func:`is_local`."""
    return is_local(request.environ)


def is_local(environ: "WSGIEnvironment") -> bool:
    """Return whether the peer's address and the ``Host`` header are both loopback.

    The ``Host`` is checked because a website can make its own name resolve to 127.0.0.1, and then read the page in a
    visitor's browser (DNS rebinding). Behind a proxy on the same machine, neither check is meaningful, so this function
    protects only a developer's machine.
    """
    return _is_loopback(environ.get("REMOTE_ADDR", "")) and _is_name_of_loopback(environ.get("HTTP_HOST", ""))


def is_from_other_site(environ: "WSGIEnvironment") -> bool:
    """Return whether a page on another site sent the request.

    Such requests are denied because the app may let all origins read its responses:
    https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
    """
    return environ.get("HTTP_SEC_FETCH_SITE", "none") not in _OWN_SITES


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    # A dual-stack socket reports IPv4 peers in this form, and not every Python considers ::ffff:127.0.0.1 loopback.
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _is_name_of_loopback(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() == "localhost" or name.lower().endswith(".localhost") or _is_loopback(name)
