"""Print how many vectors of each file pass, and the errors of the others: ``python -m tests.vectors.report``."""

import sys
from collections import defaultdict

from tests.vectors.harness import Case, faults_of, load_cases


def main() -> int:
    """Run every vector and return the exit status, which is 0 if all pass."""
    wrong = {case.id: faults for case in load_cases() if (faults := _faults(case))}
    cases_of: dict[str, list[str]] = defaultdict(list)
    for case in load_cases():
        cases_of[case.id.partition(".")[0]].append(case.id)
    for file, ids in cases_of.items():
        sys.stdout.write(f"{file}: {sum(case_id not in wrong for case_id in ids)} of {len(ids)}\n")
    for case_id, faults in wrong.items():
        sys.stdout.write(f"{case_id}: {faults[0]}\n")
    return bool(wrong)


def _faults(case: Case) -> list[str]:
    try:
        return faults_of(case)
    except Exception as error:  # noqa: BLE001 -- any exception of a case is its result, and the others still run
        return [f"raised {error!r}"]


if __name__ == "__main__":
    sys.exit(main())
