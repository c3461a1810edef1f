"""An app with the live page outside debug mode, behind a check. Run as a program, it uses waitress or Werkzeug."""

import hmac
import socket
import sys

from flask import Flask, request

from otel_cloudwatch_flask import CloudWatchMetricsReporter

SECRET = "for those who may see the page"


def has_secret() -> bool:
    """Return whether the request has the secret."""
    return hmac.compare_digest(request.headers.get("X-Live-Page-Key", "").encode(), SECRET.encode())


app = Flask(__name__)
app.config.update(CLOUDWATCH_LIVE_PAGE=True, CLOUDWATCH_LIVE_PAGE_CHECK=has_secret)
CloudWatchMetricsReporter(app, "Shop", instrument=True)


def main(server: str, descriptor: int) -> None:
    """Serve the app on a listening socket, with the server's defaults."""
    if server == "waitress":
        import waitress  # noqa: PLC0415 - only this server needs it

        waitress.serve(app, sockets=[socket.socket(fileno=descriptor)])  # type: ignore[no-untyped-call]  # as it is
    else:
        from werkzeug.serving import make_server  # noqa: PLC0415 - as above

        make_server("127.0.0.1", 0, app, fd=descriptor).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
