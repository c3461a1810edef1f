"""Record metrics in bounded memory, for the live page, ``preview`` and the demo.

``record`` receives every batch that CloudWatch accepts and, if requested, every batch that becomes pending. It returns
the statistics and recent datums of each series. ``tally`` computes the statistics.
"""
