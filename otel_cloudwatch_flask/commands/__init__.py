"""The commands of ``python -m otel_cloudwatch_flask`` and ``flask cloudwatch``, one module for each.

Each module named like a command has it as ``command``, and prints; what it prints is made by the modules beside it.
Of these ``cost_estimate``, ``dashboard_body`` and ``alarm_template`` are pure.
"""
