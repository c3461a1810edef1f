"""The commands of ``python -m otel_cloudwatch_flask`` and ``flask cloudwatch``, one module per command.

Each module defines a click command named ``command``, which reads the options and prints the result. ``shared`` has
the code that several commands use, ``doctor_checks`` has the checks that ``doctor`` runs, and ``reports`` has the
functions that compute estimates, templates and dashboards. The ``demo`` command runs ``otel_cloudwatch_flask.demo``.
"""
