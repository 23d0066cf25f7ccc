"""A session of Enable Banking: its clock, its renewal, and accounts whose calls of the day are used up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from tests.integration.sync.test_plaid_relink import ids_of, new_user
from tests.integration.sync.test_sandbox_sync import assert_equal_books, sync
from tests.integration.sync.test_sandbox_sync import runtime as runtime  # with larger quotas
from tests.support.sandbox import SandboxAdmin
from worker.models.vocabulary import RunStatus
from worker.runtime import Runtime
from worker.services.linking import begin, complete, end

KEY = "enable_banking"


def link(runtime: Runtime, sandbox: SandboxAdmin, user_id: UUID, login: str) -> UUID:
    """What a person does who chooses a bank and consents there."""
    begun = runtime.run(begin.begin_link(runtime, KEY, user_id, "My bank", form={"bank": "mock personal"}))
    asked = dict(parse_qsl(urlsplit(begun.url).query))
    callback = sandbox.link(login, **asked)["callback_url"]
    return runtime.run(complete.complete_link(runtime, callback, holder=begun.holder))


def stored(engine: Engine, column: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(f"SELECT {column} FROM providers")).scalar_one()  # noqa: S608 - a constant


@pytest.mark.deep
@pytest.mark.parametrize(
    ("rows", "number"),
    [(600, "same"), (600, "new"), pytest.param(5000, "same", marks=pytest.mark.release)],
)
def test_renewed_session_doubles_nothing_loses_nothing_and_keeps_our_ids(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, rows: int, number: str
) -> None:
    user_id, (login,) = new_user(runtime), sandbox.create_logins(KEY, transactions=rows)
    provider_id = link(runtime, sandbox, user_id, login)
    assert sync(runtime, provider_id).status == RunStatus.COMPLETED
    before = ids_of(engine)
    if number == "new":  # one of the account's other numbers is now the bank's main one
        sandbox.break_login(login, "renumbered")

    assert link(runtime, sandbox, user_id, login) == provider_id
    run = sync(runtime, provider_id)

    assert run.status == RunStatus.COMPLETED
    assert "added" not in run.counts["transactions"]
    assert run.removed == 0
    assert ids_of(engine) == before
    assert len(before["transactions"]) >= rows
    sandbox.mend_login(login)
    sandbox.advance(3, [login])
    assert sync(runtime, provider_id).status == RunStatus.COMPLETED
    assert_equal_books(engine, sandbox, login, provider_id)


@pytest.mark.deep
def test_end_of_the_consent_is_that_of_the_session_and_is_read_again_by_each_sync(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin
) -> None:
    (login,) = sandbox.create_logins(KEY, transactions=30)
    provider_id = link(runtime, sandbox, new_user(runtime), login)
    first = stored(engine, "grant_expires_at")
    with engine.begin() as connection:
        connection.execute(text("UPDATE providers SET grant_expires_at = now() + interval '1 hour'"))

    sync(runtime, provider_id)

    assert first - datetime.now(UTC) > timedelta(days=89)
    assert stored(engine, "grant_expires_at") == first


def test_session_that_has_expired_needs_the_user_and_a_new_consent_goes_on(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin
) -> None:
    user_id, (login,) = new_user(runtime), sandbox.create_logins(KEY, transactions=60)
    provider_id = link(runtime, sandbox, user_id, login)
    sync(runtime, provider_id)
    sandbox.revoke(login)

    assert sync(runtime, provider_id).error_reason == "session_revoked"
    assert stored(engine, "status") == "needs_reauth"
    sandbox.advance(2, [login])
    assert link(runtime, sandbox, user_id, login) == provider_id
    assert sync(runtime, provider_id).status == RunStatus.COMPLETED
    assert_equal_books(engine, sandbox, login, provider_id)


@pytest.mark.deep
def test_account_whose_day_is_used_up_makes_the_login_wait_for_the_next_one_and_the_others_are_stored(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin
) -> None:
    (login,) = sandbox.create_logins(KEY, transactions=60)
    provider_id = link(runtime, sandbox, new_user(runtime), login)
    sandbox.break_login(login, "ASPSP_RATE_LIMIT_EXCEEDED/0")

    run = sync(runtime, provider_id)

    assert (run.status, run.error_reason) == (RunStatus.PARTIAL, "ASPSP_RATE_LIMIT_EXCEEDED")
    assert stored(engine, "status") == "active"
    assert timedelta(0) < stored(engine, "sync_due_at") - datetime.now(UTC) <= timedelta(hours=24, minutes=6)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT count(DISTINCT account_id) FROM transactions")).scalar_one()
    assert found == 2
    sandbox.mend_login(login)
    assert sync(runtime, provider_id).status == RunStatus.COMPLETED
    assert_equal_books(engine, sandbox, login, provider_id)


@pytest.mark.deep
@pytest.mark.parametrize("broken", ["no_uid/1", "ACCOUNT_DOES_NOT_EXIST/1", "EXPIRED_SESSION/1", "ASPSP_ERROR/1"])
def test_trouble_of_one_account_leaves_the_login_active_and_the_others_synced(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, broken: str
) -> None:
    (login,) = sandbox.create_logins(KEY, transactions=60)
    provider_id = link(runtime, sandbox, new_user(runtime), login)
    sync(runtime, provider_id)
    sandbox.break_login(login, broken)
    sandbox.advance(2, [login])

    during = sync(runtime, provider_id)
    sandbox.mend_login(login)
    after = sync(runtime, provider_id)

    troubled = {problem["account"] for problem in (during.problems or {"problems": []})["problems"]}
    assert len(troubled) == (broken != "no_uid/1"), "an account that the session no longer has is no problem"
    assert stored(engine, "status") == "active"
    assert after.status == RunStatus.COMPLETED
    assert_equal_books(engine, sandbox, login, provider_id)


@pytest.mark.deep
def test_login_is_left_alone_for_hours_after_a_sync_that_has_read_it(
    make_runtime: Any, engine: Engine, sandbox: SandboxAdmin
) -> None:
    runtime = make_runtime()
    (login,) = sandbox.create_logins(KEY, transactions=30)
    provider_id = link(runtime, sandbox, new_user(runtime), login)
    sandbox.break_login(login, "ASPSP_ERROR/0")  # trouble that may pass: another provider would be asked in a minute

    sync(runtime, provider_id)

    assert timedelta(hours=7, minutes=59) < stored(engine, "sync_due_at") - datetime.now(UTC)


@pytest.mark.deep
def test_unlinking_closes_the_session(runtime: Runtime, engine: Engine, sandbox: SandboxAdmin) -> None:
    (login,) = sandbox.create_logins(KEY, transactions=30)
    provider_id = link(runtime, sandbox, new_user(runtime), login)

    runtime.run(end.unlink(runtime, provider_id))

    assert [one["method"] for one in sandbox.log(login=login)][-1] == "DELETE"
    assert stored(engine, "status") == "unlinked"
