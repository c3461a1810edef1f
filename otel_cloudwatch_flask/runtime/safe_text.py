"""What others wrote, fit for a message: services, proxies, exceptions, anybody's files, callers' arguments."""

import re
from typing import Final

_MAX_LENGTH: Final = 2000

# Compiled when first needed, which is hardly ever.
# Line ends, escape sequences of terminals, and what turns the direction of writing.
_CONTROL: Final = "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"

_SECRETS: Final = (
    # CloudWatch repeats the whole signed request where a signature is wrong, session token included.
    r"(?i)((?:security[-_]?token|session[-_]?token|secret[-_]?access[-_]?key)[\"']?\s*[:=]\s*[\"']?)[^\s\"'&,;]+",
    r"(?i)(\bsignature=)[^\s\"'&,;]+",
    # http://user:password@proxy, where the password may contain any character, such as "#", "/" or "@".
    r"(\"\w+://)[^\"]{1,500}(?=@)",
    r"(://)(?:[^\s/@:]{1,500}:\S{1,500}|[^\s/@]+)(?=@)",
    # What urllib and urllib3 take for the host or the port of such a URL: "user:pass", "pass".
    r"(Failed to parse: |integer value as |unhandled exception: b)['\"].{0,500}['\"]",
)


def one_line(text: str) -> str:
    r"""The text with its control characters escaped, and cut where it is very long.

    >>> one_line("refused\nERROR all is lost")
    'refused\\nERROR all is lost'
    """
    return re.sub(_CONTROL, _escaped, text[: _MAX_LENGTH + 1])[:_MAX_LENGTH]


def without_secrets(text: str) -> str:
    """The text without session tokens, secret keys, signatures and passwords in URLs.

    >>> without_secrets("no answer from http://me:secret@proxy:3128")
    'no answer from http://***@proxy:3128'
    """
    for secret in _SECRETS:
        text = re.sub(secret, r"\1***", text)
    return text


def shown(value: object) -> str:
    """The value as messages show it; a phrase for one that Python cannot write out, such as an int of 5,000 digits.

    >>> shown("Shop"), shown([1, None])
    ("'Shop'", '[1, None]')
    """
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - the boundary to what a program's own objects do when they are looked at
        return f"<{type(value).__name__} that cannot be written out>"


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape", "surrogatepass").decode("ascii")
