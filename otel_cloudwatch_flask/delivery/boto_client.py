"""Create the boto3 client, and send encoded batches with it. No other module of the exporter imports boto3.

botocore takes more than ten times as long as :mod:`~otel_cloudwatch_flask.delivery.batch` to encode a request, and
holds the GIL meanwhile. Therefore, a handler for ``before-call``, a documented event that precedes signing, inserts the
encoded body. botocore still resolves endpoints and credentials, signs the request and sends it. If a client uses a
protocol other than JSON, or was passed by the program, its ``put_metric_data`` method gets the datums as usual.
"""

import contextlib
import functools
import platform
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, Union

from otel_cloudwatch_flask.delivery.batch import Batch
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.runtime.process import no_fork
from otel_cloudwatch_flask.runtime.safe_text import safe_repr
from otel_cloudwatch_flask.version import __version__

if TYPE_CHECKING:
    from botocore.client import BaseClient

CONNECT_TIMEOUT_SECONDS: Final = 3.0
READ_TIMEOUT_SECONDS: Final = 8.0
"""Maximum wait for each part of the response. Both timeouts together leave time for a retry within 30 s."""

_ENCODED_PROTOCOL: Final = "json"
_BEFORE_CALL: Final = "before-call.cloudwatch.PutMetricData"
_GZIP_LEVEL: Final = 1
"""Level 1 takes at most a fifth of the CPU time of botocore's level 9, for bodies that are up to 10% larger."""
_GZIP_FORMAT: Final = 16 + zlib.MAX_WBITS
_GZIP_MEMORY_LEVEL: Final = 7
"""Uses less memory than the default level, and compresses almost as well."""
_MIN_GZIP_BYTES: Final = 2048


class PutsMetricData(Protocol):
    """Any object that has the ``put_metric_data`` method of boto3's CloudWatch client."""

    @property
    def put_metric_data(self) -> Callable[..., Any]:
        """Store metrics. See https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html."""


# Pyright infers BaseClient for boto3's clients if boto3-stubs is not installed.
Client: TypeAlias = Union[PutsMetricData, "BaseClient"]

Put: TypeAlias = Callable[[Batch], object]
"""A function that sends a batch and returns the client's response. It lets the client's exceptions propagate."""

ClientFactory: TypeAlias = Callable[[], Any]

client_substitutes: Final[list[ClientFactory]] = []
"""Factories that tests have set. The last one creates all clients of the process instead of boto3."""


def client_factory(
    region_name: str | None = None, *, access_key_id: str | None = None, secret_access_key: str | None = None
) -> ClientFactory:
    """Return a factory of boto3 clients whose timeouts and retries suit the exporter's deadlines.

    boto3 is imported when the factory is called, because the import is slow. Forks are blocked meanwhile: a child would
    otherwise inherit half-imported modules, and locks that OpenSSL holds while it creates a context.
    """

    def create_client() -> Any:
        if client_substitutes:
            return client_substitutes[-1]()
        return _new_client(region_name, access_key_id, secret_access_key)

    return create_client


@no_fork()
def _new_client(region_name: str | None, access_key_id: str | None, secret_access_key: str | None) -> Any:
    import encodings.idna  # noqa: F401, PLC0415 - the first connection imports it, and a fork must not interrupt that

    import boto3  # noqa: PLC0415 - see client_factory
    from botocore.config import Config  # noqa: PLC0415 - see client_factory
    from botocore.session import Session  # noqa: PLC0415 - see client_factory

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"total_max_attempts": 1},  # the sender retries: it knows the deadline and counts requests
        parameter_validation=False,  # the encoder writes only valid requests
        disable_request_compression=True,  # _EncodedPut compresses, at a lower level
        # botocore rebuilds its default user agent for each request, which takes a fifth of the CPU time of a call.
        user_agent=f"otel-cloudwatch-flask/{__version__} Python/{platform.python_version()}",
    )
    core = Session()
    core.register_component("data_loader", _shared_loader())
    session = boto3.Session(access_key_id, secret_access_key, region_name=region_name, botocore_session=core)
    return session.client("cloudwatch", config=config)


@functools.cache
def _shared_loader() -> Any:
    """Return a loader that caches botocore's data files for all clients, because parsing them is slow."""
    from botocore.session import Session  # noqa: PLC0415 - see client_factory

    return Session().get_component("data_loader")


def checked_client(client: Client | None) -> Client | None:
    """Return ``client``, which may be ``None``.

    Raises :class:`ConfigurationError` if ``client`` is an object without a ``put_metric_data`` method.
    """
    if client is None or callable(getattr(client, "put_metric_data", None)):
        return client
    raise ConfigurationError(
        f"The client {safe_repr(client)} has no put_metric_data method; pass boto3.client('cloudwatch'), or omit "
        "the client and set region_name or AWS_REGION. For a reporter with its own credentials, call "
        "CloudWatchMetricsReporter.new_reporter(app, namespace, aws_region_name, ...).",
        key="client",
        value=client,
    )


def close_idle_connections(client: Any) -> None:
    """Close the idle connections of a boto3 client, which stays usable. Does nothing for any other client.

    A forked child must not use its parent's connections, or the parent and the child would receive each other's
    responses.
    """
    if hasattr(client, "meta"):  # other clients may be unusable after close()
        with contextlib.suppress(Exception):  # boundary: clients of any kind
            client.close()


def plain_put(client: Any) -> Put:
    """Return a function that sends each batch with an ordinary ``put_metric_data`` call. Suits any client."""
    return lambda batch: client.put_metric_data(**batch.parameters())


def encoded_put(client: Any) -> Put:
    """Return a function that sends batches with ``client``.

    If the client uses the JSON protocol, the function sends each batch in its encoded form, bypassing boto3's
    serializer. Otherwise, boto3 encodes the batches.
    """
    if client.meta.service_model.resolved_protocol != _ENCODED_PROTOCOL:
        return plain_put(client)
    return _EncodedPut(client)


class _EncodedPut:
    """Calls ``put_metric_data`` without datums, and replaces the body with an encoded batch. Not thread-safe."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._batch: Batch | None = None
        client.meta.events.register(_BEFORE_CALL, self._put_body)

    def __call__(self, batch: Batch) -> object:
        self._batch = batch
        try:
            return self._client.put_metric_data(Namespace="-", MetricData=[])
        finally:
            self._batch = None  # the client keeps the handler, which must not keep the batch alive

    def _put_body(self, params: dict[str, Any], **_: object) -> None:
        if self._batch is None:
            return
        # Compressing small bodies is not worth the CPU time: they fit into a few packets anyway.
        body = self._batch.body()
        if len(body) >= _MIN_GZIP_BYTES:
            compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT, _GZIP_MEMORY_LEVEL)
            body = compressor.compress(body) + compressor.flush()
            params["headers"]["Content-Encoding"] = "gzip"
        params["body"] = body
