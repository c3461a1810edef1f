"""Checks, and the versions that they run on. `nox --list` lists the sessions, and `nox --session oldest` runs one.

Each session creates its own environment from pyproject.toml. Missing interpreters are skipped unless nox is run with
`--error-on-missing-interpreters`.
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
    """Yield pins of all dependencies to their lower bounds; OpenTelemetry packages are pinned together."""
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    wanted = [*PYPROJECT["project"]["dependencies"], *(each for extra in extras for each in extra)]
    for requirement in wanted:
        match = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\w.]+)", requirement)
        if match and (requirement in PYPROJECT["project"]["dependencies"] or match[1].startswith("opentelemetry-")):
            yield f"{match[1]}=={match[2]}"
            if match[1] == "boto3":
                yield f"botocore=={match[2]}"  # otherwise, pip installs the newest botocore, which makes the calls


def mutmut_settings(module: str, further_tests: Iterable[str] = ()) -> str:
    """Return settings to mutate one module. Its tests import it or have its name, and can be run repeatedly."""
    (source,) = (ROOT / "otel_cloudwatch_flask").rglob(f"{module}.py")
    source = source.relative_to(ROOT)
    imports = f"from {'.'.join(source.with_suffix('').parts)} import"
    named = {path for path in TESTS.rglob("test_*.py") if imports in path.read_text("utf-8")}
    named |= set(TESTS.rglob(f"test_{source.stem}.py"))
    # Excluded: tests whose IDs differ between runs, tests that start programs (which do not see mutants), and tests
    # that read files only present in the repository.
    unfit = {"test_bad_input", "test_recorder", "test_security"}
    chosen = sorted(path.relative_to(ROOT).as_posix() for path in named if path.stem not in unfit)
    chosen += further_tests
    return f"""
[tool.mutmut]
source_paths = ["otel_cloudwatch_flask"]
only_mutate = ["{source.as_posix()}"]
also_copy = ["README.md", "benchmarks", "docs", "examples"]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {chosen}
process_isolation = "forkserver"  # warm caches would hide mutants
timeout_constant = 2.0
use_setproctitle = false
"""


def run_tests(session: nox.Session) -> None:
    """Run the test suite, or the tests given after `--`, and log the duration."""
    begun = time.monotonic()
    session.run("python", "-m", "pytest", "-q", "-n", "auto", *session.posargs)
    session.log(f"the tests took {time.monotonic() - begun:.0f} s on Python {session.python}")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests with the dependencies that pip installs by default."""
    session.install("-e", ".[test]")
    run_tests(session)


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest supported versions, on the oldest supported Python."""
    constraints = Path(session.create_tmp()) / "oldest.txt"
    constraints.write_text("\n".join(lowest_versions()), "utf-8")
    # opentelemetry-configuration requires at least SDK 1.44. Its tests are skipped without it.
    unfit = ("opentelemetry-configuration", "otel-cloudwatch-flask")
    packages = [each for each in PYPROJECT["project"]["optional-dependencies"]["test"] if not each.startswith(unfit)]
    session.install("-e", ".[auto,demo,docs,examples]", *packages, "--constraint", str(constraints))
    session.run("python", "-m", "pip", "list", silent=False)
    run_tests(session)


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """Run the tests with the newest versions of all dependencies, on the newest Python."""
    session.install("--upgrade", "--upgrade-strategy", "eager", "-e", ".[test]")
    session.run("python", "-m", "pip", "list", silent=False)
    run_tests(session)


@nox.session(python=PYTHONS[1])
def examples(session: nox.Session) -> None:
    """Run the examples in an environment with only the packages that their README installs, and the test tools."""
    session.install("-e", ".[auto,examples,demo]", "pytest", "hypothesis")
    session.run(
        "python", "-m", "pytest", "-q", "tests/documentation/test_examples.py", "tests/end_to_end/test_no_code.py"
    )


@nox.session(python=PYTHONS[1])
def lint(session: nox.Session) -> None:
    """Run the linter and the formatter."""
    session.install("ruff>=0.11")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=PYTHONS[1])
def types(session: nox.Session) -> None:
    """Type-check the package, the tests, the examples and the benchmarks."""
    session.install("-e", ".[test]")
    session.run("mypy", *session.posargs)


@nox.session(python=PYTHONS[1])
def docs(session: nox.Session) -> None:
    """Update the generated parts of the documentation, and build the site into build/docs."""
    session.install("-e", ".[docs]")
    session.run("python", "docs/generated.py")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "build/docs", *session.posargs)


@nox.session(python=PYTHONS[1])
def bench(session: nox.Session) -> None:
    """Run the benchmarks, which compare the package with its alternatives."""
    session.install("-e", ".[test]", "--requirement", "benchmarks/requirements.txt")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=PYTHONS[1])
def coverage(session: nox.Session) -> None:
    """Run the tests and list uncovered lines and branches; fail below 97 %."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "coverage", "erase")
    # Not with pytest-cov, because pytest imports this package's plugin before pytest-cov starts measuring.
    # Without tests that fork while threads run, because a child may inherit coverage's lock while it is held.
    tests = session.posargs or ["--ignore=tests/reliability"]
    session.run("python", "-m", "coverage", "run", "-m", "pytest", "-q", *tests)
    session.run("python", "-m", "coverage", "combine", "--quiet")
    session.run("python", "-m", "coverage", "report", "--show-missing", "--skip-covered", "--fail-under=97")


@nox.session(python=PYTHONS[1])
def fuzz(session: nox.Session) -> None:
    """Run stateful, fuzz and property tests with new random seeds for FUZZ_MINUTES (10). Failures print their seed."""
    session.install("-e", ".[test]")
    begun, minutes = time.monotonic(), float(os.environ.get("FUZZ_MINUTES", "10"))
    found = sorted(
        str(path) for kind in ("stateful", "fuzz", "properties") for path in TESTS.rglob(f"test_{kind}_*.py")
    )
    while (elapsed := time.monotonic() - begun) < 60 * minutes:
        seed = f"--hypothesis-seed={time.time_ns() % 2**32}"
        session.log(f"{elapsed / 60:.0f} of {minutes:g} minutes: {seed}")
        session.run("python", "-m", "pytest", "-q", "--hypothesis-profile=fuzz", seed, *(session.posargs or found))


@nox.session(python=PYTHONS[1])
def mutants(session: nox.Session) -> None:
    """Run mutation tests of one pure module: `nox --session mutants -- units`.

    Further tests may follow the module's name: `nox --session mutants -- mapping tests/mapping/test_cost_guard.py`.
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
    """Run the reliability tests (outages, forks, servers under load) for five times the usual time."""
    session.install("-e", ".[test]")
    session.run(
        "python", "-m", "pytest", "-q", "-s", "tests/reliability", *session.posargs, env={"RELIABILITY_SCALE": "5"}
    )


@nox.session(python=PYTHONS[1])
def chaos(session: nox.Session) -> None:
    """Cut, delay and replace bytes between exporters and CloudWatch for CHAOS_SECONDS (3600), with a new CHAOS_SEED.

    Prints the seed, the operations and the faults.
    """
    session.install("-e", ".[test]")
    seed = os.environ.get("CHAOS_SEED", str(time.time_ns() % 2**32))
    variables = {"CHAOS_SECONDS": os.environ.get("CHAOS_SECONDS", "3600"), "CHAOS_SEED": seed}
    session.run("python", "-m", "pytest", "-q", "tests/reliability/test_chaos.py", *session.posargs, env=variables)


@nox.session(python=PYTHONS[1])
def guests(session: nox.Session) -> None:
    """Run the test suites of Flask and its OpenTelemetry instrumentation with this package. Requires the network."""
    # Flask 3.1.3 tests a private name of pytest that pytest 9.1 has removed.
    session.install("-e", ".", "pytest<9.1", "asgiref", "greenlet", "python-dotenv", "opentelemetry-test-utils")
    session.run("python", "-m", "tests.guests", *session.posargs)


@nox.session(python=PYTHONS[1])
def audit(session: nox.Session) -> None:
    """Check the installed dependencies for known vulnerabilities. Requires the network."""
    session.install("pip-audit>=2.7")
    # with --strict, a package that cannot be checked is a failure
    session.run("pip-audit", "--strict", "--progress-spinner", "off", *(session.posargs or ["."]))


@nox.session(python=PYTHONS[1])
def build(session: nox.Session) -> None:
    """Build the sdist and, from it, the wheel. Check both, and run the demo from the wheel in clean environments."""
    session.install("build>=1.2", "twine>=6")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, (ROOT / "dist").iterdir()))
    for python in (PYTHONS[0], PYTHONS[-1]):
        session.notify(f"installed-{python}")


@nox.session(python=PYTHONS, default=False)
def installed(session: nox.Session) -> None:
    """Install the wheel from the session `build` into a clean environment, and run the demo there."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    session.install(f"otel-cloudwatch-flask[demo] @ {wheel.as_uri()}")
    session.chdir(session.create_tmp())  # the source tree must not be imported
    session.run("python", "-m", "otel_cloudwatch_flask", "demo", "--seconds", "2")
