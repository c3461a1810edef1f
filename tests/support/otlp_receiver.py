"""A fake OTLP collector on loopback, which adds up the metrics it receives over HTTP, or hangs."""

import gzip
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


class OtlpReceiver(ThreadingHTTPServer):
    """Receives at :attr:`url` within the ``with`` block. While ``goes_on`` is cleared, it does not respond."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.asked = threading.Event()
        self._lock = threading.Lock()
        self._points: defaultdict[str, dict[object, tuple[float, float]]] = defaultdict(dict)
        self.temporalities: set[int] = set()

    def __enter__(self) -> "OtlpReceiver":  # noqa: PYI034 - Python 3.10's typing has no Self
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.goes_on.set()
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self) -> dict[str, str]:
        """Return the environment variables that direct OpenTelemetry's exporter to this receiver."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect before the response."""

    def count(self, name: str) -> float:
        """Return the sample count of a histogram or the value of a counter, over all series and processes."""
        with self._lock:
            return sum(count for count, _ in self._points[name].values())

    def sum(self, name: str) -> float:
        """Return the sum of a histogram, over all series and processes."""
        with self._lock:
            return sum(total for _, total in self._points[name].values())

    def take(self, request: ExportMetricsServiceRequest) -> None:
        """Store the received metrics. Deltas are added, and cumulative values replace earlier ones."""
        with self._lock:
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    whose = resource.resource.SerializeToString(deterministic=True), scope.scope.SerializeToString()
                    for metric in scope.metrics:
                        self._take_metric(whose, metric)

    def _take_metric(self, whose: object, metric: Metric) -> None:
        kind = metric.WhichOneof("data")
        data = getattr(metric, str(kind))
        self.temporalities.add(getattr(data, "aggregation_temporality", DELTA))
        for point in data.data_points:
            attributes = frozenset(each.SerializeToString() for each in point.attributes)
            is_delta = getattr(data, "aggregation_temporality", None) == DELTA
            # Series of two workers differ only in their start time.
            series = (whose, attributes, None if is_delta else point.start_time_unix_nano)
            count, total = self._points[metric.name].get(series, (0.0, 0.0)) if is_delta else (0.0, 0.0)
            if kind in ("sum", "gauge"):
                value = point.as_double if point.WhichOneof("value") == "as_double" else point.as_int
                self._points[metric.name][series] = count + value, total + value
            else:
                self._points[metric.name][series] = count + point.count, total + point.sum


class _Handler(BaseHTTPRequestHandler):
    server: OtlpReceiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.set()
        self.server.goes_on.wait()
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.take(ExportMetricsServiceRequest.FromString(body))
        answer = ExportMetricsServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
