"""What our SimpleFIN server serves, our own SimpleFIN integration reads back: the books are the same."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from tests.factories import make_linked_provider, make_user
from tests.integration.web.conftest import Sent
from tests.support.sandbox import SandboxAdmin
from tests.support.web_server import listening
from worker.crud import links
from worker.integrations.kit.base import Caller, TokenAnswer
from worker.integrations.kit.http import Api
from worker.models import SyncRun, User
from worker.models.vocabulary import RunStatus, Trigger
from worker.runtime import Runtime
from worker.services.refresh.plan import seal_answer
from worker.services.simplefin import accesses
from worker.services.sync import batch
from worker.settings import get_settings
from worker.tasks import send as broker
from worker.web.application import create_app

pytestmark = pytest.mark.deep

SERVED, READ_BACK = ("schwab", "plaid"), "simplefin"

TRANSACTIONS = """
SELECT t.{key} AS id, t.status, t.currency, t.amount,
    CASE t.status WHEN 'posted' THEN t.posted_date END AS day
FROM transactions t JOIN accounts a ON a.id = t.account_id
WHERE a.provider_id = ANY(:ids) AND t.status IN ('posted', 'pending')
"""
BALANCES = """
SELECT a.{key} AS id, a.currency, b.current AS amount, floor(extract(epoch FROM coalesce(b.as_of, b.taken_at))) AS at
FROM accounts a CROSS JOIN LATERAL (
    SELECT * FROM balances WHERE account_id = a.id ORDER BY taken_at DESC LIMIT 1
) b WHERE a.provider_id = ANY(:ids) AND a.status = 'active'
"""
HOLDINGS = """
SELECT h.{key} AS id, h.currency, h.quantity, h.market_value, h.cost_basis, h.average_price
FROM holdings h JOIN accounts a ON a.id = h.account_id
WHERE a.provider_id = ANY(:ids) AND h.closed_at IS NULL
"""


@pytest.fixture
def origin() -> Iterator[str]:
    """Our server, with a runtime of its own."""
    runtime = Runtime(get_settings())
    with listening(create_app(runtime, send=Sent(), transport=broker)) as address:
        yield address
    runtime.close()


def linked(runtime: Runtime, user_id: UUID, key: str, access_token: str, refresh_token: str | None = None) -> UUID:
    policy = runtime.integrations[key].refresh_policy
    with runtime.transaction() as session:
        return make_linked_provider(
            session,
            runtime.encryption,
            user=session.get_one(User, user_id),
            access_token=access_token,
            refresh_token=refresh_token,
            provider_key=key,
            lifetime=None if policy is None else policy.default_lifetime,
        ).id


def synced(runtime: Runtime, *provider_ids: UUID) -> list[SyncRun]:
    runs = []
    for provider_id in provider_ids:
        run_id = runtime.run(batch.sync_provider(runtime, provider_id, trigger=Trigger.SCHEDULE))
        with runtime.transaction() as session:
            run = session.get_one(SyncRun, run_id)
        assert run.status == RunStatus.COMPLETED, (run.error, run.error_reason, run.problems)
        runs.append(run)
    return runs


def claimed(runtime: Runtime, origin: str, user_id: UUID) -> str:
    """Makes a setup token, and claims it with our own integration, which from now on asks our server."""
    made = runtime.run(
        accesses.create(runtime, user_id=user_id, name="us", account_ids=(), actor="operator:tests", base_url=origin)
    )
    assert base64.b64decode(made.setup_token).decode().startswith(origin)
    kind = type(runtime.integrations[READ_BACK])
    url = f"{origin}{accesses.PATH}"
    settings = kind.settings_class(base_url=url)
    ours = kind(settings, Api(url, name=READ_BACK, total_seconds=20, max_bytes=1 << 26))
    runtime.integrations[READ_BACK] = ours
    form, caller = {"setup_token": made.setup_token}, Caller("link")
    return runtime.run(ours.exchange(caller, form, now=datetime.now(UTC))).access_token


def linked_again(runtime: Runtime, sandbox: SandboxAdmin, key: str, login: str, provider_id: UUID) -> None:
    """What a completed link of the same login does in its transaction."""
    minted, policy = sandbox.mint(login)[0], runtime.integrations[key].refresh_policy
    with runtime.transaction() as session:
        target = links.target_of_login(session, provider_id=provider_id, external_id=None)
        token = seal_answer(
            runtime.encryption,
            policy,
            TokenAnswer(minted.access_token, refresh_token=minted.refresh_token),
            provider_id=target.provider_id,
            generation=target.generation,
            issued_at=datetime.now(UTC),
            new_grant=True,
        )
        links.store_grant(session, token=token, owner=uuid4())


def rows(engine: Engine, query: str, ids: list[UUID], key: str) -> dict[str, dict[str, Any]]:
    """Rows by the id that an app sees; amounts as exact as their currency (here, all have cents)."""
    with engine.connect() as connection:
        found = [dict(row) for row in connection.execute(text(query.format(key=key)), {"ids": ids}).mappings()]
    for row in found:
        row["id"] = str(row["id"]).rpartition("/")[2]
        if isinstance(row.get("amount"), Decimal):
            row["amount"] = row["amount"].quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    return {row["id"]: row for row in found}


def assert_same_books(engine: Engine, served: list[UUID], read_back: UUID) -> None:
    for query, key in (
        (TRANSACTIONS, "provider_transaction_id"),
        (BALANCES, "provider_account_id"),
        (HOLDINGS, "holding_key"),
    ):
        expected = rows(engine, query, served, "id")
        assert expected
        assert rows(engine, query, [read_back], key) == expected


def test_our_own_server_read_back_gives_the_same_books_and_follows_them(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, origin: str
) -> None:
    with runtime.transaction() as session:
        owner, reader = make_user(session).id, make_user(session).id
    logins = {key: sandbox.logins(key)[0] for key in SERVED}
    served = []
    for key, login in logins.items():
        minted = sandbox.mint(login)[0]
        served.append(linked(runtime, owner, key, minted.access_token, minted.refresh_token))
    synced(runtime, *served)
    read_back = linked(runtime, reader, READ_BACK, claimed(runtime, origin, owner))

    synced(runtime, read_back)
    assert_same_books(engine, served, read_back)
    for _ in range(2):
        sandbox.advance(3, list(logins.values()))
        synced(runtime, *served, read_back)
        assert_same_books(engine, served, read_back)
    linked_again(runtime, sandbox, SERVED[0], logins[SERVED[0]], served[0])
    synced(runtime, *served)
    (again,) = synced(runtime, read_back)
    assert_same_books(engine, served, read_back)
    assert (again.added, again.changed, again.removed, again.quarantined) == (0, 0, 0, 0)
