"""The data model: datums, series and rules, and the conversion of names, units and attributes for CloudWatch.

This package performs no I/O, starts no threads and reads no clock. ``mapping`` creates
:class:`~otel_cloudwatch_flask.model.datum.Datum` objects, and ``delivery`` sends them.
"""
