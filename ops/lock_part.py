"""Prints a part of a lock, with its hashes and markers.

lock_part.py requirements.lock --worker pyproject.toml [extra ...]    what a worker needs
lock_part.py requirements.lock --only name ...                        these packages alone
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path


def blocks(lock: str) -> list[str]:
    """The lock's entries: a requirement with its hashes and notes each."""
    return [block for block in re.split(r"\n(?=[a-z0-9])", lock.strip()) if "==" in block]


def name(line: str) -> str:
    """The normalised name of the package that an entry or a requirement starts with."""
    return re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")


def only(lock: str, names: set[str]) -> str:
    """The entries of these packages alone.

    Raises:
        KeyError: The lock lacks one of them.
    """
    if missing := names - {name(block) for block in blocks(lock)}:
        raise KeyError(f"the lock does not list {', '.join(sorted(missing))}")
    return "\n".join(block for block in blocks(lock) if name(block) in names) + "\n"


def worker(lock: str, pyproject: str, extras: list[str]) -> str:
    """The lock without what only other extras need.

    Follows the lock's own `# via` notes from the project's dependencies, and those of the named extras, downwards.
    """
    project = tomllib.loads(pyproject)["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    kept = {name(line) for line in wanted}
    while more := {name(block) for block in blocks(lock) if _users(block) & kept} - kept:
        kept |= more
    return only(lock, kept)


def _users(block: str) -> set[str]:
    """Who needs this package, by its `# via` note."""
    notes = [line.strip(" #") for line in block.splitlines() if line.strip().startswith("#")]
    return {name(note.removeprefix("via ").strip()) for note in notes if note != "via"}


def main() -> None:
    """Reads the files that the command line names and prints the part."""
    parser = argparse.ArgumentParser(description="Prints a part of a lock, with its hashes and markers.")
    parser.add_argument("lock", type=Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--worker", nargs="+", metavar=("PYPROJECT", "EXTRA"), help="what a worker needs")
    what.add_argument("--only", nargs="+", metavar="NAME", help="these packages alone")
    args = parser.parse_args()
    lock = args.lock.read_text()
    if args.only:
        sys.stdout.write(only(lock, set(args.only)))
    else:
        sys.stdout.write(worker(lock, Path(args.worker[0]).read_text(), args.worker[1:]))


if __name__ == "__main__":
    main()
