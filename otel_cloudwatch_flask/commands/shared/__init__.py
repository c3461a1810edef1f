"""Helpers used by several commands: loading the app, reading series, calling AWS, formatting for a terminal."""
