"""What merging, splitting and undoing share: the locked accounts, the refusals, and the record of what was changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from worker.crud import audit
from worker.crud.providers import take_turns_in_linking
from worker.crud.sync import runs
from worker.crud.sync.apply import driver
from worker.errors import NotFound, Refused
from worker.models import Account, AccountChange, new_id
from worker.models.identity_rows import AccountName, ChangeRow


@dataclass(frozen=True, slots=True)
class Held:
    """An account that is locked until the transaction ends, with its login."""

    id: UUID
    user_id: UUID
    provider_id: UUID
    provider_key: str
    provider_status: str
    alias: str
    key: str
    status: str
    currency: str


_HOLD = """
    SELECT a.id, p.user_id, a.provider_id, p.provider_key, p.status, p.alias, a.provider_account_id, a.status,
        a.currency
    FROM accounts a JOIN providers p ON p.id = a.provider_id WHERE a.id = ANY(%s) ORDER BY a.id FOR UPDATE OF a
"""
_LOGINS_OF = """
    SELECT provider_id FROM accounts WHERE id = ANY(%(ids)s)
    UNION SELECT provider_id FROM account_sources WHERE account_id = ANY(%(ids)s)
"""


def hold(session: Session, ids: Sequence[UUID]) -> list[Held]:
    """Locks accounts, in the order that is given. Until the transaction ends, none of their logins begins a run.

    Their next runs compare all rows.

    Raises:
        NotFound: one of them does not exist.
        Refused: one of their logins is being synced, or its last sync broke off in the middle of a loop.
    """
    connection = driver(session)
    logins = sorted(row[0] for row in connection.execute(_LOGINS_OF, {"ids": list(ids)}))
    for provider_id in logins:
        take_turns_in_linking(session, provider_id)
    busy = connection.execute(
        "SELECT p.alias FROM providers p WHERE p.id = ANY(%(ids)s) AND ("
        " EXISTS (SELECT FROM sync_runs r WHERE r.provider_id = p.id AND r.status = 'running')"
        " OR EXISTS (SELECT FROM sync_cursors c WHERE c.provider_id = p.id AND c.loop_id IS NOT NULL)) LIMIT 1",
        {"ids": logins},
    ).fetchone()
    if busy is not None:
        raise Refused(
            f"the login {busy[0]} is being synced, or its last sync broke off; nothing was changed. Let it end first:"
            f' dashtam sync "{busy[0]}" --wait'
        )
    held = {row[0]: Held(*row) for row in connection.execute(_HOLD, (list(ids),))}
    if len(held) < len(set(ids)):
        raise NotFound("the account no longer exists; nothing was changed. `dashtam accounts` lists those that do")
    for provider_id in logins:  # one that only looks for news could go on with what it knows of the accounts
        runs.end_running(
            session,
            provider_id=provider_id,
            error="account_shared",
            reason="its accounts were merged or split meanwhile",
        )
    return [held[id_] for id_ in ids]


def keep(
    session: Session, kind: str, held: Held, other_id: UUID, *, providers: Iterable[UUID], actor: str, saved: str
) -> UUID:
    """Stores a change with what is needed to undo it, and an audit row for each login.

    `saved` is JSON as Postgres has written it. It is never decoded here: the amounts would lose digits.
    """
    change = AccountChange(id=new_id(), kind=kind, account_id=held.id, other_id=other_id)
    driver(session).execute(
        "INSERT INTO account_changes (id, user_id, kind, account_id, other_id, actor, saved)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s::jsonb)",
        (change.id, held.user_id, kind, held.id, other_id, actor, saved),
    )
    tell(session, f"accounts_{kind}", change, providers=providers, actor=actor)
    return change.id


def tell(session: Session, action: str, change: AccountChange, *, providers: Iterable[UUID], actor: str) -> None:
    """Adds the audit rows of a change."""
    detail = {"change": str(change.id), "account": str(change.account_id), "other": str(change.other_id)}
    for provider_id in sorted(set(providers)):
        audit.record(session, provider_id=provider_id, action=action, actor=actor, detail=detail)


def changes_between(session: Session, *, first: UUID, last: UUID) -> list[ChangeRow]:
    """The changes with ids in this range."""
    return _rows(session, select(*_SHOWN).where(AccountChange.id.between(first, last)).limit(3))


def newest_changes(session: Session, *, limit: int) -> list[ChangeRow]:
    """Changes, newest first."""
    return _rows(session, select(*_SHOWN).order_by(AccountChange.id.desc()).limit(limit))


_SHOWN = [getattr(AccountChange, name) for name in ChangeRow.__slots__]


def _rows(session: Session, query: Select[Any]) -> list[ChangeRow]:
    return [ChangeRow(*row) for row in session.execute(query)]


def accounts_between(session: Session, *, first: UUID, last: UUID) -> list[AccountName]:
    """The accounts with ids in this range."""
    found = session.execute(select(Account.id, Account.name).where(Account.id.between(first, last)).limit(3))
    return [AccountName(*row) for row in found]
