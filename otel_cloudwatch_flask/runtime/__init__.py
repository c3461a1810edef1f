"""Process-level utilities, independent of metrics.

Hooks for forks and process exit, rate-limited logging, and untrusted text made safe for logs.
"""
