"""Hooks for forks."""

import sys
from types import SimpleNamespace

import pytest

from otel_cloudwatch_flask.runtime.process import _call_after_forks_of_uwsgi


@pytest.mark.parametrize("hooks_of_program", [[], ["program"]], ids=["none", "one"])
def test_uwsgis_only_hook(hooks_of_program: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``uwsgidecorators``, this package's hook runs after the program's, if there is one."""
    calls: list[str] = []
    uwsgi = SimpleNamespace(masterpid=lambda: 1)
    for name in hooks_of_program:
        uwsgi.post_fork_hook = lambda name=name: calls.append(name)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    monkeypatch.setitem(sys.modules, "uwsgidecorators", None)
    assert _call_after_forks_of_uwsgi(lambda: calls.append("package"))
    uwsgi.post_fork_hook()
    assert calls == [*hooks_of_program, "package"]
