"""An outage from its first failure to the drained backlog, through the real refresh and claim code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider
from tests.integration.availability.conftest import MakeQuiet
from worker.crud.fleet import breakers
from worker.errors import AppMisconfigured, OutcomeUnknown, ProviderError, RateLimited, Transient
from worker.integrations.kit.base import Caller, Quota, RefreshPolicy, TokenAnswer
from worker.models import IntegrationState, Notice, Provider
from worker.runtime import Runtime
from worker.services.refresh import claims, protocol
from worker.services.sync import batch as accounts

pytestmark = pytest.mark.deep


class Bank:
    """Refreshes behind the real gate, and is out for as long as `trouble` is set."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self.trouble: ProviderError | None = None
        self.calls: list[UUID | None] = []

    async def refresh(self, caller: Caller, refresh_token: str) -> TokenAnswer:
        assert self.runtime is not None
        await self.runtime.gate("schwab").admit(caller, endpoint="token", account_key=None)
        self.calls.append(caller.provider_id)
        if self.trouble is not None:
            raise self.trouble
        return TokenAnswer(access_token="access-2", refresh_token="refresh-2", lifetime=timedelta(minutes=30))


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
def runtime(make_quiet: MakeQuiet, bank: Bank) -> Runtime:
    made = make_quiet(quotas=(Quota("app", 120, 60),), refresh_concurrency=5)
    integration: Any = made.integrations["schwab"]
    made.integrations["schwab"] = SimpleNamespace(  # type: ignore[assignment]
        **vars(integration)
        | {"refresh": bank.refresh, "refresh_policy": RefreshPolicy(default_lifetime=timedelta(minutes=30))}
    )
    bank.runtime = made
    return made


def link(runtime: Runtime, count: int) -> list[UUID]:
    """Logins whose tokens have run out, the last one first."""
    now = datetime.now(UTC)
    with runtime.transaction() as session:
        return [
            make_linked_provider(
                session,
                runtime.encryption,
                issued_at=now - timedelta(hours=1),
                refresh_due_at=now - timedelta(seconds=place + 1),
            ).id
            for place in range(count)
        ]


def refresh(runtime: Runtime, ids: list[UUID], **values: Any) -> dict[str, int]:
    """One batch, after the waits of failures before it."""
    with runtime.transaction() as session:
        session.execute(update(Provider).values(refresh_not_before=None))
    return runtime.run(protocol.refresh_providers(runtime, ids, **values)).counts


def claim(runtime: Runtime, now: datetime | None = None) -> list[UUID]:
    batches = runtime.run(claims.claim_refresh_due(runtime, now or datetime.now(UTC), tick_s=0))
    return [id_ for batch in batches for id_ in batch.ids]


def breaker(runtime: Runtime) -> str:
    with runtime.transaction() as session:
        return breakers.read_states(session)["schwab"].breaker


def pass_time_to_probe(runtime: Runtime) -> None:
    with runtime.transaction() as session:
        session.execute(update(IntegrationState).values(probe_at=func.now()))
        session.execute(
            update(Provider)
            .where(Provider.refresh_due_at > func.now())
            .values(refresh_due_at=func.now() - timedelta(seconds=1))
        )
    runtime.run(_forget(runtime))


async def _forget(runtime: Runtime) -> None:
    from worker.services.availability import breaker as availability

    availability._forget(runtime)


def test_outage_stops_calls_after_a_few_and_counts_against_no_login_that_was_not_asked(
    runtime: Runtime, bank: Bank
) -> None:
    ids = link(runtime, 60)
    bank.trouble = Transient("http_503")

    counts = refresh(runtime, ids)

    asked = len(bank.calls)
    assert breaker(runtime) == "open"
    assert 10 <= asked <= 20
    assert counts == {"failed": asked, "deferred": 60 - asked}
    with Session(runtime.engine) as session:
        assert set(session.scalars(select(Provider.status))) == {"active"}
        failures = session.scalars(select(Provider.refresh_failures).where(Provider.id.not_in(bank.calls))).all()
        assert set(failures) == {0}
        due = session.scalars(select(Provider.refresh_due_at).where(Provider.id.not_in(bank.calls))).all()
        state = session.scalars(select(IntegrationState)).one()
    assert all(at is not None and state.probe_at is not None and at >= state.probe_at for at in due)


def test_one_probe_at_a_time_until_the_answer_then_the_backlog_at_the_quotas_rate(runtime: Runtime, bank: Bank) -> None:
    ids = link(runtime, 60)
    bank.trouble = Transient("http_503")
    refresh(runtime, ids)
    assert claim(runtime) == []

    pass_time_to_probe(runtime)
    probe = claim(runtime)
    assert len(probe) == 1
    refresh(runtime, probe)
    assert breaker(runtime) == "open"
    assert claim(runtime) == []

    bank.trouble = None
    pass_time_to_probe(runtime)
    refresh(runtime, claim(runtime))
    assert breaker(runtime) == "closed"

    assert len(claim(runtime)) == 27


def test_backlog_is_claimed_earliest_deadline_first(runtime: Runtime) -> None:
    ids = link(runtime, 30)

    assert claim(runtime) == ids[:2:-1]


def test_probe_spares_a_login_whose_last_outcome_is_unknown(runtime: Runtime, bank: Bank) -> None:
    ids = link(runtime, 30)
    bank.trouble = OutcomeUnknown("timeout")
    refresh(runtime, ids)
    in_doubt = set(bank.calls)
    assert breaker(runtime) == "open"

    for _ in range(2):
        pass_time_to_probe(runtime)
        with runtime.transaction() as session:
            session.execute(
                update(Provider)
                .where(Provider.id.in_(in_doubt))
                .values(refresh_due_at=func.now() - timedelta(minutes=1))
            )
        refresh(runtime, claim(runtime))

    assert len(bank.calls) == len(in_doubt) + 2
    assert in_doubt.isdisjoint(bank.calls[-2:])
    with Session(runtime.engine) as session:
        assert set(session.scalars(select(Provider.status))) == {"active"}


def test_sync_that_probes_spares_a_login_whose_last_outcome_is_unknown(runtime: Runtime, bank: Bank) -> None:
    ids = link(runtime, 30)
    bank.trouble = OutcomeUnknown("timeout")
    refresh(runtime, ids)
    in_doubt = set(bank.calls)
    pass_time_to_probe(runtime)
    with runtime.transaction() as session:
        session.execute(update(Provider).values(sync_due_at=func.now() - timedelta(minutes=1)))
        session.execute(
            update(Provider).where(Provider.id.not_in(in_doubt)).values(sync_due_at=func.now() - timedelta(seconds=1))
        )

    ((probe,),) = runtime.run(accounts.claim_sync_due(runtime, datetime.now(UTC)))

    assert probe not in in_doubt


def test_login_in_doubt_is_the_probe_when_no_other_is_due(runtime: Runtime, bank: Bank) -> None:
    ids = link(runtime, 10)
    bank.trouble = OutcomeUnknown("timeout")
    refresh(runtime, ids)
    bank.trouble = None

    pass_time_to_probe(runtime)
    refresh(runtime, claim(runtime))

    assert breaker(runtime) == "closed"


def test_person_who_waits_is_the_probe_of_an_open_breaker(runtime: Runtime, bank: Bank) -> None:
    ids = link(runtime, 20)
    bank.trouble = Transient("http_503")
    refresh(runtime, ids)
    bank.trouble = None

    assert refresh(runtime, ids[-1:], manual=True, trigger="manual") == {"refreshed": 1}

    assert breaker(runtime) == "closed"


def test_over_budget_defers_and_counts_no_failure(runtime: Runtime, bank: Bank) -> None:
    ids = link(runtime, 120)

    counts = refresh(runtime, ids)

    # Nine tenths of 120; a little less where this process was too slow to use the permits that it had taken.
    assert 90 <= counts["refreshed"] <= 108
    assert counts["deferred"] == 120 - counts["refreshed"]
    with Session(runtime.engine) as session:
        assert set(session.scalars(select(Provider.refresh_failures))) == {0}
    left = [id_ for id_ in ids if id_ not in bank.calls][:10]
    assert refresh(runtime, left, manual=True) == {"refreshed": 10}


def test_429_of_one_call_stops_all_others_and_harms_nobody(runtime: Runtime, bank: Bank) -> None:
    ids = link(runtime, 40)
    begun = datetime.now(UTC)
    bank.trouble = RateLimited("http_429", retry_after=timedelta(minutes=10))

    assert refresh(runtime, ids) == {"deferred": 40}

    assert len(bank.calls) <= 10
    with Session(runtime.engine) as session:
        soonest = session.scalar(select(func.min(Provider.refresh_due_at)))
        assert set(session.scalars(select(Provider.refresh_failures))) == {0}
    assert soonest is not None
    assert soonest >= begun + timedelta(minutes=10)


def test_refused_client_credentials_pause_the_integration_and_harm_no_user(runtime: Runtime, bank: Bank) -> None:
    ids = link(runtime, 40)
    bank.trouble = AppMisconfigured("invalid_client")

    refresh(runtime, ids)

    assert len(bank.calls) <= 10
    assert claim(runtime) == []
    with Session(runtime.engine) as session:
        assert set(session.scalars(select(Provider.status))) == {"active"}
        assert set(session.scalars(select(Provider.refresh_failures))) == {0}
        assert session.scalars(select(Notice.stage)).all() == ["app_misconfigured"]
