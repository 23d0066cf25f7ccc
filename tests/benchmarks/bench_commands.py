"""What each command costs: `python -m tests.benchmarks.bench_commands`, while `dashtam run` is up in the same home.

Prints for each command the processor time and the time on the clock, the best and the worst of its runs, and the sum of
its imports as `-X importtime` counts them. That option itself makes imports a third slower. Use a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time

COMMANDS: dict[str, dict[str, str]] = {
    "--version": {},
    "--help": {},
    "TAB pro": {"_DASHTAM_COMPLETE": "complete_bash", "COMP_WORDS": "dashtam pro", "COMP_CWORD": "1"},
    "TAB sync --fo": {"_DASHTAM_COMPLETE": "complete_bash", "COMP_WORDS": "dashtam sync --fo", "COMP_CWORD": "2"},
    "sync --help": {},
    "providers": {},
    "accounts": {},
    "transactions": {},
    "runs": {},
    "quarantine": {},
    "failures": {},
    "audit list": {},
    "keys status": {},
    "integrations": {},
    "status": {},
    "explain ALIAS": {},
    "doctor": {},
}
_IMPORT = re.compile(r"^import time:\s+(\d+) \|", re.MULTILINE)


def run(words: list[str], variables: dict[str, str], *options: str) -> tuple[float, float, str]:
    """Runs one command; returns its processor seconds, its seconds on the clock, and its standard error."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *options, "-m", "worker.cli", *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    after, ended = os.times(), time.perf_counter()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, ended - began, done.stderr


def main() -> None:
    """Measures every command, in turns, so that a disturbance does not fall on one of them alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--alias", default="Schwab one", help="the login that `explain` is asked about")
    given = parser.parse_args()
    taken: dict[str, list[tuple[float, float]]] = {command: [] for command in COMMANDS}
    imports: dict[str, float] = {}
    for _ in range(given.runs):
        for command, variables in COMMANDS.items():
            words = [] if variables else [given.alias if word == "ALIAS" else word for word in command.split()]
            taken[command].append(run(words, variables)[:2])
            if command not in imports:
                told = run(words, variables, "-X", "importtime")[2]
                imports[command] = sum(map(int, _IMPORT.findall(told))) / 1e6
    write = sys.stdout.write
    write("| command | processor | on the clock | imports |\n|---|---|---|---|\n")
    for command, times in taken.items():
        used, waited = zip(*times, strict=True)
        write(
            f"| `dashtam {command}` | {min(used):.2f} to {max(used):.2f} s | {min(waited):.2f} to {max(waited):.2f} s"
            f" | {imports[command]:.2f} s |\n"
        )


if __name__ == "__main__":
    main()
