"""What a mutation run says: a table, the survivors, and why it fails if it does."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.mutants import Mutant

FLOOR = 90.0
"""Per cent of a file's mutants that its unit tests must kill."""

ACCEPTED = Path("tests/mutation/survivors.toml")


@dataclass(frozen=True, slots=True)
class Change:
    """A mutation named so that edits elsewhere in the file do not touch the name.

    Attributes:
        file: path from the project's directory.
        place: the function or class that it is in, dotted; empty at the top level.
        before: the changed lines as they are, on one line.
        after: what they become.
    """

    file: str
    place: str
    before: str
    after: str

    @classmethod
    def of(cls, file: str, mutant: Mutant) -> Change:
        """The change that a mutant makes."""
        return cls(file, mutant.place, mutant.before, mutant.after)

    def __str__(self) -> str:
        return f"{self.file}, {self.place or 'top level'}: {self.before}  →  {self.after}"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one file's mutants.

    Attributes:
        mutants: how many there were.
        survivors: those that the tests did not notice.
    """

    mutants: int
    survivors: Sequence[Mutant]

    @property
    def killed(self) -> int:
        """How many the tests noticed."""
        return self.mutants - len(self.survivors)

    @property
    def per_cent(self) -> float:
        """Killed of all."""
        return 100 * self.killed / self.mutants


def read_accepted(path: Path = ACCEPTED) -> dict[Change, str]:
    """The survivors that are accepted, each with its reason.

    Raises:
        KeyError: an entry lacks one of its five keys.
    """
    found = tomllib.loads(path.read_text(encoding="utf-8")).get("survivor", [])
    return {Change(entry["file"], entry["place"], entry["before"], entry["after"]): entry["reason"] for entry in found}


def table(results: Mapping[str, Result]) -> str:
    """Killed, all and per cent, a line for each file and one for all of them."""
    rows = [("file", "killed", "all", "per cent")]
    rows += [(file, str(one.killed), str(one.mutants), f"{one.per_cent:.1f}") for file, one in results.items()]
    everything = Result(
        sum(one.mutants for one in results.values()), [m for one in results.values() for m in one.survivors]
    )
    rows.append(("together", str(everything.killed), str(everything.mutants), f"{everything.per_cent:.1f}"))
    return "\n".join(f"{file:40} {killed:>7} {every:>5} {share:>9}" for file, killed, every, share in rows)


def survivors(results: Mapping[str, Result], accepted: Mapping[Change, str]) -> str:
    """Every survivor with its place, the change and the reason why it is accepted, if it is."""
    lines = []
    for file, result in results.items():
        for mutant in sorted(result.survivors, key=lambda one: one.line):
            reason = accepted.get(Change.of(file, mutant), "NOT LISTED")
            lines += [
                f"{file}:{mutant.line} {mutant.place}",
                f"  - {mutant.before}",
                f"  + {mutant.after}",
                f"  {reason}",
            ]
    return "\n".join(lines)


def failures(results: Mapping[str, Result], accepted: Mapping[Change, str]) -> list[str]:
    """Why the run fails, a sentence each; empty when it passes. Files that were not judged are not asked about."""
    said = [
        f"{file}: the unit tests kill {result.per_cent:.1f} % of its mutants, below the floor of {FLOOR:.0f} %"
        for file, result in results.items()
        if result.per_cent < FLOOR
    ]
    alive = {Change.of(file, mutant) for file, result in results.items() for mutant in result.survivors}
    if unlisted := len(alive - accepted.keys()):
        said.append(
            f"{unlisted} survivors are not listed (NOT LISTED above): write the test that notices them, or list them "
            f"with a reason in {ACCEPTED}"
        )
    stale = [change for change in accepted if change.file in results and change not in alive]
    said += [f"is listed in {ACCEPTED} but does not survive any more; take it out: {change}" for change in stale]
    said += [
        f"is listed in {ACCEPTED} without a reason: {change}" for change, why in accepted.items() if not why.strip()
    ]
    return said
