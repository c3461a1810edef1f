"""Who may look: a browser on this machine that asked this machine."""

import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_FORWARDED: Final = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP", "HTTP_CF_CONNECTING_IP", "HTTP_TRUE_CLIENT_IP")
_FORWARDED_PREFIXES: Final = ("HTTP_X_FORWARDED_", "HTTP_X_ORIGINAL_", "HTTP_X_AMZN_", "HTTP_X_ENVOY_")
_OWN_SITES: Final = ("same-origin", "none")


def is_local(environ: "WSGIEnvironment") -> bool:
    """Whether a request came from this machine, for this machine, and through nobody's hands.

    * The client's address is a loopback one.
    * So is the host that it asked for; otherwise a website could give its own name this machine's address, and read
      what its visitors run (DNS rebinding).
    * Nothing says that a proxy passed it on. What a proxy on this machine passes on comes from loopback, too.
      nginx says nothing unless it is told to, but speaks HTTP/1.0 (until 1.29.7), as no browser does.
    """
    return (
        _is_loopback(environ.get("REMOTE_ADDR", ""))
        and _is_name_of_loopback(environ.get("HTTP_HOST", ""))
        and environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
        and not any(_tells_of_proxy(key) for key in environ)
    )


def is_from_other_site(environ: "WSGIEnvironment") -> bool:
    """Whether the browser says that another site's page asked: an app may let all origins read its answers.

    https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
    """
    return environ.get("HTTP_SEC_FETCH_SITE", "none") not in _OWN_SITES


def _tells_of_proxy(key: str) -> bool:
    return key in _FORWARDED or key.startswith(_FORWARDED_PREFIXES)


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
