"""Rows for tests: one function per noun, each with defaults that a test overrides where it matters.

All add to the session that they are given and flush; none commits.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from tests.support.providers import REFRESHED_KEY
from tests.support.tracing import untraced
from worker.models import Account, Provider, ProviderToken, Transaction, User
from worker.models.vocabulary import AccountStatus, AccountType, ProviderStatus, TransactionStatus, TransactionType
from worker.services.encryption import EncryptionService

NOW = datetime(2025, 3, 14, 15, 0, tzinfo=UTC)
"""The time of tests that bring their own clock: a weekday, far from any change of the hour."""

Row = TypeVar("Row")

_numbers = count(1)


def make_user(session: Session, **values: Any) -> User:
    """A person."""
    return _add(session, User(**{"email": f"user{next(_numbers)}@example.com"} | values))


def make_provider(session: Session, *, user: User | None = None, **values: Any) -> Provider:
    """A login that is not linked yet."""
    user = user or make_user(session)
    defaults = {"user_id": user.id, "provider_key": REFRESHED_KEY, "alias": f"Login {next(_numbers)}"}
    return _add(session, Provider(**defaults | values))


def make_linked_provider(
    session: Session,
    encryption: EncryptionService,
    *,
    access_token: str = "access-1",
    refresh_token: str | None = "refresh-1",
    generation: int = 1,
    lifetime: timedelta | None = timedelta(minutes=30),
    issued_at: datetime | None = None,
    token: dict[str, Any] | None = None,
    **values: Any,
) -> Provider:
    """An active login with a sealed token, both refresh and sync due at once.

    Args:
        session: where to add it.
        encryption: seals the tokens as the worker does.
        access_token, refresh_token: in plain text; for the sandbox use what `SandboxAdmin.mint` gives.
        generation: of the token.
        lifetime: of the access token; None for one that does not expire.
        issued_at: when the token was stored; now by default.
        token: further columns of the token row, for example a lease.
        **values: columns of the provider.
    """
    issued_at = issued_at or datetime.now(UTC)
    provider = make_provider(
        session,
        **{
            "status": ProviderStatus.ACTIVE,
            "access_expires_at": issued_at + lifetime if lifetime else None,
            "grant_expires_at": issued_at + timedelta(days=7),
            "refresh_due_at": issued_at if refresh_token else None,
            "sync_due_at": issued_at,
        }
        | values,
    )

    def seal(value: str, kind: str) -> str:
        return encryption.seal(value, provider_id=provider.id, kind=kind, generation=generation)

    columns: dict[str, Any] = {
        "provider_id": provider.id,
        "access_token": seal(access_token, "access"),
        "refresh_token": seal(refresh_token, "refresh") if refresh_token else None,
        "key_id": encryption.key_id,
        "generation": generation,
        "lifetime_s": int(lifetime.total_seconds()) if lifetime else None,
        "issued_at": issued_at,
    }
    _add(session, ProviderToken(**columns | (token or {})))
    return provider


def make_account(session: Session, *, provider: Provider | None = None, **values: Any) -> Account:
    """A brokerage account."""
    provider = provider or make_provider(session)
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "provider_id": provider.id,
        "provider_account_id": f"account-{number}",
        "name": f"Account {number}",
        "mask": f"{number % 10_000:04}",
        "type": AccountType.INVESTMENT,
        "subtype": "brokerage",
        "currency": "USD",
        "status": AccountStatus.ACTIVE,
        "content_hash": _hash("account", number),
    }
    return _add(session, Account(**defaults | values))


def make_transaction(session: Session, *, account: Account | None = None, **values: Any) -> Transaction:
    """A posted payment out of the account; amounts are credit-positive."""
    account = account or make_account(session)
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "account_id": account.id,
        "provider_transaction_id": f"transaction-{number}",
        "type": TransactionType.PAYMENT,
        "status": TransactionStatus.POSTED,
        "amount": Decimal("-12.34"),
        "currency": account.currency,
        "posted_date": date(2025, 3, 14),
        "content_hash": _hash("transaction", number),
    }
    return _add(session, Transaction(**defaults | values))


@untraced()
def _add(session: Session, row: Row) -> Row:
    session.add(row)
    session.flush()
    return row


def _hash(kind: str, number: int) -> bytes:
    return hashlib.blake2b(f"{kind} {number}".encode(), digest_size=16).digest()
