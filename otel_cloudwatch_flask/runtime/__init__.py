"""Process-level tools that know nothing about metrics.

Forks and process exits, log messages that repeat at most once an interval, and untrusted text made safe for logs.
"""
