"""Process-level utilities that do not depend on metrics.

They provide fork and exit hooks, a registry of live objects, rate-limited logging, and functions that make text safe to
log.
"""
