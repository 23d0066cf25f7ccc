"""How long a process waits for Postgres, and how long Postgres works for it: docs/operations.md has the whole table."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, model_validator

from worker.settings.parts import Seconds


class DatabaseLimits(BaseModel):
    """Settings that bound every wait for Postgres. The defaults fit each other and a lease of 45 s."""

    database_connect_seconds: Seconds = 5
    """To connect, and for the first sign of life of a connection that was opened before."""
    database_lock_seconds: Seconds = 10
    """How long a statement may wait for a lock before Postgres ends it (`lock_timeout`)."""
    database_statement_seconds: Seconds = 30
    """How long a statement may take before Postgres ends it (`statement_timeout`)."""
    database_step_seconds: Seconds = 40
    """How long a process waits for one transaction, or for a Postgres that says nothing: then it hangs up."""
    database_pooler: bool = False
    """A pooler in transaction mode stands in between: limits are set in each transaction, nothing is prepared."""

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
