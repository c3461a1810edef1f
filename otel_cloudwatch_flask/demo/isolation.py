"""The demo needs no account and no network, whatever this machine is set up for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_SOMEBODY_ELSES: Final = ("AWS_", "OTEL_", "BOTO_", "CLOUDWATCH_", "FLASK_")
_KEPT: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
"""Which names HTTP metrics have is worth trying out."""

_NEUTRAL: Final = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}


@contextmanager
def isolated_environment() -> Iterator[None]:
    """Take out of this process's environment what leads elsewhere: profiles, exporters, proxies. For the time being."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(_SOMEBODY_ELSES) and name != _KEPT:
            del os.environ[name]
    os.environ.update(_NEUTRAL)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
