"""What is checked on which versions: `nox --list` shows all, `nox --session oldest` runs one.

Every session makes an environment of its own from what pyproject.toml says. Interpreters that are missing are skipped,
unless nox is told `--error-on-missing-interpreters`.
"""

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import nox

ROOT = Path(__file__).parent
TESTS = ROOT / "tests"
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "docs", "build", "oldest", "newest"]
nox.options.error_on_external_run = True


def lowest_versions() -> Iterator[str]:
    """Pin what the package needs to its lower bound, and with it all of OpenTelemetry, which is released together."""
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    wanted = [*PYPROJECT["project"]["dependencies"], *(each for extra in extras for each in extra)]
    for requirement in wanted:
        match = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\w.]+)", requirement)
        if match and (requirement in PYPROJECT["project"]["dependencies"] or match[1].startswith("opentelemetry-")):
            yield f"{match[1]}=={match[2]}"
            if match[1] == "boto3":
                yield f"botocore=={match[2]}"  # pip would take the newest that fits, and that does the work


def mutmut_settings(module: str, further_tests: Iterable[str] = ()) -> str:
    """What is mutated, and the tests of it: those that import it or are named after it, and can be run repeatedly."""
    imports = re.compile(rf"from otel_cloudwatch_flask(\.{module} import| import {module}$)", re.MULTILINE)
    named = {path for path in TESTS.glob("test_*.py") if imports.search(path.read_text("utf-8"))}
    named |= set(TESTS.glob(f"test_{module}.py"))
    # The ids of some tests are not the same in the next run, some start programs, which see no mutants, and some read
    # what is only in the repository.
    unfit = {"test_bad_input", "test_recorder", "test_security"}
    chosen = sorted(f"tests/{path.name}" for path in named if path.stem not in unfit)
    chosen += further_tests
    return f"""
[tool.mutmut]
source_paths = ["otel_cloudwatch_flask"]
only_mutate = ["otel_cloudwatch_flask/{module}.py"]
also_copy = ["README.md", "benchmarks", "docs", "examples"]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {chosen}
process_isolation = "forkserver"  # caches that are full already would hide mutants
timeout_constant = 2.0
use_setproctitle = false
"""


def run_tests(session: nox.Session) -> None:
    """Run the suite, or what the command line names after `--`, and say how long it took."""
    begun = time.monotonic()
    session.run("python", "-m", "pytest", "-q", *session.posargs)
    session.log(f"the tests took {time.monotonic() - begun:.0f} s on Python {session.python}")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests with what pip installs today."""
    session.install("-e", ".[test]")
    run_tests(session)


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest versions that are supported, on the oldest Python."""
    constraints = Path(session.create_tmp()) / "oldest.txt"
    constraints.write_text("\n".join(lowest_versions()), "utf-8")
    session.install("-e", ".[test]", "--constraint", str(constraints))
    session.run("python", "-m", "pip", "list", silent=False)
    run_tests(session)


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """Run the tests with the newest versions there are, on the newest Python."""
    session.install("--upgrade", "--upgrade-strategy", "eager", "-e", ".[test]")
    session.run("python", "-m", "pip", "list", silent=False)
    run_tests(session)


@nox.session(python=PYTHONS[1])
def examples(session: nox.Session) -> None:
    """Run the examples in an environment that has what their README installs, and what judges them."""
    session.install("-e", ".[examples,demo]", "pytest", "hypothesis")
    session.run(
        "python", "-m", "pytest", "-q", "tests/documentation/test_examples.py", "tests/end_to_end/test_no_code.py"
    )


@nox.session(python=PYTHONS[1])
def lint(session: nox.Session) -> None:
    """Check style and form."""
    session.install("ruff>=0.11")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=PYTHONS[1])
def types(session: nox.Session) -> None:
    """Check the types of the package, the tests and the examples."""
    session.install("-e", ".[test]")
    session.run("mypy", *session.posargs)


@nox.session(python=PYTHONS[1])
def docs(session: nox.Session) -> None:
    """Write the generated parts of the documentation anew, and build the site into build/docs."""
    session.install("-e", ".[docs]")
    session.run("python", "docs/generated.py")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "build/docs", *session.posargs)


@nox.session(python=PYTHONS[1])
def bench(session: nox.Session) -> None:
    """Measure what it costs, beside what would be taken instead."""
    session.install("-e", ".[test]", "--requirement", "benchmarks/requirements.txt")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=PYTHONS[1])
def coverage(session: nox.Session) -> None:
    """Run the tests, and say which lines and branches of the package none of them reaches; at least 97 % are."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "coverage", "erase")
    # Not through pytest's plugin: pytest has imported ours before that begins to measure.
    # Without those of forks beside threads: the lock that coverage takes for each new file may be held in the child.
    tests = session.posargs or ["--ignore=tests/reliability"]
    session.run("python", "-m", "coverage", "run", "-m", "pytest", "-q", *tests)
    session.run("python", "-m", "coverage", "combine", "--quiet")
    session.run("python", "-m", "coverage", "report", "--show-missing", "--skip-covered", "--fail-under=97")


@nox.session(python=PYTHONS[1])
def fuzz(session: nox.Session) -> None:
    """Search with other examples each time, until FUZZ_MINUTES (10) are over; a failure prints how to see it again."""
    session.install("-e", ".[test]")
    begun, minutes = time.monotonic(), float(os.environ.get("FUZZ_MINUTES", "10"))
    found = sorted(str(path) for kind in ("stateful", "fuzz", "properties") for path in TESTS.glob(f"test_{kind}_*.py"))
    while (elapsed := time.monotonic() - begun) < 60 * minutes:
        seed = f"--hypothesis-seed={time.time_ns() % 2**32}"
        session.log(f"{elapsed / 60:.0f} of {minutes:g} minutes: {seed}")
        session.run("python", "-m", "pytest", "-q", "--hypothesis-profile=fuzz", seed, *(session.posargs or found))


@nox.session(python=PYTHONS[1])
def mutants(session: nox.Session) -> None:
    """Change a pure module, line by line, and see whether its tests notice: `nox --session mutants -- units`.

    What else tests it is named behind it: `nox --session mutants -- mapping tests/mapping/test_cost_guard.py`.
    """
    session.install("-e", ".[test]", "mutmut>=3.8")
    module, *further_tests = session.posargs or ["units"]
    tree = Path(session.create_tmp()) / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "build", "dist", "mutants"))
    with (tree / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(mutmut_settings(module, further_tests))
    session.chdir(tree)
    session.run("mutmut", "run", "--max-children", "2", silent=True)
    session.run("mutmut", "results")


@nox.session(python=PYTHONS[1])
def soak(session: nox.Session) -> None:
    """Run the tests of reliability five times as long as otherwise: outages, forks, servers under load."""
    session.install("-e", ".[test]")
    session.run(
        "python", "-m", "pytest", "-q", "-s", "tests/reliability", *session.posargs, env={"RELIABILITY_SCALE": "5"}
    )


@nox.session(python=PYTHONS[1])
def audit(session: nox.Session) -> None:
    """Look up what pip installs with the package among known vulnerabilities; needs the network."""
    session.install("pip-audit>=2.7")
    # Strict: what could not be looked up is no reason to be content.
    session.run("pip-audit", "--strict", "--progress-spinner", "off", *(session.posargs or ["."]))


@nox.session(python=PYTHONS[1])
def build(session: nox.Session) -> None:
    """Build the source distribution and, from that, the wheel; check both, and try them where nothing else is."""
    session.install("build>=1.2", "twine>=6")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, (ROOT / "dist").iterdir()))
    for python in (PYTHONS[0], PYTHONS[-1]):
        session.notify(f"installed-{python}")


@nox.session(python=PYTHONS, default=False)
def installed(session: nox.Session) -> None:
    """Install the wheel that `build` has made into a clean environment, and run the demo there."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    session.install(f"otel-cloudwatch-flask[demo] @ {wheel.as_uri()}")
    session.chdir(session.create_tmp())  # not where the sources are
    session.run("python", "-m", "otel_cloudwatch_flask", "demo", "--seconds", "2")
