"""The part of ``add_metric`` that does not depend on Flask.

The arguments of a call are validated, and the value is recorded in an OpenTelemetry histogram. A WSGI middleware
flushes when a response has ended.
"""
