"""What was published: kept in bounded memory, for the live page, ``preview`` and the demo.

Input: each batch that CloudWatch has accepted. Output: statistics and recent datums of each series.
"""
