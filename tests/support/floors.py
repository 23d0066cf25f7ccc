"""The coverage report and its floors: of everything, and of what the grants depend on.

    python -m tests.support.floors CORE_FILE,CORE_FILE…

Combines what the sessions side by side have measured. One process, because `coverage`'s own commands would read all
that three times.
"""

from __future__ import annotations

import sys

from coverage import Coverage

CORE_FLOOR = 95


def main(core: str) -> int:
    """Prints both reports; 2 when a floor is missed."""
    coverage = Coverage()
    coverage.combine()
    floor = coverage.get_option("report:fail_under")
    missed = 0
    for name, least, include in (("everything", floor, None), ("the core", CORE_FLOOR, core.split(","))):
        covered = coverage.report(include=include)
        if covered < least:
            sys.stdout.write(f"Coverage of {name} is {covered:.1f} %, below its floor of {least} %.\n")
            missed = 2
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
