"""Plaid gives accounts and transactions new ids for each Item: a login that is linked again keeps ours."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from tests.factories import make_user
from tests.integration.sync.test_sandbox_sync import assert_equal_books, sync
from tests.support.sandbox import SandboxAdmin
from worker.models.vocabulary import RunStatus
from worker.runtime import Runtime
from worker.services.linking import end
from worker.services.linking.complete import link_with_form

ALIAS = "My bank"


def link(runtime: Runtime, sandbox: SandboxAdmin, user_id: UUID, login: str, alias: str = ALIAS) -> UUID:
    """What a person does who links the login with Link."""
    return runtime.run(link_with_form(runtime, "plaid", user_id, alias, sandbox.link(login)))


def new_user(runtime: Runtime) -> UUID:
    with runtime.transaction() as session:
        return make_user(session).id


def ids_of(engine: Engine) -> dict[str, dict[UUID, Any]]:
    """Our ids of everything that is stored and not withdrawn, with what people see of it."""
    queries = {
        "accounts": "SELECT id, name, mask, status FROM accounts",
        "transactions": "SELECT id, account_id, posted_date, amount, description, status FROM transactions"
        " WHERE status <> 'removed'",
        "liabilities": "SELECT id, account_id, kind, last_statement_balance FROM liabilities WHERE closed_at IS NULL",
        "holdings": "SELECT id, account_id, quantity FROM holdings WHERE closed_at IS NULL",
    }
    with engine.connect() as connection:
        return {name: {row[0]: row[1:] for row in connection.execute(text(query))} for name, query in queries.items()}


@pytest.mark.deep
@pytest.mark.parametrize("ends_first", [False, True], ids=["under_its_alias", "under_another_alias_after_unlinking"])
def test_login_that_is_linked_again_by_a_new_item_keeps_all_ids_of_ours(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, redis: Redis, ends_first: bool
) -> None:
    login, user_id = sandbox.logins("plaid")[0], new_user(runtime)
    provider_id = link(runtime, sandbox, user_id, login)
    assert sync(runtime, provider_id).status == RunStatus.COMPLETED
    before = ids_of(engine)
    assert len(before["liabilities"]) == 2
    if ends_first:
        runtime.run(end.unlink(runtime, provider_id))

    redis.flushdb()  # a minute passes, for the quotas of calls
    again_id = link(runtime, sandbox, user_id, login, f"{ALIAS} again" if ends_first else ALIAS)
    run = sync(runtime, again_id)

    assert (again_id == provider_id) is not ends_first
    assert (run.status, run.mode) == (RunStatus.COMPLETED, "full")
    assert "added" not in run.counts["transactions"]
    assert run.removed == 0
    assert ids_of(engine) == before
    assert_equal_books(engine, sandbox, login, again_id)
    sandbox.advance(3, [login])
    assert sync(runtime, again_id).status == RunStatus.COMPLETED
    assert_equal_books(engine, sandbox, login, again_id)


@pytest.mark.release
@pytest.mark.deep
def test_login_of_five_thousand_rows_that_is_linked_again_keeps_all_ids_of_ours(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, redis: Redis
) -> None:
    (login,) = sandbox.create_logins("plaid", transactions=5000)
    user_id = new_user(runtime)
    provider_id = link(runtime, sandbox, user_id, login)
    assert sync(runtime, provider_id).status == RunStatus.COMPLETED
    before = ids_of(engine)
    assert len(before["transactions"]) >= 5000
    redis.flushdb()

    assert link(runtime, sandbox, user_id, login) == provider_id
    run = sync(runtime, provider_id)

    assert run.status == RunStatus.COMPLETED
    assert ids_of(engine) == before
    assert_equal_books(engine, sandbox, login, provider_id)
