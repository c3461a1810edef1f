"""The part of ``add_metric`` that does not depend on Flask.

The arguments of a call are validated, and the value is recorded in an OpenTelemetry histogram. The measurements of a
request are buffered. A WSGI middleware records them in the request's thread when the response starts, and flushes when
the response has ended.
"""
