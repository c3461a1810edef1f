"""``add_metric`` without Flask: arguments are checked and recorded into OpenTelemetry histograms.

Takes the arguments of a call. Keeps the metrics of a request in a buffer until the request ends, and records them then,
in the thread of the request.
"""
