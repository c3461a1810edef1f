"""Delivery of datums to CloudWatch: batching, the backlog, the spool on disk, and the ``PutMetricData`` calls.

Its input is datums. Each one is pending until CloudWatch has stored it or it is counted as lost with a reason. This is
the only folder with network and file I/O, all of which runs in the calling thread.
"""
