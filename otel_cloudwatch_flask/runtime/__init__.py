"""Process-level utilities that do not depend on metrics: fork and exit hooks, rate-limited logs, and safe text."""
