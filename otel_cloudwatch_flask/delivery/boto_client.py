"""The boto3 client, and how encoded batches are sent with it. No other module of the exporter imports boto3.

botocore needs ten times as long as ours to encode a request, and holds the GIL meanwhile. So the encoded body is put
into the request in a handler of ``before-call``, a documented event that comes before the request is signed. botocore
still resolves endpoints and credentials, signs, and does the transport. A client with another protocol, and any client
that the program has passed, gets a plain ``put_metric_data`` call.
"""

import platform
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeAlias

from otel_cloudwatch_flask.delivery.batch import Batch
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.runtime.process import no_fork
from otel_cloudwatch_flask.runtime.safe_text import safe_repr
from otel_cloudwatch_flask.version import __version__

CONNECT_TIMEOUT_SECONDS: Final = 3.0
READ_TIMEOUT_SECONDS: Final = 8.0
"""Their sum bounds a call unless the response trickles in. An export may take 30 s, so there is time for a retry."""

_ENCODED_PROTOCOL: Final = "json"
_BEFORE_CALL: Final = "before-call.cloudwatch.PutMetricData"
_GZIP_LEVEL: Final = 1
"""Takes a fifth of the CPU time of botocore's level 9; bodies are 5 % larger."""
_GZIP_FORMAT: Final = 16 + zlib.MAX_WBITS
_GZIP_MEMORY_LEVEL: Final = 7
"""zlib's tables then fit in the processor's cache; the default compresses no better."""
_MIN_GZIP_BYTES: Final = 2048


class Client(Protocol):
    """boto3's CloudWatch client, or any object with this method."""

    def put_metric_data(self, **kwargs: Any) -> Any:
        """Store metrics; see https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html."""


Put: TypeAlias = Callable[[Batch], object]
"""Sends a batch and returns the client's response, or raises what the client raises."""

ClientFactory: TypeAlias = Callable[[], Any]

_substitutes: Final[list[ClientFactory]] = []


@contextmanager
def clients_made_by(factory: ClientFactory) -> Iterator[None]:
    """Use ``factory`` instead of boto3 for every client that this process creates inside the ``with`` block."""
    _substitutes.append(factory)
    try:
        yield
    finally:
        _substitutes.remove(factory)


def client_factory(
    region_name: str | None = None, *, access_key_id: str | None = None, secret_access_key: str | None = None
) -> ClientFactory:
    """Return a factory of boto3 clients whose timeouts and retries suit our deadlines.

    boto3 is imported with the first request, because the import takes 0.3 s and a client must not be used after a fork.
    Forks are blocked meanwhile: a child would inherit half-imported modules and locks that OpenSSL holds while it
    creates a context.
    """

    def create_client() -> Any:
        if _substitutes:
            return _substitutes[-1]()
        with no_fork():
            return _new_client(region_name, access_key_id, secret_access_key)

    return create_client


def _new_client(region_name: str | None, access_key_id: str | None, secret_access_key: str | None) -> Any:
    import encodings.idna  # noqa: F401, PLC0415 - the first connection imports it, and a fork must not interrupt that

    import boto3  # noqa: PLC0415 - see client_factory
    from botocore.config import Config  # noqa: PLC0415 - see client_factory

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"total_max_attempts": 1},  # the sender retries: it knows the deadline and counts requests
        parameter_validation=False,  # the encoder writes valid requests only
        disable_request_compression=True,  # _EncodedPut compresses, at a lower level
        # botocore rebuilds its default user agent for each request, which takes a fifth of the CPU time of a call.
        user_agent=f"otel-cloudwatch-flask/{__version__} Python/{platform.python_version()}",
    )
    session = boto3.Session(
        aws_access_key_id=access_key_id, aws_secret_access_key=secret_access_key, region_name=region_name
    )
    return session.client("cloudwatch", config=config)


def checked_client(client: Client | None) -> Client | None:
    """Return the client, or ``None`` if there is none.

    Raises :class:`ConfigurationError` if it has no ``put_metric_data`` method.
    """
    if client is None or callable(getattr(client, "put_metric_data", None)):
        return client
    raise ConfigurationError(
        f"client={safe_repr(client)} has no put_metric_data method; pass boto3.client('cloudwatch'), or omit it and "
        "set region_name or AWS_REGION. For a reporter with its own Region or credentials, call "
        "CloudWatchMetricsReporter.new_reporter(app, namespace, aws_region_name, ...).",
        key="client",
        value=client,
    )


def plain_put(client: Client) -> Put:
    """Send batches with any client, by calling ``put_metric_data`` with their parameters."""
    return lambda batch: client.put_metric_data(**batch.parameters())


def encoded_put(client: Any) -> Put:
    """Send batches with our own boto3 client, without encoding them again if its protocol is JSON."""
    if client.meta.service_model.resolved_protocol != _ENCODED_PROTOCOL:
        return plain_put(client)
    return _EncodedPut(client)


class _EncodedPut:
    """Replace the body of an almost empty request with the encoded batch. For one thread at a time."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._batch: Batch | None = None
        client.meta.events.register(_BEFORE_CALL, self._put_body)

    def __call__(self, batch: Batch) -> object:
        self._batch = batch
        try:
            return self._client.put_metric_data(Namespace="-", MetricData=[])
        finally:
            self._batch = None

    def _put_body(self, params: dict[str, Any], **_: object) -> None:
        if self._batch is None:
            return
        body = self._batch.body()
        if len(body) >= _MIN_GZIP_BYTES:
            compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT, _GZIP_MEMORY_LEVEL)
            body = compressor.compress(body) + compressor.flush()
            params["headers"]["Content-Encoding"] = "gzip"
        params["body"] = body
