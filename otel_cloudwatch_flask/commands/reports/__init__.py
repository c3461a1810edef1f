"""The documents that commands print: the alarm template, the dashboard body, the cost estimate.

Takes the series that a document of ``preview`` or the live page lists. Returns JSON documents or figures.
"""
