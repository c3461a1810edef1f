"""Type checkers accept programs that use the package, with and without the type stubs of boto3."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from otel_cloudwatch_flask.model.units import CLOUDWATCH_UNITS, Unit

ROOT = Path(__file__).parents[2]
EXAMPLES = Path(__file__).with_name("typed_examples.py")
CHECKERS = {
    "mypy": ["--strict", "--config-file=", "--disable-error-code=import-untyped", "--python-executable"],
    "pyright": ["--pythonpath"],
}


def test_each_unit_has_a_type() -> None:
    """The type of units lists the names of all units, so that editors suggest them."""
    assert set(get_args(Unit)) == set(CLOUDWATCH_UNITS)


@pytest.fixture(scope="module")
def python_without_stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the same packages as this one, except the stubs of boto3."""
    folder = tmp_path_factory.mktemp("environment")
    packages = folder / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("boto3-stubs", "botocore-stubs", "mypy_boto3", "types_boto3")):
            (packages / path.name).symlink_to(path)
    venv.create(folder / "env")
    (own,) = (folder / "env").glob("lib/python*/site-packages")
    (own / "all.pth").write_text(f"{packages}\n{ROOT}\n", "utf-8")
    return folder / "env" / "bin" / "python"


def check(checker: str, python: Path, tmp_path: Path) -> str:
    """Check the examples as if they were outside this repository, and return the type checker's output."""
    if not find_spec(checker) or (checker == "pyright" and not shutil.which("node")):
        pytest.skip('needs Node.js, and pip install -e ".[test]"')
    program = shutil.copy(EXAMPLES, tmp_path / "program.py")
    command = [sys.executable, "-m", checker, *CHECKERS[checker], str(python), program]
    environ = {**os.environ, "PYRIGHT_PYTHON_GLOBAL_NODE": "1", "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=300)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_pyright_with_stubs(tmp_path: Path) -> None:
    """Pyright accepts the examples with boto3-stubs. mypy checks them with stubs as part of the repository."""
    assert check("pyright", Path(sys.executable), tmp_path) == ""


@pytest.mark.parametrize("checker", CHECKERS)
def test_without_stubs(checker: str, python_without_stubs: Path, tmp_path: Path) -> None:
    """Both type checkers accept the examples without boto3-stubs."""
    assert check(checker, python_without_stubs, tmp_path) == ""
