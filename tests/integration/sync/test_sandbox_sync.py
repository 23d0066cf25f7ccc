from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from tests.factories import make_linked_provider
from tests.integration.sync import books as compare
from tests.support.fixtures import MakeRuntime
from tests.support.sandbox import SandboxAdmin
from worker.models import SyncRun
from worker.models.vocabulary import RunStatus, Trigger
from worker.runtime import Runtime, use_runtime
from worker.services.sync import batch

PROFILES = ("plaid", "schwab", "simplefin", "snaptrade", "enable_banking")


@pytest.fixture
def runtime(make_runtime: MakeRuntime) -> Iterator[Runtime]:
    """With a larger budget of calls: these tests sync more often in a minute than some providers allow."""
    with use_runtime(make_runtime(quota_scale=1000)) as current:
        yield current


def link(runtime: Runtime, sandbox: SandboxAdmin, profile: str, login: str) -> UUID:
    minted = sandbox.mint(login)[0]
    policy = runtime.integrations[profile].refresh_policy
    with runtime.transaction() as session:
        provider = make_linked_provider(
            session,
            runtime.encryption,
            access_token=minted.access_token,
            refresh_token=minted.refresh_token,
            provider_key=profile,
            lifetime=None if policy is None else policy.default_lifetime,
        )
        return provider.id


def sync(runtime: Runtime, provider_id: UUID, **options: Any) -> Any:
    run_id = runtime.run(batch.sync_provider(runtime, provider_id, trigger=Trigger.SCHEDULE, **options))
    with runtime.transaction() as session:
        return session.get_one(SyncRun, run_id)


def forget_answers(connection: Connection) -> None:
    """Makes the next sync compare all rows, as the first one of each day does."""
    connection.execute(text("UPDATE sync_runs SET answers = NULL"))


def assert_equal_books(engine: Engine, sandbox: SandboxAdmin, login: str, provider_id: UUID) -> None:
    books = sandbox.books(login)
    assert compare.stored_transactions(engine, provider_id) == compare.booked_transactions(books)
    assert compare.stored_holdings(engine, provider_id) == compare.booked_holdings(books)
    assert compare.stored_balances(engine, provider_id) == compare.booked_balances(books)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.deep
def test_tables_equal_the_providers_books_after_every_sync(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, profile: str
) -> None:
    login = sandbox.logins(profile)[0]
    provider_id = link(runtime, sandbox, profile, login)

    first = sync(runtime, provider_id)

    assert first.status == RunStatus.COMPLETED, (first.error, first.error_reason, first.problems)
    assert_equal_books(engine, sandbox, login, provider_id)
    for _ in range(3):
        sandbox.advance(2, [login])
        assert sync(runtime, provider_id).status == RunStatus.COMPLETED
        assert_equal_books(engine, sandbox, login, provider_id)


@pytest.mark.deep
@pytest.mark.parametrize("profile", PROFILES)
def test_a_sync_of_unchanged_books_writes_no_row(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, profile: str
) -> None:
    provider_id = link(runtime, sandbox, profile, sandbox.logins(profile)[0])
    sync(runtime, provider_id)
    sync(runtime, provider_id)  # the first quiet one: it anchors the books
    before = versions(engine)

    again = sync(runtime, provider_id)

    assert versions(engine) == before
    assert (again.added, again.changed, again.removed, again.quarantined) == (0, 0, 0, 0)


@pytest.mark.deep
def test_terms_of_cards_and_loans_are_asked_for_once_a_day_and_when_a_person_asks(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin
) -> None:
    login = sandbox.logins("plaid")[0]
    provider_id = link(runtime, sandbox, "plaid", login)
    first = sync(runtime, provider_id)
    terms = "SELECT id, kind, closed_at IS NULL FROM liabilities ORDER BY kind"
    with engine.connect() as connection:
        stored = connection.execute(text(terms)).all()
    sandbox.inject("error", error="INTERNAL_SERVER_ERROR", path="/liabilities/get", times=9)

    second = sync(runtime, provider_id)
    by_hand = batch.sync_provider(runtime, provider_id, trigger=Trigger.MANUAL, force=True)
    runtime.run(by_hand)

    assert [tuple(row[1:]) for row in stored] == [("credit", True), ("student", True)]
    assert (first.status, second.status) == (RunStatus.COMPLETED, RunStatus.COMPLETED)
    with engine.connect() as connection:
        last = connection.execute(text("SELECT status, problems FROM sync_runs ORDER BY started_at DESC LIMIT 1")).one()
        assert last.status == RunStatus.PARTIAL
        assert connection.execute(text(terms)).all() == stored


@pytest.mark.deep
@pytest.mark.parametrize(("broken", "failed"), [("con.auth/1", 1), ("act.failed/0", 1)])
def test_trouble_at_one_bank_of_a_login_leaves_the_others_synced_and_loses_nothing(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, broken: str, failed: int
) -> None:
    login = sandbox.logins("simplefin")[0]
    provider_id = link(runtime, sandbox, "simplefin", login)
    sync(runtime, provider_id)
    sandbox.break_login(login, broken)
    sandbox.advance(3, [login])

    during = sync(runtime, provider_id)
    sandbox.mend_login(login)
    after = sync(runtime, provider_id)

    assert during.status == RunStatus.PARTIAL
    assert len({problem["account"] for problem in during.problems["problems"]}) == failed
    assert (during.removed, after.status) == (0, RunStatus.COMPLETED)
    assert_equal_books(engine, sandbox, login, provider_id)


@pytest.mark.deep
def test_access_url_that_was_ended_at_its_server_needs_the_user(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin
) -> None:
    login = sandbox.logins("simplefin")[0]
    provider_id = link(runtime, sandbox, "simplefin", login)
    sandbox.revoke(login)

    assert sync(runtime, provider_id).error_reason == "access_revoked"
    with engine.connect() as connection:
        assert connection.execute(text("SELECT status FROM providers")).scalar_one() == "needs_reauth"


@pytest.mark.deep
def test_calls_for_all_accounts_and_calls_that_name_accounts_have_a_quota_each(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin
) -> None:
    login = sandbox.logins("simplefin")[0]
    provider_id = link(runtime, sandbox, "simplefin", login)
    sandbox.break_login(login, "act.failed/0")
    sync(runtime, provider_id)
    sandbox.mend_login(login)  # this account is now two years behind the others

    sync(runtime, provider_id)

    with engine.connect() as connection:
        buckets = connection.scalars(text("SELECT bucket FROM quota_days")).all()
    assert {bucket.split(":")[1] for bucket in buckets} == {"accounts", "account"}
    assert_equal_books(engine, sandbox, login, provider_id)


def versions(engine: Engine) -> list[Any]:
    """Which transaction last wrote each row."""
    # ctid and xmin say where a row's present version is, and who wrote it.
    tables = ("accounts", "balances", "securities", "holdings", "holding_days", "transactions")
    with engine.connect() as connection:
        queries = [text(f"SELECT ctid, xmin FROM {table}") for table in tables]  # noqa: S608
        return [sorted(map(str, connection.execute(query).all())) for query in queries]
