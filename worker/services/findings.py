"""What one sees when one looks whether all is well: a line for each thing, with what puts it right."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report.

    Attributes:
        check: what was looked at.
        ok: False when the worker itself cannot do its work, so that an operator must act.
        found: what is so, in words.
        mend: what puts it right, with the command at its end; empty when there is nothing to do. Of a finding that is
            ok it says what to do about something that was wished for, or that concerns single logins.
        skipped: nothing was looked at, since another check before it has failed.
    """

    check: str
    ok: bool
    found: str
    mend: str = ""
    skipped: bool = False

    @property
    def is_trouble(self) -> bool:
        """Whether somebody should know of it: it keeps work from being done."""
        return not self.skipped and (not self.ok or bool(self.mend))

    @property
    def sentence(self) -> str:
        """What is so, by itself."""
        return f"{self.check}: {self.found}"
