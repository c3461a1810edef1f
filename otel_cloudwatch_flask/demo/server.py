"""The program that runs as a separate process and serves the shop until standard input is closed.

It writes two lines of JSON to standard output, in addition to any EMF lines: the URL when it starts, and the shop's own
counts (``books``) and delivery statistics when it ends. Standard input is a pipe from the demo. If the demo dies, the
operating system closes the pipe, and the server exits.
"""

import importlib.util
import json
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from waitress.server import create_server

SERVER_THREADS: Final = 8

_PACKAGE_DIRECTORY: Final = Path(__file__).parent
_SHOP_PATHS: Final = (
    _PACKAGE_DIRECTORY / "shop.py",  # in an installed wheel
    _PACKAGE_DIRECTORY.parents[1] / "examples" / "shop.py",  # in a checkout
)


def main() -> None:
    """Serve the shop until standard input is closed."""
    shop = load_shop()
    server = create_server(shop.create_app(), host="127.0.0.1", port=0, threads=SERVER_THREADS)  # type: ignore[no-untyped-call]  # waitress is untyped
    threading.Thread(target=server.run, name="waitress", daemon=True).start()
    _write_message({"url": f"http://127.0.0.1:{server.effective_port}"})
    sys.stdin.read()
    # Requests in progress end before the final flush, so that the books and the metrics agree.
    server.task_dispatcher.shutdown()
    shop.reporter.shutdown()
    _write_message({"books": asdict(shop.books), "delivery": asdict(shop.reporter.stats())})


def load_shop() -> Any:
    """Import the example shop from the installed package or, in a source checkout, from ``examples/``."""
    path = next(path for path in _SHOP_PATHS if path.exists())
    specification = importlib.util.spec_from_file_location("shop", path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path} cannot be imported.")
    shop = importlib.util.module_from_spec(specification)
    sys.modules["shop"] = shop  # Flask looks up the module to find the app's root path
    specification.loader.exec_module(shop)
    return shop


def _write_message(message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
