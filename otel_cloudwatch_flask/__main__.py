"""Run the command line with ``python -m otel_cloudwatch_flask``."""

from otel_cloudwatch_flask.cli import main

if __name__ == "__main__":
    main(prog_name="python -m otel_cloudwatch_flask")
