"""``add_metric`` without Flask: check arguments and record them to OpenTelemetry histograms.

In: the arguments of a call. Out: measurements of the app's meter provider. Measurements of a request wait in a buffer
and are recorded when the request ends, in the thread of the request.
"""
