"""Values and tables: what a datum is, and how names, units and attributes become CloudWatch's.

Everything here takes values and returns values. :class:`~otel_cloudwatch_flask.model.datum.Datum` is what ``mapping``
produces and ``delivery`` sends.
"""
