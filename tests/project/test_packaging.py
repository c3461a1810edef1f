"""The distributions contain the expected files and metadata, and no others."""

import email
import fnmatch
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from importlib.util import find_spec
from pathlib import Path

import pytest

from otel_cloudwatch_flask.version import __version__

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not find_spec("hatchling"), reason='needs hatchling: pip install -e ".[test]"')

# Every file in the wheel matches one of these patterns, and each pattern matches at least one file.
IN_THE_WHEEL = [
    "otel_cloudwatch_flask/*.py",
    "otel_cloudwatch_flask/py.typed",
    "otel_cloudwatch_flask/*/*.py",
    "otel_cloudwatch_flask/*/*/*.py",
    "otel_cloudwatch_flask/live_page/assets/*.css",
    "otel_cloudwatch_flask/live_page/assets/*.html",
    "otel_cloudwatch_flask/live_page/assets/*.js",
    "otel_cloudwatch_flask/live_page/assets/*.svg",
    "otel_cloudwatch_flask/live_page/assets/uplot.LICENSE",
    "*.dist-info/METADATA",
    "*.dist-info/RECORD",
    "*.dist-info/WHEEL",
    "*.dist-info/entry_points.txt",
    "*.dist-info/licenses/LICENSE",
    "*.dist-info/licenses/otel_cloudwatch_flask/live_page/assets/uplot.LICENSE",
]
AT_THE_TOP_OF_THE_SDIST = {
    ".gitignore",  # read by hatchling when it builds the wheel
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "SECURITY.md",
    "benchmarks",
    "docs",
    "examples",
    "noxfile.py",
    "otel_cloudwatch_flask",
    "pyproject.toml",
    "tests",
}
NEVER = ("*.pyc", "*__pycache__*", "*.orig", "*.rej", "*.log", "*/.hypothesis/*", "*/.coverage", "*/build/*", "*~")


def build(source: Path, directory: Path, target: str) -> Path:
    """Build ``source`` like ``python -m build``, but with the installed build tools, and return the result's path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(directory)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the wheel."""
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the source distribution."""
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """The metadata of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        return email.message_from_bytes(archive.read(name))


def in_wheel(wheel: Path) -> list[str]:
    """Return the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def depth_matches(name: str, pattern: str) -> bool:
    """Return whether a name matches a pattern in which a star does not match slashes."""
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)


def test_the_wheel_has_what_it_should_and_nothing_else(wheel: Path) -> None:
    """Each file in the wheel matches a pattern, and each pattern a file; tests, caches and documents are left out."""
    names = in_wheel(wheel)
    assert [name for name in names if not any(depth_matches(name, pattern) for pattern in IN_THE_WHEEL)] == []
    assert [pattern for pattern in IN_THE_WHEEL if not any(depth_matches(name, pattern) for name in names)] == []
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "otel_cloudwatch_flask").rglob("*.py")}
    # The demo's shop is one of the examples, and is copied into the wheel.
    assert {name for name in names if name.endswith(".py")} == modules | {"otel_cloudwatch_flask/demo/shop.py"}


def test_the_sdist_has_what_it_should_and_nothing_else(sdist: Path) -> None:
    """The sdist has the files to build, test and document the package, and no other local files."""
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {name.partition("/")[0] for name in names} == AT_THE_TOP_OF_THE_SDIST
    assert [name for name in names if any(fnmatch.fnmatchcase(f"/{name}", pattern) for pattern in NEVER)] == []


def test_the_wheel_of_the_sdist_is_the_same(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    """A wheel built from the sdist equals one built from the repository."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert in_wheel(build(source, tmp_path / "wheel", "wheel")) == in_wheel(wheel)


def test_metadata(metadata: Message) -> None:
    """The metadata contains the license expression and files, every supported Python, and the requirements."""
    assert metadata["Name"] == "otel-cloudwatch-flask"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "MIT"
    assert set(metadata.get_all("License-File", [])) == {
        "LICENSE",
        "otel_cloudwatch_flask/live_page/assets/uplot.LICENSE",
    }
    classifiers = metadata.get_all("Classifier", [])
    assert not [each for each in classifiers if each.startswith("License ::")], "replaced by the expression (PEP 639)"
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)} <= set(classifiers)
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Description-Content-Type"] == "text/markdown"
    required = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
    names = {re.split(r"[^\w-]", each)[0] for each in required}
    assert names == {"flask", "opentelemetry-sdk", "opentelemetry-instrumentation-flask", "boto3"}


def test_entry_points(wheel: Path) -> None:
    """OpenTelemetry finds the reader, Flask the commands, and pytest the fixture."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        groups = re.findall(r"^\[(.+)\]$", archive.read(name).decode(), re.MULTILINE)
    assert set(groups) == {
        "opentelemetry_metrics_exporter",
        "opentelemetry_pull_metric_exporter",
        "flask.commands",
        "pytest11",
    }


def test_the_version_is_in_one_place() -> None:
    """The version is in one place; a release changes only that and the changelog's heading."""
    places = [
        ROOT / "pyproject.toml",
        ROOT / "README.md",
        *(ROOT / "docs").glob("*"),
        *(ROOT / "otel_cloudwatch_flask").rglob("*.py"),
    ]
    text = re.compile(rf"(?<![\d.-]){re.escape(__version__)}(?![\d.])")
    found = {path.name for path in places if path.is_file() and text.search(path.read_text("utf-8"))}
    assert found == {"version.py"}
