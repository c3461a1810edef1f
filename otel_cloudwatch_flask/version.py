"""The version of the package, which pyproject.toml and the command line read from here."""

__version__ = "0.1.0"
