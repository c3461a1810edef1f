"""Make untrusted text, such as responses, exceptions and arguments, safe for logs and messages."""

import re
from typing import Final

_MAX_LENGTH: Final = 2000

# These patterns are strings, which ``re`` compiles at first use, because most processes never need them.

# Matches control characters (such as line ends and the start of terminal escape sequences), characters that change the
# writing direction, and lone surrogates.
_CONTROL: Final = "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"

_SECRETS: Final = (
    # After a wrong signature, CloudWatch's error repeats the whole signed request, including the session token.
    r"(?i)((?:security[-_]?token|session[-_]?token|secret[-_]?access[-_]?key)[\"']?\s*[:=]\s*[\"']?)[^\s\"'&,;]+",
    r"(?i)(\bsignature=)[^\s\"'&,;]+",
    # Matches http://user:password@proxy, where the password may contain any character, such as "#", "/" or "@".
    r"(\"\w+://)[^\"]{1,500}(?=@)",
    r"(://)(?:[^\s/@:]{1,500}:\S{1,500}|[^\s/@]+)(?=@)",
    # If the password has such characters, errors of urllib and urllib3 quote "user:pass" as the host, or "pass" as the
    # port.
    r"(Failed to parse: |integer value as |unhandled exception: b)['\"].{0,500}['\"]",
)


def one_line(text: str) -> str:
    r"""Escape control characters in ``text``, and truncate it to 2,000 characters.

    >>> one_line("refused\nERROR all is lost")
    'refused\\nERROR all is lost'
    """
    return re.sub(_CONTROL, _escaped, text[: _MAX_LENGTH + 1])[:_MAX_LENGTH]


def without_secrets(text: str) -> str:
    """Mask session tokens, secret keys, signatures and the credentials in URLs.

    >>> without_secrets("no answer from http://me:secret@proxy:3128")
    'no answer from http://***@proxy:3128'
    """
    for secret in _SECRETS:
        text = re.sub(secret, r"\1***", text)
    return text


def plain_text(text: str) -> str:
    """Return ``text`` as a plain ``str``, because a subclass of ``str`` may override any method."""
    return str.__str__(text)


def safe_repr(value: object) -> str:
    """Return ``repr(value)``, or a placeholder if that raises an exception, as it does for an int of 5,000 digits.

    >>> safe_repr("Shop"), safe_repr([1, None])
    ("'Shop'", '[1, None]')
    """
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - boundary: the repr() of any object of the program
        return f"<unprintable {type(value).__name__} object>"


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape", "surrogatepass").decode("ascii")
