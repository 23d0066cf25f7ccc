"""A login's whole life through a real worker, from its link to the day on which its owner has to consent anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from celery import Celery
from pytest_celery import CeleryTestWorker
from sqlalchemy import select, update

from tests.factories import make_user
from tests.support.processes import LocalProcess
from tests.support.sandbox import SandboxAdmin
from tests.support.waiting import wait_for
from worker.devstack.tether import Tether
from worker.models import Account, Provider, ProviderAuditLog, ProviderToken, SyncRun, Transaction
from worker.runtime import Runtime
from worker.services.linking import begin, complete


@pytest.fixture
def schwab(runtime: Runtime, sandbox: SandboxAdmin) -> tuple[UUID, str]:
    """A Schwab login that its owner has just linked in the browser: its provider's id, and its name in the sandbox."""
    login = sandbox.logins("schwab")[0]
    with runtime.transaction() as session:
        user_id = make_user(session).id
    begun = runtime.run(begin.begin_link(runtime, "schwab", user_id, "Savings"))
    state = parse_qs(urlsplit(begun.url).query)["state"][0]
    callback = sandbox.link(login, state=state)["callback_url"]
    return runtime.run(complete.complete_link(runtime, callback, holder=begun.holder)), login


@pytest.fixture
def plaid(runtime: Runtime, sandbox: SandboxAdmin) -> tuple[UUID, str]:
    """The same for Plaid."""
    login = sandbox.logins("plaid")[0]
    with runtime.transaction() as session:
        user_id = make_user(session).id
    public_token = sandbox.link(login)["public_token"]
    return runtime.run(
        complete.link_with_form(runtime, "plaid", user_id, "Cards", {"public_token": public_token})
    ), login


def test_login_is_linked_refreshed_synced_and_after_revocation_needs_a_new_consent(
    celery_worker: CeleryTestWorker,
    celery_application: Celery,
    runtime: Runtime,
    sandbox: SandboxAdmin,
    schwab: tuple[UUID, str],
) -> None:
    id_, login = schwab
    assert provider(runtime, id_).status == "active"
    assert generation(runtime, id_) == 1

    celery_application.send_task("worker.tasks.tokens.refresh_providers", ([str(id_)], "manual", True))
    wait_for(lambda: generation(runtime, id_) == 2, what="the refresh")

    celery_application.send_task("worker.tasks.accounts.sync_providers", ([str(id_)],))
    wait_for(lambda: provider(runtime, id_).synced_at, what="the sync")
    assert stored(runtime, id_) == in_the_books(sandbox, login)

    sandbox.revoke(login)
    celery_application.send_task("worker.tasks.tokens.refresh_providers", ([str(id_)], "manual", True))
    wait_for(lambda: provider(runtime, id_).status == "needs_reauth", what="the end of the grant")
    assert generation(runtime, id_) == 2
    assert "needs_reauth" in " ".join(audit(runtime, id_))

    asked = len(sandbox.refreshes(login))
    celery_application.send_task("worker.tasks.tokens.refresh_providers", ([str(id_)],))
    celery_application.send_task("worker.tasks.accounts.sync_providers", ([str(id_)],))
    wait_for(lambda: queues_are_empty(runtime), what="empty queues")
    assert len(sandbox.refreshes(login)) == asked, "nobody calls for a login whose grant is dead"


@pytest.fixture
def beat(process_environment: dict[str, str], tmp_path: Path, tether: Tether) -> Iterator[LocalProcess]:
    """The scheduler, with ticks a fiftieth as long."""
    process = LocalProcess(
        "beat",
        [sys.executable, "-m", "celery", "-A", "worker.app", "beat", "--loglevel", "INFO"],
        log=tmp_path / "beat.log",
        env=process_environment | {"TICK_SCALE": "0.02"},
        tether=tether,
    )
    process.start()
    yield process
    process.stop()


@pytest.mark.deep
def test_beat_alone_gets_due_logins_refreshed_and_synced(
    celery_worker: CeleryTestWorker,
    beat: LocalProcess,
    runtime: Runtime,
    sandbox: SandboxAdmin,
    schwab: tuple[UUID, str],
    plaid: tuple[UUID, str],
) -> None:
    make_due(runtime)

    wait_for(lambda: generation(runtime, schwab[0]) == 2, what="the refresh of Schwab")
    for id_, login in (schwab, plaid):
        wait_for(lambda id_=id_: provider(runtime, id_).synced_at, what=f"the sync of {login}")
        assert stored(runtime, id_) == in_the_books(sandbox, login)
    assert run_statuses(runtime) == {"completed"}


def provider(runtime: Runtime, id_: UUID) -> Provider:
    with runtime.transaction() as session:
        return session.get_one(Provider, id_)


def generation(runtime: Runtime, id_: UUID) -> int:
    with runtime.transaction() as session:
        return session.get_one(ProviderToken, id_).generation


def audit(runtime: Runtime, id_: UUID) -> list[str]:
    with runtime.transaction() as session:
        rows = session.scalars(select(ProviderAuditLog).where(ProviderAuditLog.provider_id == id_))
        return [f"{row.action} {row.reason}" for row in rows]


def run_statuses(runtime: Runtime) -> set[str]:
    with runtime.transaction() as session:
        return set(session.scalars(select(SyncRun.status)))


def stored(runtime: Runtime, id_: UUID) -> tuple[int, int]:
    """How many accounts and transactions the login has with us."""
    accounts = select(Account.id).where(Account.provider_id == id_)
    transactions = select(Transaction.id).where(Transaction.account_id.in_(accounts), Transaction.status != "removed")
    with runtime.transaction() as session:
        return len(session.scalars(accounts).all()), len(session.scalars(transactions).all())


def in_the_books(sandbox: SandboxAdmin, login: str) -> tuple[int, int]:
    books: dict[str, Any] = sandbox.books(login)
    return len(books["accounts"]), len(books["transactions"])


def queues_are_empty(runtime: Runtime) -> bool:
    return not runtime.redis.exists("refresh", "sync", "upkeep", "unacked")


def make_due(runtime: Runtime) -> None:
    """Time passes: access tokens are about to expire, and syncs are due."""
    now = datetime.now(UTC)
    passed = timedelta(minutes=28)
    with runtime.transaction() as session:
        session.execute(update(ProviderToken).values(issued_at=ProviderToken.issued_at - passed))
        session.execute(update(Provider).values(access_expires_at=Provider.access_expires_at - passed))
        session.execute(update(Provider).where(Provider.refresh_due_at.is_not(None)).values(refresh_due_at=now))
        session.execute(update(Provider).values(sync_due_at=now))
