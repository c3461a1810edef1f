"""From datums to CloudWatch: batches, the backlog, the spool, and the calls themselves.

Takes datums. Everything it accepts is pending until CloudWatch has stored it or it is counted as lost with a reason.
This is the only folder with network and file I/O; it runs in the thread of its caller.
"""
