"""Run the benchmarks: ``python -m benchmarks`` (all), ``--short`` (what fits in a minute)."""

import argparse

from rich.console import Console

from benchmarks import cardinality, export_cpu, fidelity, outage, request_latency


def main() -> None:
    """Run every benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer rounds: figures to look at, not to quote")
    arguments = parser.parse_args()
    console = Console(width=140)
    for benchmark in (request_latency, export_cpu, fidelity, cardinality, outage):
        console.print(benchmark.run(short=arguments.short))


if __name__ == "__main__":
    main()
