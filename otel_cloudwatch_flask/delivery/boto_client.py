"""boto3, and how requests get through it: the only module of the exporter that knows it.

A body that is encoded already need not be built again by botocore, which takes ten times as long and holds Python's
lock meanwhile: ``before-call``, a documented event, shows the finished request before it is signed, and the body is
put there. Endpoints, credentials, signing, proxies and the transport stay botocore's. A client that speaks another
protocol than the encoder's, and any client that a program passes, gets the plain call.
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
"""Together they bound a call, unless its answer drips in. OpenTelemetry gives an export 30 s, so a retry fits in."""

_ENCODED_PROTOCOL: Final = "json"
_BEFORE_CALL: Final = "before-call.cloudwatch.PutMetricData"
_GZIP_LEVEL: Final = 1
"""A fifth of the CPU of botocore's level 9, for bodies 5 % larger."""
_GZIP_FORMAT: Final = 16 + zlib.MAX_WBITS
_GZIP_MEMORY_LEVEL: Final = 7
"""Tables that fit into a processor's cache; the default makes nothing smaller."""
_MIN_GZIP_BYTES: Final = 2048


class Client(Protocol):
    """What is called: boto3's CloudWatch client, or anything with this method."""

    def put_metric_data(self, **kwargs: Any) -> Any:
        """Store metrics; see https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html."""


Put: TypeAlias = Callable[[Batch], object]
"""Puts a batch into CloudWatch, or raises whatever the client raises."""

ClientFactory: TypeAlias = Callable[[], Any]

_substitutes: Final[list[ClientFactory]] = []


@contextmanager
def clients_made_by(factory: ClientFactory) -> Iterator[None]:
    """Let ``factory`` make every client of this process instead of boto3, as long as the block lasts."""
    _substitutes.append(factory)
    try:
        yield
    finally:
        _substitutes.remove(factory)


def client_factory(
    region_name: str | None = None, *, access_key_id: str | None = None, secret_access_key: str | None = None
) -> ClientFactory:
    """A maker of boto3 clients whose timeouts and retries fit our deadlines.

    Importing boto3 takes a third of a second and a client must not cross a fork, so both wait for the first request.
    No fork comes between: what is half imported then, and the locks that OpenSSL holds while it makes a context, would
    stay so in the child for ever.
    """

    def make_client() -> Any:
        if _substitutes:
            return _substitutes[-1]()
        with no_fork():
            return _made_client(region_name, access_key_id, secret_access_key)

    return make_client


def _made_client(region_name: str | None, access_key_id: str | None, secret_access_key: str | None) -> Any:
    import encodings.idna  # noqa: F401, PLC0415 - the first connection imports it

    import boto3  # noqa: PLC0415 - see client_factory
    from botocore.config import Config  # noqa: PLC0415 - see client_factory

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"total_max_attempts": 1},  # retries are ours: they know the deadline, and are counted
        parameter_validation=False,  # the encoder knows the limits better
        disable_request_compression=True,  # it is done here, at another level
        # botocore adds itself; its own is put together anew for each request, a fifth of the CPU of a call.
        user_agent=f"otel-cloudwatch-flask/{__version__} Python/{platform.python_version()}",
    )
    session = boto3.Session(
        aws_access_key_id=access_key_id, aws_secret_access_key=secret_access_key, region_name=region_name
    )
    return session.client("cloudwatch", config=config)


def checked_client(client: Client | None) -> Client | None:
    """A client that can be called, or ``None``.

    Raises :class:`ConfigurationError` for anything else.
    """
    if client is None or callable(getattr(client, "put_metric_data", None)):
        return client
    raise ConfigurationError(
        f"client={safe_repr(client)} has no put_metric_data; pass boto3.client('cloudwatch'), or leave it out and set "
        "region_name, or AWS_REGION. A reporter with a Region or credentials of its own is made by "
        "CloudWatchMetricsReporter.new_reporter(app, namespace, aws_region_name, ...).",
        key="client",
        value=client,
    )


def plain_put(client: Client) -> Put:
    """Put batches with a client of anybody's, by the plain call."""
    return lambda batch: client.put_metric_data(**batch.parameters())


def encoded_put(client: Any) -> Put:
    """Put batches with a boto3 client of our own, as they are encoded already where its protocol allows that."""
    if client.meta.service_model.resolved_protocol != _ENCODED_PROTOCOL:
        return plain_put(client)
    return _EncodedPut(client)


class _EncodedPut:
    """Put the encoded body in place of the one that botocore made of next to nothing. For one thread at a time."""

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
