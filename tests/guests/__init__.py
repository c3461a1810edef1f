"""Run the test suites of Flask and of OpenTelemetry's Flask instrumentation with this package in use."""
