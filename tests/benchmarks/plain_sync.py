"""What `bench_idle` compares with: a sync of one Plaid login per task, as it is usually written.

Fetch everything since the cursor, look up each record through the ORM, compare it field by field, write what differs,
and note the run. It has no fence, no books, no quarantine and no heartbeat to pay for. Celery runs it with the
product's broker settings on prefork, with one HTTP client and one engine for each process.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

import httpx
from celery import Celery
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, sessionmaker

from worker.models import Account, Balance, Holding, Provider, ProviderToken, SyncCursor, SyncRun, Transaction, new_id
from worker.models.vocabulary import RunStatus
from worker.services.encryption import EncryptionService
from worker.settings import get_settings
from worker.settings.celery import celery_settings

app = Celery("plain_sync")
app.conf.update({**celery_settings(get_settings()), "include": (), "beat_schedule": {}, "task_routes": {}})
app.conf.task_default_queue = "plain_sync"

OVERLAP = timedelta(days=10)


@cache
def _sessions() -> sessionmaker[Session]:
    url = get_settings().database_url.get_secret_value()
    return sessionmaker(create_engine(url, pool_size=1, max_overflow=0))


@cache
def _client() -> httpx.Client:
    headers = {"plaid-client-id": os.environ["PLAID_CLIENT_ID"], "plaid-secret": os.environ["PLAID_SECRET"]}
    return httpx.Client(timeout=20, base_url=os.environ["PLAID_BASE_URL"], headers=headers)


@app.task(name="plain_sync.sync")
def sync(provider_id: str) -> None:
    """Syncs one login; each answer is one transaction."""
    id_, now = UUID(provider_id), datetime.now(UTC)
    with _sessions()() as session:
        token = session.get_one(ProviderToken, id_)
        access_token = EncryptionService(get_settings().encryption_keys.get_secret_value()).unseal(
            token.access_token, provider_id=id_, kind="access", generation=token.generation, key_id=token.key_id
        )
        run = SyncRun(id=new_id(), provider_id=id_, trigger="manual", owner=id_, started_at=now, heartbeat_at=now)
        session.add(run)
        session.commit()
        unlike = _accounts(session, id_, _ask("/accounts/get", access_token))
        session.commit()
        cursor = session.get(SyncCursor, (id_, "transactions"))
        given = {"cursor": cursor.cursor if cursor else None, "count": 500}
        unlike += _transactions(session, id_, cursor, _ask("/transactions/sync", access_token, **given))
        session.commit()
        unlike += _holdings(session, id_, _ask("/investments/holdings/get", access_token))
        session.commit()
        days = {"start_date": str((now - OVERLAP).date()), "end_date": str(now.date())}
        unlike += _investments(session, id_, _ask("/investments/transactions/get", access_token, **days))
        session.commit()
        run.status, run.finished_at, run.changed = RunStatus.COMPLETED, datetime.now(UTC), unlike
        provider = session.get_one(Provider, id_)
        provider.synced_at, provider.sync_due_at = run.finished_at, run.finished_at + timedelta(hours=4)
        session.commit()


def _ask(path: str, access_token: str, **more: Any) -> Any:
    answer = _client().post(path, json={"access_token": access_token, **more})
    answer.raise_for_status()
    return answer.json(parse_float=Decimal)


def _accounts(session: Session, provider_id: UUID, answer: Any) -> int:
    """Compares accounts and their latest balances; how many differ."""
    unlike = 0
    stored = select(Account).where(Account.provider_id == provider_id)
    accounts = {account.provider_account_id: account for account in session.scalars(stored)}
    for given in answer["accounts"]:
        account = accounts[given["account_id"]]
        unlike += _set(account, name=given["name"], mask=given["mask"])
        latest = select(Balance).where(Balance.account_id == account.id).order_by(Balance.taken_at.desc()).limit(1)
        balance = session.scalars(latest).one()
        current = given["balances"]["current"]
        unlike += current is not None and balance.current not in (Decimal(current), -Decimal(current))
    return unlike


def _transactions(session: Session, provider_id: UUID, cursor: SyncCursor | None, answer: Any) -> int:
    unlike = sum(
        _compare(session, provider_id, row, row["transaction_id"]) for row in (*answer["added"], *answer["modified"])
    )
    if cursor is not None:
        unlike += _set(cursor, cursor=answer["next_cursor"])
    return unlike


def _holdings(session: Session, provider_id: UUID, answer: Any) -> int:
    """Compares the positions by their values; how many differ."""
    stored = select(Holding).join(Account).where(Account.provider_id == provider_id, Holding.closed_at.is_(None))
    have = sorted(holding.market_value or Decimal(0) for holding in session.scalars(stored))
    given = sorted(Decimal(one["institution_value"]) for one in answer["holdings"])
    return sum(ours != theirs for ours, theirs in zip(have, given, strict=True))


def _investments(session: Session, provider_id: UUID, answer: Any) -> int:
    return sum(
        _compare(session, provider_id, row, row["investment_transaction_id"])
        for row in answer["investment_transactions"]
    )


def _compare(session: Session, provider_id: UUID, row: Any, key: str) -> int:
    stored = select(Transaction).join(Account)
    found = session.scalars(
        stored.where(Account.provider_id == provider_id, Transaction.provider_transaction_id == key)
    ).first()
    return int(found is None or abs(found.amount) != abs(Decimal(row["amount"])))


def _set(row: object, **values: Any) -> int:
    unlike = {name: value for name, value in values.items() if getattr(row, name) != value}
    for name, value in unlike.items():
        setattr(row, name, value)
    return len(unlike)
