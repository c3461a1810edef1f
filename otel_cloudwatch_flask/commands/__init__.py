"""The commands of ``python -m otel_cloudwatch_flask`` and ``flask cloudwatch``, one module per command.

Each module defines its click command as ``command``, reads the options and prints the result. Building blocks used by
several commands are in ``shared``, the checks of ``doctor`` in ``doctor_checks``, and the pure functions that compute
estimates, templates and dashboards in ``reports``. ``demo`` runs the package ``otel_cloudwatch_flask.demo``.
"""
