"""The servers that run the app: their requirements, their commands, and their exit statuses."""

import importlib.util
import os
import signal
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.processes import GUNICORN, ROOT, UWSGI

WAITRESS = """
import socket, sys, waitress
from tests.reliability.app import create_app

waitress.serve(create_app(), sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""
WERKZEUG = """
import sys
from werkzeug.serving import make_server
from tests.reliability.app import create_app

make_server("127.0.0.1", 0, create_app(), threaded=True, fd=int(sys.argv[1])).serve_forever()
"""
FLASK_RUN = """
import os, sys
from flask.cli import main

os.environ.update(WERKZEUG_RUN_MAIN="true", WERKZEUG_SERVER_FD=sys.argv[1])
sys.argv = ["flask", "--app", "tests.reliability.app:create_app()", "run"]
main()
"""
UVICORN_PROGRAM = """
import sys, uvicorn
import counting

if __name__ == "__main__":
    uvicorn.run("counting:app", fd=int(sys.argv[1]), workers=2)
"""
COUNTING = """
from tests.reliability.app import {factory}

app = {factory}()
"""


@dataclass(frozen=True)
class ServerCase:
    """A server: the modules it requires, its command, its number of processes, and its status after SIGTERM."""

    modules: tuple[str, ...]
    command: tuple[str, ...]
    workers: int = 1
    status: int = 0
    factory: str = "create_app"
    is_possible: bool = True

    @property
    def obstacle(self) -> str | None:
        """The reason why this server cannot run here, or ``None`` if it can."""
        missing = [each for each in self.modules if importlib.util.find_spec(each) is None]
        if missing:
            return f"not installed: {', '.join(missing)}"
        return None if self.is_possible else "the server's user cannot read this Python"

    def write_program(self, folder: Path) -> None:
        """Write the files that the command of :func:`_uvicorn_program` runs."""
        (folder / "serve.py").write_text(UVICORN_PROGRAM)
        (folder / "counting.py").write_text(COUNTING.format(factory=self.factory))


def _in_one_process(modules: tuple[str, ...], program: str) -> ServerCase:
    return ServerCase(modules, (sys.executable, "-c", program, "{fd}"), status=-signal.SIGTERM)


def _uvicorn(adapter: str, *, workers: int) -> ServerCase:
    app = f"tests.reliability.app:create_{adapter}_app"
    command = (sys.executable, "-m", "uvicorn", "--factory", app, "--fd", "{fd}", "--workers", str(workers))
    return ServerCase(("uvicorn", adapter), command, workers, status=0 if workers > 1 else -signal.SIGTERM)


def _uvicorn_program(adapter: str) -> ServerCase:
    command = (sys.executable, "{folder}/serve.py", "{fd}")
    return ServerCase(("uvicorn", adapter), command, workers=2, factory=f"create_{adapter}_app")


def _hypercorn(app: str) -> ServerCase:
    command = (sys.executable, "-m", "hypercorn", "--bind", "fd://{fd}", "--workers", "2", app)
    return ServerCase(("hypercorn", "asgiref"), command, workers=2)


def _gunicorn(worker_class: str, *options: str) -> ServerCase:
    command = (*GUNICORN, "--workers", "2", "--worker-class", worker_class, *options)
    return ServerCase(("gunicorn",), (*command, "tests.reliability.app:create_app()"), workers=2)


def _gunicorn_with_uvicorn(*options: str) -> ServerCase:
    command = (*GUNICORN, "--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker", *options)
    modules = ("gunicorn", "uvicorn_worker", "a2wsgi")
    return ServerCase(modules, (*command, "tests.reliability.app:create_a2wsgi_app()"), workers=2)


_GRANIAN = ServerCase(
    ("granian",),
    (
        *(sys.executable, "-m", "granian", "--interface", "wsgi", "--workers", "2"),
        *("--port", "{port}", "--factory", "tests.reliability.app:create_app"),
    ),
    workers=2,
)
_UWSGI_OPTIONS = (
    *("--http-socket", "fd://{fd}", "--master", "--processes", "2", "--threads", "4", "--enable-threads"),
    *("--hook-master-start", "unix_signal:15 gracefully_kill_them_all", "--need-app", "--disable-logging"),
)
_IS_ROOT = hasattr(os, "getuid") and os.getuid() == 0
_MOD_WSGI_OPTIONS = (
    *("--application-type", "module", "tests.reliability.app", "--working-directory", str(ROOT)),
    *("--host", "127.0.0.1", "--port", "{port}", "--server-root", "{folder}/apache", "--log-to-terminal"),
    *("--processes", "2", "--threads", "4"),
    # Apache does not serve requests as root.
    *(("--user", "nobody", "--group", "nogroup") if _IS_ROOT else ()),
)
_MOD_WSGI = ServerCase(
    ("mod_wsgi",),
    (str(UWSGI.with_name("mod_wsgi-express")), "start-server", *_MOD_WSGI_OPTIONS),
    workers=2,
    is_possible=not _IS_ROOT or all(each.stat().st_mode & stat.S_IXOTH for each in Path(sys.base_prefix).parents),
)

SERVERS = {
    "waitress": _in_one_process(("waitress",), WAITRESS),
    "Werkzeug": _in_one_process((), WERKZEUG),
    "flask run": _in_one_process((), FLASK_RUN),
    "uvicorn, a2wsgi": _uvicorn("a2wsgi", workers=1),
    "uvicorn, asgiref": _uvicorn("asgiref", workers=1),
    "uvicorn program, a2wsgi, 2 workers": _uvicorn_program("a2wsgi"),
    "hypercorn, WSGI": _hypercorn("wsgi:tests.reliability.app:create_app()"),
    "granian": _GRANIAN,
    "gunicorn, UvicornWorker": _gunicorn_with_uvicorn(),
}
FURTHER_SERVERS = {
    "uvicorn program, asgiref, 2 workers": _uvicorn_program("asgiref"),
    "hypercorn, asgiref": _hypercorn("tests.reliability.app:create_asgiref_app()"),
    "gunicorn, sync": _gunicorn("sync"),
    "gunicorn, gthread": _gunicorn("gthread", "--threads", "4"),
    "gunicorn, gevent": _gunicorn("gevent"),
    "uWSGI": ServerCase(
        ("uwsgidecorators",), (str(UWSGI), *_UWSGI_OPTIONS, "--module", "tests.reliability.app"), workers=2
    ),
    "mod_wsgi": _MOD_WSGI,
}
"""Other adapters, servers that ``test_servers_under_load.py`` always tests, and one that needs Apache."""

SERVERS_THAT_LOSE = {
    "uvicorn, a2wsgi, 2 workers": _uvicorn("a2wsgi", workers=2),
    "gunicorn, UvicornWorker, preload": _gunicorn_with_uvicorn("--preload"),
}
"""Servers whose workers end by the default action of SIGTERM, without a last flush."""
