"""Pure functions that build what commands print: the alarm template, the dashboard body and the cost estimate.

Input: the series in a document of ``preview``, ``demo`` or the live page, or those that CloudWatch lists. Output: JSON
documents and numbers.
"""
