"""The part of ``add_metric`` that does not depend on Flask.

Validates the arguments of a call, and records the value in an OpenTelemetry histogram. The measurements of a request
wait in a buffer, and are recorded in the thread of the request when its response starts.
"""
