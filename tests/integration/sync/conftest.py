"""A model provider, linked, and short words for what tests do with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.factories import make_linked_provider
from tests.integration.sync.feeds import ModelIntegration
from tests.support.fixtures import MakeRuntime
from worker.models import SyncRun
from worker.models.vocabulary import Trigger
from worker.runtime import Runtime
from worker.services.sync import batch


@dataclass(slots=True)
class Linked:
    """A model provider and the runtime that syncs it."""

    runtime: Runtime
    integration: ModelIntegration
    provider_id: UUID

    def sync(self, *, trigger: Trigger = Trigger.SCHEDULE, **options: Any) -> SyncRun:
        """One sync; its run."""
        run_id = self.runtime.run(batch.sync_provider(self.runtime, self.provider_id, trigger=trigger, **options))
        with self.runtime.transaction() as session:
            return session.get_one(SyncRun, run_id)

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        """Rows of a query in which `:id` is the provider."""
        with self.runtime.transaction() as session:
            return [tuple(row) for row in session.execute(text(query), {"id": self.provider_id} | values)]

    def execute(self, statement: str, **values: Any) -> None:
        """The same for a change. The next sync compares all rows, as the first one of each day does."""
        with self.runtime.transaction() as session:
            session.execute(text(statement), {"id": self.provider_id} | values)
            session.execute(text("UPDATE sync_runs SET answers = NULL"))

    def live(self) -> dict[str, tuple[Any, ...]]:
        """Status, amount and description of each row that is not withdrawn."""
        found = self.rows(
            "SELECT t.provider_transaction_id, t.status, t.amount, t.description FROM transactions t"
            " JOIN accounts a ON a.id = t.account_id WHERE a.provider_id = :id AND t.status <> 'removed'"
        )
        return {row[0]: row[1:] for row in found}

    def versions(self) -> list[Any]:
        """Where each row's present version is, and who wrote it."""
        tables = ("accounts", "balances", "securities", "holdings", "holding_days", "transactions")
        return [sorted(self.rows(f"SELECT ctid::text, xmin::text FROM {table}")) for table in tables]  # noqa: S608


@pytest.fixture
def link_model(make_runtime: MakeRuntime) -> Callable[..., Linked]:
    """Links a model provider: `link_model(run_dead_seconds=1)`."""

    def link(integration: ModelIntegration | None = None, **settings: Any) -> Linked:
        model = integration or ModelIntegration()
        runtime = make_runtime(integrations={"model": model}, **settings)
        with runtime.transaction() as session:
            provider = make_linked_provider(session, runtime.encryption, provider_key="model")
        return Linked(runtime, model, provider.id)

    return link


@pytest.fixture
def linked(link_model: Callable[..., Linked]) -> Linked:
    """A linked model provider under usual settings."""
    return link_model()
