"""The part of ``add_metric`` that does not depend on Flask.

The arguments of a call are validated, and the value is recorded in an OpenTelemetry histogram. The measurements of a
request are buffered, and recorded in the request's thread when its response starts. A WSGI middleware does this, and
flushes when the response has ended.
"""
