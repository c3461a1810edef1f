"""Deliver datums to CloudWatch: batch them, queue them in memory and on disk, and send them.

A batch is sent with a ``PutMetricData`` call, or written to a stream as EMF documents.

Every datum stays pending until it has been sent, merged into another datum, or counted as lost with a reason. No other
part of the metrics pipeline does network or file I/O. All I/O runs in the calling thread.
"""
