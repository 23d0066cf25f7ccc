"""The record for one line of a health report: what was found and how to repair it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report.

    Attributes:
        check: name of what was checked.
        ok: False when the worker cannot do its work, so that an operator must act.
        found: what was found, in words.
        mend: how to repair it, ending with the command; empty when there is nothing to do. When `ok` is True, it is
            about a recommended setting or about single logins.
        skipped: nothing was checked, because an earlier check has failed.
    """

    check: str
    ok: bool
    found: str
    mend: str = ""
    skipped: bool = False

    @property
    def is_trouble(self) -> bool:
        """Whether a person should know about it, because it keeps work from being done."""
        return not self.skipped and (not self.ok or bool(self.mend))

    @property
    def sentence(self) -> str:
        """The check's name and what was found."""
        return f"{self.check}: {self.found}"


def require(check: str, troubles: Sequence[Finding]) -> None:
    """Raises `Unavailable`, with the command that repairs it, when this check is among the troubles."""
    for trouble in troubles:
        if trouble.check == check:
            raise Unavailable(f"{trouble.found}; {trouble.mend}")
