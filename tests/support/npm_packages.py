"""Fetch npm packages, with which tests check this package's output in a browser or another tool."""

import shutil
import subprocess
from pathlib import Path

import pytest


def fetched(cache: pytest.Cache, package: str, version: str) -> Path:
    """Return the folder ``node_modules`` that contains a package, fetched once and kept in pytest's cache.

    Skips the test if the package cannot be fetched.
    """
    folder = cache.mkdir(f"{package}@{version}".replace("/", "+"))
    modules = folder / "node_modules"
    # npm writes this file when an installation is complete
    if not (modules / ".package-lock.json").exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip(f"needs npm to fetch {package}")
        command = [npm, "install", "--silent", "--ignore-scripts", "--prefix", str(folder), f"{package}@{version}"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip(f"{package} cannot be fetched from npm")
    return modules
