"""SnapTrade: connections that break or are replaced, ids that change, and refresh tokens that work once."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from tests.integration.sync.test_plaid_relink import ids_of
from tests.integration.sync.test_sandbox_sync import assert_equal_books, link, sync
from tests.integration.sync.test_sandbox_sync import runtime as runtime
from tests.support.sandbox import SandboxAdmin
from worker.crud.fleet import overview
from worker.models.vocabulary import RunStatus
from worker.runtime import Runtime
from worker.services.refresh import protocol

KEY = "snaptrade"


@pytest.fixture
def login(sandbox: SandboxAdmin) -> str:
    return sandbox.logins(KEY)[0]


@pytest.fixture
def provider_id(runtime: Runtime, sandbox: SandboxAdmin, login: str) -> UUID:
    """A login that was synced once."""
    provider_id = link(runtime, sandbox, KEY, login)
    assert sync(runtime, provider_id).status == RunStatus.COMPLETED
    return provider_id


def problems_of(run: Any) -> set[tuple[str, str]]:
    return {(one["kind"], one["reason"]) for one in run.problems["problems"]}


@pytest.mark.deep
@pytest.mark.parametrize(
    ("trouble", "problem"),
    [
        ("disabled/1", ("reauth_required", "connection_disabled")),
        ("refused/1", ("reauth_required", "connection_disabled")),
        ("unavailable/1", ("transient", "brokerage_unavailable")),
    ],
)
def test_trouble_with_one_connection_leaves_the_others_synced_and_loses_nothing(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, login: str, provider_id: UUID, trouble: str, problem: Any
) -> None:
    sandbox.break_login(login, trouble)
    sandbox.advance(3, [login])

    during = sync(runtime, provider_id)
    sandbox.mend_login(login)
    after = sync(runtime, provider_id)

    assert (during.status, problems_of(during)) == (RunStatus.PARTIAL, {problem})
    assert len({one["account"] for one in during.problems["problems"]}) == 1
    assert after.status == RunStatus.COMPLETED
    assert_equal_books(engine, sandbox, login, provider_id)


def test_user_is_told_once_which_accounts_need_a_repair(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, login: str, provider_id: UUID
) -> None:
    sandbox.break_login(login, "disabled/1")
    for _ in range(2):
        sync(runtime, provider_id)

    with runtime.transaction() as session:
        (name,) = overview.need_user(session, provider_id=provider_id)
        queued = session.execute(text("SELECT stage, count(DISTINCT subject_key) FROM notices GROUP BY stage")).all()
    assert name.startswith("Questrade Roth IRA …")
    assert queued == [("accounts_need_user", 1)]

    sandbox.mend_login(login)
    sync(runtime, provider_id)
    with runtime.transaction() as session:
        assert overview.need_user(session, provider_id=provider_id) == []


@pytest.mark.deep
def test_connection_that_is_made_anew_keeps_all_ids_of_ours(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, login: str, provider_id: UUID
) -> None:
    before = ids_of(engine)
    sandbox.break_login(login, "replaced/0")

    runs = [sync(runtime, provider_id) for _ in range(3)]

    assert runs[-1].status == RunStatus.COMPLETED, (runs[-1].error, runs[-1].problems)
    after = ids_of(engine)
    assert after["accounts"] == before["accounts"]
    assert after["transactions"] == before["transactions"]
    assert after["holdings"].keys() == before["holdings"].keys()
    with engine.connect() as connection:
        renamed = text("SELECT count(*) FROM transactions WHERE provider_transaction_id LIKE 'again-%'")
        assert connection.execute(renamed).scalar_one() > 0


@pytest.mark.deep
def test_holdings_that_the_brokerage_hides_are_kept(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, login: str, provider_id: UUID
) -> None:
    before = ids_of(engine)["holdings"]
    sandbox.break_login(login, "hidden/0")

    assert sync(runtime, provider_id).status == RunStatus.COMPLETED
    assert ids_of(engine)["holdings"] == before


@pytest.mark.deep
def test_activity_that_comes_back_under_a_new_id_is_not_doubled(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, login: str, provider_id: UUID
) -> None:
    account = sandbox.books(login)["accounts"][2]["provider_account_id"]
    entry = {"account": account, "description": "ACH CREDIT", "status": "posted"}
    old = sandbox.add_transaction(login, "12.34", **entry)
    sync(runtime, provider_id)
    before = ids_of(engine)["transactions"]

    sandbox.remove_transaction(login, old)
    sandbox.add_transaction(login, "12.34", **entry)
    sync(runtime, provider_id)

    assert ids_of(engine)["transactions"] == before
    assert_equal_books(engine, sandbox, login, provider_id)


@pytest.mark.deep
def test_refresh_token_works_once_and_a_used_one_ends_the_grant(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, login: str, provider_id: UUID
) -> None:
    for _ in range(3):
        refreshed = runtime.run(protocol.refresh_providers(runtime, [provider_id], force=True))
        assert str(refreshed.results[provider_id].outcome) == "refreshed"
    presented = [entry["token"] for entry in sandbox.refreshes(login)]

    assert len(presented) == len(set(presented)) == 3
    assert sync(runtime, provider_id).status == RunStatus.COMPLETED
