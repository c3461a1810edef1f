"""Fetch packages from npm for tests of what a browser or another tool does with this package's output."""

import shutil
import subprocess
from pathlib import Path

import pytest


def fetched(cache: pytest.Cache, package: str, version: str) -> Path:
    """Return the folder ``node_modules`` that has a package, fetched once and kept in pytest's cache.

    Skips the test where it cannot be fetched.
    """
    folder = cache.mkdir(f"{package}@{version}".replace("/", "+"))
    modules = folder / "node_modules"
    # npm writes this file when the installation is complete.
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
