"""Bounded records of what was published, for the live page, ``preview`` and the stand-ins for CloudWatch.

Takes accepted batches or datums. Returns statistics and percentiles as CloudWatch would compute them.
"""
