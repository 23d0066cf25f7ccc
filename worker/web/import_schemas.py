"""Models of the answers about files of banks."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from worker.services.sync.importing import Imported

_EXAMPLE: dict[str, Any] = {
    "format": "OFX",
    "statements": [
        {
            "account": "…1234",
            "currency": "EUR",
            "first": "2026-01-01",
            "last": "2026-01-31",
            "rows": 42,
            "refused": 0,
            "balance": "1250.40",
        }
    ],
    "provider_id": "01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e11",
    "run_id": "01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e12",
    "added": 42,
    "changed": 0,
    "unchanged": 0,
    "quarantined": 0,
    "proposal": {},
}


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

    `run_id` is None if the file was only looked at. `proposal` has what should be confirmed with `set`; what is empty
    in it must be filled in.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    format: str
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
