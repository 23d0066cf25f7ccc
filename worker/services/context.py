"""The context that services are given: settings, keys, Postgres, Redis, and the integrations with their call budgets.

`worker.runtime` makes one for each process. Services import only this type, so that the runtime can import services.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from worker.crud.database import Database, OpenTransaction, transaction
from worker.settings import Settings

# These imports are slow. A command that only reads Postgres must not wait for HTTP, Redis and cryptography.
if TYPE_CHECKING:
    import redis

    from worker.crud.refresh.records import AttemptBegun
    from worker.integrations.kit.integration import Integration
    from worker.models.outbox import Attempted
    from worker.services.availability.budget import Budget
    from worker.services.encryption import EncryptionService


class Context(ABC):
    """The settings, connections and clients that services use.

    Args:
        settings: the process's settings.
        database: the process's access to Postgres.

    Attributes:
        owner: names this process in leases and runs.
        now: the database's time: `Database.now`.
        db: runs one `crud` function in a transaction of its own: `Database.step`.
        db_within: the same, with a time limit in seconds: `Database.step_within`.
        unsent: attempts that may be in the table although they were never sent (`worker.services.refresh.unsent`).
        spool_id: id of this host's spool, once it is known.
        spool_told_at: when this process last reported what waits in the spool, by `elapsed`.
        unrecorded_hooks: ends of deliveries that Postgres has not yet recorded, by event and subscription.
        unrecorded_notices: time of sending of each notice whose sending Postgres has not yet recorded, by id.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.owner: UUID = uuid4()
        self.database = database
        self.now = database.now
        self.db = database.step
        self.db_within = database.step_within
        self.unsent: dict[str, AttemptBegun] = {}
        self.spool_id: UUID | None = None
        self.spool_told_at = float("-inf")
        self.unrecorded_hooks: dict[tuple[UUID, UUID], Attempted] = {}
        self.unrecorded_notices: dict[UUID, datetime] = {}

    @cached_property
    def encryption(self) -> EncryptionService:
        """The encryption keys. Keys that cannot be used were already refused when the settings were read."""
        from worker.services.encryption import EncryptionService

        return EncryptionService(self.settings.encryption_keys.get_secret_value())

    @cached_property
    @abstractmethod
    def integrations(self) -> dict[str, Integration]:
        """Enabled integrations by `provider_key`, each with one client for the life of the process."""

    @abstractmethod
    def gate(self, provider_key: str) -> Budget:
        """The call budget of one integration."""

    @cached_property
    def redis(self) -> redis.Redis:
        """A Redis client for the journal. Celery and the quota gates have their own connections."""
        from worker.process.redis_client import connect

        return connect(self.settings.redis_url.get_secret_value(), seconds=5)

    def transaction(self) -> AbstractContextManager[OpenTransaction]:
        """One database transaction. Raises `Unavailable` when Postgres is out of reach."""
        return transaction(self.database.engine)
