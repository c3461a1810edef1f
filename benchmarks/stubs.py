"""Stubs for the network: everything runs except the transport, and request bodies are stored."""

import gzip
import os
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse

from benchmarks.harness import optional


@dataclass
class Traffic:
    """The bodies of the requests since the last call to ``clear``."""

    bodies: list[bytes] = field(default_factory=list)

    def clear(self) -> None:
        """Discard the bodies."""
        self.bodies.clear()

    @property
    def sent_bytes(self) -> int:
        """Return the size of the bodies as sent."""
        return sum(map(len, self.bodies))

    @property
    def plain_bytes(self) -> int:
        """Return the size of the bodies before compression."""
        return sum(len(gzip.decompress(body)) if body.startswith(b"\x1f\x8b") else len(body) for body in self.bodies)


def answered(client: Any, traffic: Traffic | None = None) -> Any:
    """Return a boto3 CloudWatch client whose requests get a response before they are sent."""

    def answer(request: Any, **_: object) -> AWSResponse:
        if traffic is not None:
            traffic.bodies.append(request.body)
        headers: Any = {"Content-Type": "application/x-amz-json-1.0", "x-amzn-requestid": "benchmark"}
        return AWSResponse(request.url, 200, headers, _EmptyBody())

    client.meta.events.register("before-send.cloudwatch.PutMetricData", answer)
    return client


class _EmptyBody:
    """An empty response body, in the form that urllib3 provides."""

    def stream(self) -> Any:
        """Yield no bytes."""
        return iter([b""])


def answered_session(traffic: Traffic | None = None) -> Any:
    """Return a ``requests`` session in which every request gets a response before it is sent."""
    requests = optional("requests")  # requests is installed with the OTLP exporter

    class Answering(requests.adapters.BaseAdapter):  # type: ignore[misc, name-defined]
        def send(self, request: Any, *_arguments: Any, **_keywords: Any) -> Any:
            if traffic is not None:
                traffic.bodies.append(request.body)
            response = requests.Response()
            response.status_code, response.request, response.url = 200, request, request.url
            response._content = b""  # noqa: SLF001 - there is no public way to make a response
            return response

        def close(self) -> None:
            """Do nothing, because no connection is open."""

    session = requests.Session()
    session.mount("http://", Answering())
    return session


def answer_all_clients() -> None:
    """From now on, respond to the requests of every boto3 client that this process creates."""
    os.environ.update(AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", AWS_DEFAULT_REGION="us-east-1")
    make_client: Any = boto3.Session.client
    session: Any = boto3.Session
    session.client = lambda *arguments, **keywords: answered(make_client(*arguments, **keywords))
