"""Isolate the demo from this machine's configuration of AWS, OpenTelemetry, Flask and this package."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_REMOVED_PREFIXES: Final = ("AWS_", "OTEL_", "BOTO_", "CLOUDWATCH_", "FLASK_")
_KEPT: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
"""A variable that is kept so that the demo can run with either version of the HTTP semantic conventions."""

_NEUTRAL: Final = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    # Otherwise, boto3 would look for an instance role and wait for a timeout.
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}


@contextmanager
def isolated_environment() -> Iterator[None]:
    """Remove the settings of AWS, OpenTelemetry, Flask and this package from ``os.environ`` inside the ``with`` block.

    Keeps the choice of HTTP semantic conventions, and makes boto3 ignore its configuration files.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith(_REMOVED_PREFIXES) and name != _KEPT:
            del os.environ[name]
    os.environ.update(_NEUTRAL)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
