"""The shop behind waitress: what runs in the demo's other process, until its standard input ends.

Says two things on standard output, each a line of JSON: first where it listens, and at the end what the shop counted
and what became of its metrics. Because a pipe ends with whoever holds it, no server outlives its demo.
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
_PLACES: Final = (
    _PACKAGE_DIRECTORY / "shop.py",  # where it is installed
    _PACKAGE_DIRECTORY.parents[1] / "examples" / "shop.py",  # in a checkout
)


def main() -> None:
    """Serve, and say what there is to say."""
    shop = load_shop()
    server = create_server(shop.create_app(), host="127.0.0.1", port=0, threads=SERVER_THREADS)  # type: ignore[no-untyped-call]  # as it is
    threading.Thread(target=server.run, name="waitress", daemon=True).start()
    _say({"url": f"http://127.0.0.1:{server.effective_port}"})
    sys.stdin.read()
    server.task_dispatcher.shutdown()
    shop.reporter.shutdown()
    _say({"books": asdict(shop.books), "delivery": asdict(shop.reporter.stats())})


def load_shop() -> Any:
    """The example's module, wherever it is."""
    place = next(path for path in _PLACES if path.exists())
    specification = importlib.util.spec_from_file_location("shop", place)
    if specification is None or specification.loader is None:
        raise ImportError(f"{place} cannot be imported.")
    shop = importlib.util.module_from_spec(specification)
    sys.modules["shop"] = shop  # Flask asks for it, to find out where the app lives
    specification.loader.exec_module(shop)
    return shop


def _say(message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
