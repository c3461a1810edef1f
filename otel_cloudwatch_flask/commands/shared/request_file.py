"""Read requests for ``preview`` from a text file with one request per line, or from a HAR file saved by a browser."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from otel_cloudwatch_flask.commands.shared.command import CommandError

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"


class Request(NamedTuple):
    """The arguments with which Flask's test client makes a request. ``path`` includes the query string."""

    path: str
    method: str = "GET"
    data: str = ""
    content_type: str | None = None


def read_requests(file: str) -> list[Request]:
    """Read requests from lines such as ``POST /orders {"item": 3}``, or from a HAR file.

    Outside HAR files, lines that are empty or begin with ``#`` are ignored, and a body that is not a JSON object or
    array is form data.

    Raises :class:`CommandError` if the file cannot be read, is malformed or contains no request.
    """
    if not file:
        raise CommandError("Cannot read requests from the file: its name is empty.")
    try:
        text = Path(file).read_text("utf-8-sig")  # some editors write a byte order mark
        requests = [*(_har(json.loads(text)) if text.lstrip().startswith("{") else _lines(text))]
    except (OSError, ValueError) as error:
        raise CommandError(f"Cannot read requests from {file}: {getattr(error, 'strerror', None) or error}.") from error
    except (LookupError, TypeError, AttributeError) as error:
        raise CommandError(f"Cannot read requests from {file}: it is JSON, but not a HAR file.") from error
    if not requests:
        raise CommandError(f"{file} contains no requests. Write one per line, such as GET /search?q=tea.")
    return requests


def _lines(text: str) -> Iterator[Request]:
    for number, line in enumerate(text.splitlines(), start=1):
        method, _, rest = line.strip().partition(" ")
        path, _, body = rest.strip().partition(" ")
        if not method or method.startswith("#"):
            continue
        if method not in METHODS or not path.startswith("/"):
            raise ValueError(f"line {number} is not METHOD /path [body], with one of {', '.join(METHODS)}")
        yield Request(path, method, body.strip(), _content_type(body.strip()))


def _content_type(body: str) -> str | None:
    if not body:
        return None
    return _JSON if body.startswith(("{", "[")) else _FORM


def _har(document: Any) -> Iterator[Request]:
    """Yield the requests of a HAR file, ignoring the hosts they were sent to.

    See http://www.softwareishard.com/blog/har-12-spec/.
    """
    for entry in document["log"]["entries"]:
        request = entry["request"]
        url, posted = urlsplit(request["url"]), request.get("postData") or {}
        path = url._replace(scheme="", netloc="", fragment="").geturl() or "/"
        yield Request(path, str(request["method"]), str(posted.get("text", "")), posted.get("mimeType"))
