from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from tests.factories import make_linked_provider
from tests.support.scripted import ScriptedIntegration, answer
from worker.integrations.kit.base import TokenAnswer
from worker.runtime import Runtime
from worker.services.refresh import protocol
from worker.services.refresh.results import Outcome

HOUR_AGO = timedelta(hours=1)


@dataclass
class Desk:
    """A runtime whose one integration is scripted, and looks into its tables."""

    runtime: Runtime
    schwab: ScriptedIntegration
    engine: Engine

    def link(self, **values: Any) -> UUID:
        """A provider whose token ran out half an hour ago."""
        with self.runtime.transaction() as session:
            values.setdefault("issued_at", datetime.now(UTC) - HOUR_AGO)
            return make_linked_provider(session, self.runtime.encryption, **values).id

    def refresh(self, *ids: UUID, waits: bool = False, **options: Any) -> dict[UUID, Outcome]:
        """One batch; unless it `waits`, the waits after failures before it have passed."""
        if not waits:
            self.rows("UPDATE providers SET refresh_not_before = NULL")
        summary = self.runtime.run(protocol.refresh_providers(self.runtime, ids, **options))
        return {id_: result.outcome for id_, result in summary.results.items()}

    def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        with self.engine.begin() as connection:
            done = connection.execute(text(sql), values)
            return [dict(row) for row in done.mappings()] if done.returns_rows else []

    def now(self) -> datetime:
        """By the database's clock."""
        found: datetime = self.rows("SELECT clock_timestamp() AS now")[0]["now"]
        return found

    def provider(self, id_: UUID) -> dict[str, Any]:
        return self.rows("SELECT * FROM providers WHERE id = :id", id=id_)[0]

    def token(self, id_: UUID) -> dict[str, Any]:
        return self.rows("SELECT * FROM provider_tokens WHERE provider_id = :id", id=id_)[0]

    def attempts(self, id_: UUID) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM token_refreshes WHERE provider_id = :id ORDER BY started_at", id=id_)

    def audit(self, id_: UUID) -> list[str]:
        rows = self.rows("SELECT action FROM provider_audit_logs WHERE provider_id = :id ORDER BY seq", id=id_)
        return [row["action"] for row in rows]

    def plain(self, id_: UUID, kind: str) -> str:
        """A stored token, decrypted."""
        row = self.token(id_)
        return self.runtime.encryption.unseal(
            row[f"{kind}_token"], provider_id=id_, kind=kind, generation=row["generation"], key_id=row["key_id"]
        )

    def let_lease_end(self, id_: UUID) -> None:
        self.rows("UPDATE provider_tokens SET lease_until = now() - interval '1 s' WHERE provider_id = :id", id=id_)

    def lose_lease_during_the_call(self, id_: UUID) -> None:
        """The provider's next answer comes when somebody else has the lease."""

        def lose_lease(token: str) -> TokenAnswer:
            self.rows("UPDATE provider_tokens SET lease_owner = gen_random_uuid() WHERE provider_id = :id", id=id_)
            return answer()

        self.schwab.script = [lose_lease]

    def leave_behind(self, id_: UUID) -> None:
        """What a worker leaves that died after it had written its attempt."""
        self.rows(
            "INSERT INTO token_refreshes (id, provider_id, generation, status, trigger, lease_owner, started_at)"
            " SELECT gen_random_uuid(), provider_id, generation, 'sent', 'schedule', gen_random_uuid(), now()"
            " FROM provider_tokens WHERE provider_id = :id",
            id=id_,
        )


MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk(make_runtime: Callable[..., Runtime], engine: Engine) -> MakeDesk:
    def make(**settings: Any) -> Desk:
        schwab = ScriptedIntegration()
        return Desk(make_runtime(integrations={"schwab": schwab}, **settings), schwab, engine)

    return make


@pytest.fixture
def desk(make_desk: MakeDesk) -> Desk:
    return make_desk()
