"""Models of the answers about files of banks."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from uuid import UUID

from pydantic import BaseModel, Field

from worker.services.sync.importing import Imported


class FileStatement(BaseModel):
    """What a file says of one account. `refused` counts records that cannot be read; they go to quarantine."""

    account: str
    currency: str
    first: date
    last: date
    rows: int
    refused: int
    balance: str | None


class ImportedFile(BaseModel):
    """What became of a file.

    `run_id` is None if the file was only looked at. `proposal` has what should be confirmed with `set`.
    """

    format: str = Field(examples=["OFX"])
    statements: list[FileStatement]
    provider_id: UUID | None
    run_id: UUID | None
    added: int
    changed: int
    unchanged: int
    quarantined: int
    proposal: dict[str, str]

    @classmethod
    def of(cls, done: Imported) -> ImportedFile:
        """The answer for a file."""
        counts = {name: getattr(done.run, name, 0) for name in ("added", "changed", "unchanged", "quarantined")}
        statements = [
            FileStatement(**{**asdict(one), "balance": None if one.balance is None else f"{one.balance:f}"})
            for one in done.statements
        ]
        return cls(
            format=done.format,
            statements=statements,
            provider_id=None if done.run is None else done.run.provider_id,
            run_id=None if done.run is None else done.run.id,
            proposal=dict(done.proposal),
            **counts,
        )
