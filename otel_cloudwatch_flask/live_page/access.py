"""Access checks: local requests in debug mode, and requests from other sites."""

import ipaddress
from typing import TYPE_CHECKING, Final

from flask import request

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_OWN_SITES: Final = ("same-origin", "none")


def is_local_request() -> bool:
    """Return :func:`is_local` of the current request."""
    return is_local(request.environ)


def is_local(environ: "WSGIEnvironment") -> bool:
    """Return whether the peer's address and the ``Host`` header are both loopback.

    The ``Host`` is checked because a website can resolve its own name to 127.0.0.1 and make a visitor's browser read
    the page (DNS rebinding). Neither check is meaningful behind a proxy on the same machine, so this protects a
    developer's own machine only.
    """
    return _is_loopback(environ.get("REMOTE_ADDR", "")) and _is_name_of_loopback(environ.get("HTTP_HOST", ""))


def is_from_other_site(environ: "WSGIEnvironment") -> bool:
    """Return whether a page of another site sent the request: the app may allow all origins to read its responses.

    https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
    """
    return environ.get("HTTP_SEC_FETCH_SITE", "none") not in _OWN_SITES


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _is_name_of_loopback(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() == "localhost" or name.lower().endswith(".localhost") or _is_loopback(name)
