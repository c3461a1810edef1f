"""Helpers that define options, load the app, read series and requests, call AWS and print JSON."""
