"""Helpers that several commands use to load the app, read series, call AWS and format output for a terminal."""
