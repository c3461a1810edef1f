"""Helpers that several commands use to define options, load the app, read series, call AWS and print JSON."""
