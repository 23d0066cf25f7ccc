"""Mutation testing of encryption, keys and the decisions of a refresh: `make mutation`, or with some files only.

    python -m tests.mutation [FILE…]

Exits 1 when a file is below the floor, when a survivor is not in `survivors.toml`, or when one listed there no longer
survives; 2 when there is no verdict.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import tests.support.preloaded  # noqa: F401  imported once, for all the processes to come
from tests.mutation.judging import NoVerdictError, judged
from tests.mutation.report import Result, failures, read_accepted, survivors, table

_REFRESH = "tests/unit/services/refresh"
JUDGES = {
    "worker/settings/keys.py": ["tests/unit/settings/test_keys.py"],
    "worker/services/encryption.py": ["tests/unit/services/test_encryption.py"],
    "worker/services/keys.py": ["tests/unit/services/test_keys.py"],
    "worker/services/refresh/due.py": [f"{_REFRESH}/test_due.py"],
    "worker/services/refresh/outcomes.py": [f"{_REFRESH}/test_outcomes.py"],
    "worker/services/refresh/plan.py": [f"{_REFRESH}/test_plan.py"],
}
"""What is mutated, and the unit tests that must notice."""


def main(files: list[str]) -> int:
    """Judges the files, all of them when none is named, and prints what became of their mutants."""
    unknown = [file for file in files if file not in JUDGES]
    if unknown:
        sys.stderr.write(f"error: {', '.join(unknown)} cannot be judged; these can: {', '.join(JUDGES)}\n")
        return 2
    began = time.monotonic()
    results = {}
    with tempfile.TemporaryDirectory(prefix="dashtam-mutation-") as home:
        for file in files or JUDGES:
            try:
                results[file] = _judged(file, Path(home))
            except NoVerdictError as error:
                sys.stderr.write(f"\nerror: {error}\n")
                return 2
    accepted = read_accepted()
    said = failures(results, accepted)
    parts = [survivors(results, accepted), table(results), *said]
    sys.stdout.write("\n" + "\n\n".join(part for part in parts if part) + "\n\n")
    verdict = "failed" if said else "passed"
    left = sum(len(result.survivors) for result in results.values())
    sys.stdout.write(f"{verdict}: {left} survivors, {len(said)} complaints, {time.monotonic() - began:.0f} s\n")
    return 1 if said else 0


def _judged(file: str, home: Path) -> Result:
    count, left = 0, []
    for mutant, survives in judged(Path(file), JUDGES[file], home):
        count += 1
        if survives:
            left.append(mutant)
        if count % 10 == 0:
            sys.stderr.write(f"\r{file}: {count} mutants, {len(left)} survive ")
            sys.stderr.flush()
    sys.stderr.write(f"\r{file}: {count} mutants, {len(left)} survive \n")
    return Result(count, left)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
