"""Time limits for Postgres: how long a process waits, and how long a statement may take; see docs/operations.md."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, model_validator

from worker.settings.parts import Seconds


class DatabaseLimits(BaseModel):
    """The settings that limit every wait for Postgres. The defaults fit together, and fit a lease of 45 s."""

    database_connect_seconds: Seconds = 5
    """Time limit for opening a connection, and for the first answer on one that was not used for a second."""
    database_lock_seconds: Seconds = 10
    """How long a statement may wait for a lock before Postgres ends it (`lock_timeout`)."""
    database_statement_seconds: Seconds = 30
    """How long a statement may take before Postgres ends it (`statement_timeout`)."""
    database_step_seconds: Seconds = 40
    """How long a process waits for one transaction, or for a Postgres that does not answer; then it disconnects."""
    database_pooler: bool = False
    """True if there is a pooler in transaction mode: limits are set in each transaction, and nothing is prepared."""

    @model_validator(mode="after")
    def _database_limits_fit(self) -> Self:
        if not self.database_lock_seconds < self.database_statement_seconds < self.database_step_seconds:
            raise ValueError(
                "DATABASE_LOCK_SECONDS < DATABASE_STATEMENT_SECONDS < DATABASE_STEP_SECONDS must hold,"
                " or nobody learns what took so long"
            )
        if not 2 * self.database_connect_seconds < self.database_step_seconds:
            raise ValueError(
                "DATABASE_CONNECT_SECONDS must be below half of DATABASE_STEP_SECONDS,"
                " or a dead connection cannot be replaced in time"
            )
        return self
