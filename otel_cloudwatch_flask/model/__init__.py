"""The data model: datums and series, rules, and how names, units and attributes map to CloudWatch's.

All of it is pure: values in, values out, without I/O, threads or clocks. ``mapping`` produces
:class:`~otel_cloudwatch_flask.model.datum.Datum` values, and ``delivery`` sends them.
"""
