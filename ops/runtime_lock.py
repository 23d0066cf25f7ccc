"""Prints the part of the lock that a worker needs: `runtime_lock.py pyproject.toml requirements.lock [extra …]`.

Follows the lock's own `# via` notes from the project's dependencies, and those of the named extras, downwards.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def runtime_lock(pyproject: str, lock: str, extras: list[str]) -> str:
    """The lock without what only other extras need; hashes and markers stay."""
    project = tomllib.loads(pyproject)["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    blocks = {_name(block): block for block in re.split(r"\n(?=[a-z0-9])", lock.strip())}
    users = {name: _users(block) for name, block in blocks.items()}
    kept = {_name(line) for line in wanted}
    while True:
        more = {name for name, by in users.items() if by & kept} - kept
        if not more:
            return "\n".join(blocks[name] for name in sorted(kept)) + "\n"
        kept |= more


def _name(line: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")


def _users(block: str) -> set[str]:
    """Who needs this package, by its `# via` note."""
    notes = [line.strip(" #") for line in block.splitlines() if line.strip().startswith("#")]
    return {_name(note.removeprefix("via ").strip()) for note in notes if note != "via"}


if __name__ == "__main__":
    pyproject_path, lock_path, *extra_names = sys.argv[1:]
    sys.stdout.write(runtime_lock(Path(pyproject_path).read_text(), Path(lock_path).read_text(), extra_names))
