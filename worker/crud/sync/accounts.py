"""Accounts as listed, and the balances that the provider states."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from worker.crud.sync import nouns
from worker.crud.sync.apply import Listed, apply, is_safe_key
from worker.crud.sync.work import Work
from worker.models import Account, Transaction
from worker.models.pages import Page
from worker.models.vocabulary import AccountStatus


def read_account_ids(work: Work) -> dict[str, bytes]:
    """Stored accounts of the provider: the provider's id of each, and ours."""
    rows = work.connection.execute(
        "SELECT provider_account_id, id FROM accounts WHERE provider_id = %s", (work.run.provider_id,)
    )
    return {key: id_.bytes for key, id_ in rows}


def active_account_keys(session: Session, *, provider_id: UUID) -> frozenset[str]:
    """The provider's ids of the accounts that it lists."""
    statement = select(Account.provider_account_id).where(
        Account.provider_id == provider_id, Account.status == AccountStatus.ACTIVE
    )
    return frozenset(session.scalars(statement))


def lose_all(session: Session, *, provider_id: UUID) -> None:
    """Makes all accounts inaccessible: the login that had them is no longer linked here."""
    session.execute(
        update(Account)
        .where(Account.provider_id == provider_id, Account.status == AccountStatus.ACTIVE)
        .values(status=AccountStatus.INACCESSIBLE, content_hash=b"")
    )


def has_transactions(session: Session, *, provider_id: UUID) -> bool:
    """Whether any transaction of the provider is stored, tombstones included."""
    statement = select(Transaction.id).join(Account).where(Account.provider_id == provider_id).limit(1)
    return session.scalar(statement) is not None


def apply_accounts(work: Work, page: Page) -> None:
    """Stores the page's accounts; those missing from a complete listing become inaccessible."""
    listed = []
    for record in {record.account_key: record for record in page.accounts}.values():
        if is_safe_key(record.account_key):
            listed.append(nouns.account(record, work.provider_id, work.run_id))
        else:
            work.reject("account", "bad_key")
    outcome = apply(work.connection, nouns.ACCOUNTS, listed, careful=work.careful)
    work.tally.add("accounts", added=outcome.added, changed=outcome.changed, unchanged=outcome.unchanged)
    work.reject_refused("account", nouns.ACCOUNTS, outcome.refused)
    if outcome.added:
        work.accounts.update(read_account_ids(work))
    if page.accounts_complete:
        _mark_vanished(work, page)


def _mark_vanished(work: Work, page: Page) -> None:
    rejects = [reject for reject in (*page.rejects, *work.rejects) if reject.kind == "account"]
    named = {reject.account_key or reject.record_key for reject in rejects}
    if None in named:  # an account that cannot even be named may be any of those that are missing
        return
    listed = {record.account_key for record in page.accounts} | named
    rows = work.connection.execute(
        "SELECT id, provider_account_id FROM accounts WHERE provider_id = %s AND status = 'active'",
        (work.run.provider_id,),
    ).fetchall()
    vanished = [id_ for id_, key in rows if key not in listed]
    if vanished and work.believes(len(vanished), len(rows), always=0):
        work.connection.execute(
            "UPDATE accounts SET status = 'inaccessible', content_hash = ''::bytea, run_id = %s WHERE id = ANY(%s)",
            (work.run.id, vanished),
        )
        work.tally.add("accounts", removed=len(vanished))


def apply_balances(work: Work, page: Page) -> None:
    """Adds a snapshot where a figure changed, or the day did."""
    listed: dict[bytes, Listed] = {}
    for record in page.balances:
        account_id = work.account(record.account_key, kind="balance")
        if account_id is not None:
            listed[account_id] = nouns.balance(record, account_id, work.run_id, work.now)
    outcome = apply(work.connection, nouns.BALANCES, list(listed.values()), careful=work.careful)
    work.tally.add("balances", added=outcome.added, unchanged=outcome.unchanged)
    work.reject_refused("balance", nouns.BALANCES, outcome.refused)
