"""The data model: datums, series and rules, and the conversion of names, units and attributes for CloudWatch.

Nothing in this folder performs I/O, starts threads or reads a clock. ``mapping`` creates
:class:`~otel_cloudwatch_flask.model.datum.Datum` objects, and ``delivery`` sends them.
"""
