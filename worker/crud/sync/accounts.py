"""Stores accounts, balances and positions (with their securities), which a page lists completely."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import UTC, date
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from worker.crud.sync import nouns
from worker.crud.sync.apply import Differing, apply, apply_differing, is_safe_key
from worker.crud.sync.listed import storable, vanished
from worker.crud.sync.noun import Listed
from worker.crud.sync.sources import read_known
from worker.crud.sync.work import Work
from worker.models import Account, AccountSource
from worker.models.pages import Page
from worker.models.records import BalanceRecord, SecurityRecord
from worker.models.vocabulary import AccountStatus


def active_account_keys(session: Session, *, provider_id: UUID) -> frozenset[str]:
    """The provider's ids of its active accounts, including those that another login states."""
    own = select(Account.provider_account_id).where(
        Account.provider_id == provider_id, Account.status == AccountStatus.ACTIVE
    )
    further = (
        select(AccountSource.key)
        .join(Account, Account.id == AccountSource.account_id)
        .where(
            AccountSource.provider_id == provider_id,
            AccountSource.ended_at.is_(None),
            Account.status == AccountStatus.ACTIVE,
        )
    )
    return frozenset(session.scalars(own.union(further)))


def lose_all(session: Session, *, provider_id: UUID) -> None:
    """Makes all accounts inaccessible, because their login is no longer linked here."""
    session.execute(
        update(Account)
        .where(Account.provider_id == provider_id, Account.status == AccountStatus.ACTIVE)
        .values(status=AccountStatus.INACCESSIBLE, content_hash=b"")
    )


def apply_accounts(work: Work, page: Page) -> None:
    """Stores the page's accounts. Accounts missing from a complete listing become inaccessible."""
    listed = []
    for record in {record.account_key: record for record in page.accounts}.values():
        if work.accounts.is_further(record.account_key):
            work.tally.add("accounts", unchanged=1)
        elif is_safe_key(record.account_key):
            listed.append(nouns.account(record, work.provider_id, work.run_id))
        else:
            work.reject("account", "bad_key")
    outcome = apply(work.connection, nouns.ACCOUNTS, listed, careful=work.careful)
    work.tally.add("accounts", added=outcome.added, changed=outcome.changed, unchanged=outcome.unchanged)
    work.reject_refused("account", nouns.ACCOUNTS, outcome.refused)
    if outcome.added:
        work.accounts = read_known(work.connection, work.run.provider_id)
    if page.accounts_complete:
        _mark_vanished(work, page)


def _mark_vanished(work: Work, page: Page) -> None:
    rejects = [reject for reject in (*page.rejects, *work.rejects) if reject.kind == "account"]
    named = {reject.account_key or reject.record_key for reject in rejects}
    if None in named:  # an account without a readable id may be any of the missing ones
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
    """Adds a snapshot of each balance that has changed, or whose last snapshot is of an earlier day.

    Each is also kept as the balance of its day, until another one of the same day is stated.
    """
    newest = dict(_of_accounts(work, page.balances))
    listed = [nouns.balance(record, account_id, work.run_id, work.now) for account_id, record in newest.items()]
    outcome = apply(work.connection, nouns.BALANCES, listed, careful=work.careful)
    work.tally.add("balances", added=outcome.added, unchanged=outcome.unchanged)
    work.reject_refused("balance", nouns.BALANCES, outcome.refused)
    for refusal in outcome.refused:
        del newest[nouns.BALANCES.scope_of(refusal.row)]
    _keep_by_day(work, [*_of_accounts(work, page.past_balances), *newest.items()])


def _of_accounts(work: Work, balances: Iterable[BalanceRecord]) -> Iterator[tuple[bytes, BalanceRecord]]:
    for record in balances:
        account_id = work.account(record.account_key, kind="balance")
        if account_id is not None and not work.accounts.is_further(record.account_key):
            yield account_id, record


_KEEP_BY_DAY = """
    INSERT INTO balance_days AS kept
        (account_id, day, current, available, credit_limit, cash, market_value, currency)
    SELECT account_id, day, current, available, credit_limit, cash, market_value, currency
    FROM jsonb_to_recordset(%s::jsonb) AS stated (account_id uuid, day date, current numeric, available numeric,
        credit_limit numeric, cash numeric, market_value numeric, currency text)
    ON CONFLICT (account_id, day) DO UPDATE SET current = EXCLUDED.current, available = EXCLUDED.available,
        credit_limit = EXCLUDED.credit_limit, cash = EXCLUDED.cash, market_value = EXCLUDED.market_value,
        currency = EXCLUDED.currency
    WHERE (kept.current, kept.available, kept.credit_limit, kept.cash, kept.market_value, kept.currency)
        IS DISTINCT FROM (EXCLUDED.current, EXCLUDED.available, EXCLUDED.credit_limit, EXCLUDED.cash,
            EXCLUDED.market_value, EXCLUDED.currency)
"""


def _keep_by_day(work: Work, stated: Iterable[tuple[bytes, BalanceRecord]]) -> None:
    """Keeps each balance as that of its day. Nothing is written when it is the same as the one that is kept."""
    days: dict[tuple[bytes, date], dict[str, Any]] = {}
    for account_id, record in stated:
        # A time that lies ahead is a mistake of the provider: the figures cannot be of a later day than today.
        day = min(record.as_of or work.now, work.now).astimezone(UTC).date()
        days[account_id, day] = msgspec.structs.asdict(record) | {"account_id": account_id.hex(), "day": day}
    if days:
        work.connection.execute(_KEEP_BY_DAY, (msgspec.json.encode(list(days.values())).decode(),))


def store_securities(work: Work, records: Iterable[SecurityRecord], *, describe: bool) -> dict[str, bytes]:
    """Stores securities; returns their ids by key, without those that cannot be stored.

    Only the integration that first named a security updates it: two with different descriptions would overwrite each
    other again and again. And it does so only with `describe`, which is set for positions: a transaction may have the
    name that the security had on its day.
    """
    known = {record.key: record for record in records if is_safe_key(record.key)}
    if not known:
        return {}
    met = work.accounts.securities
    if not describe and not work.careful and known.keys() <= met.keys():
        return {key: met[key] for key in known}
    stored = _stored_securities(work, known)
    lacking = len(stored) < len(known)
    _write_securities(work, known, stored, describe=describe)
    if lacking:
        stored = _stored_securities(work, known)
        if describe and work.careful:  # another run may have stored them just now, for a transaction
            _write_securities(work, {key: known[key] for key in stored}, stored, describe=True)
    found = {key: security.id.bytes for key, security in stored.items()}
    met.update(found)
    return found


class _StoredSecurity(NamedTuple):
    id: UUID
    source: str
    content_hash: bytes


def _stored_securities(work: Work, keys: Iterable[str]) -> dict[str, _StoredSecurity]:
    """The stored ones of these securities, by key."""
    query = "SELECT key, id, source, content_hash FROM securities WHERE key = ANY(%s)"
    return {key: _StoredSecurity(*more) for key, *more in work.connection.execute(query, (list(keys),))}


def _write_securities(
    work: Work, known: Mapping[str, SecurityRecord], stored: Mapping[str, _StoredSecurity], *, describe: bool
) -> None:
    """Inserts what is not stored; with `describe`, also updates what this integration has stored."""
    ours = work.run.provider_key
    # Always in the same order: so two runs that store the same securities wait for each other and do not deadlock.
    listed = [nouns.security(known[key], ours) for key in sorted(known)]
    differing: list[Differing] = []
    for index, (entry, _) in enumerate(listed):
        one = stored.get(entry.key)
        if one is None:
            differing.append((index, None))
        elif describe and one.source == ours and one.content_hash != entry.hash:
            differing.append((index, one.id.bytes))
    outcome = apply_differing(work.connection, nouns.SECURITIES, listed, differing, careful=work.careful)
    work.tally.add("securities", added=outcome.added, changed=outcome.changed)
    work.reject_refused("security", nouns.SECURITIES, outcome.refused)


def apply_holdings(work: Work, page: Page) -> None:
    """Stores the page's positions, and closes those that are missing from a complete listing."""
    holdings = storable(work, page.holdings, nouns.HOLDINGS, kind="holding")
    securities = store_securities(work, [holding.security for holding in holdings.values()], describe=True)
    listed: list[Listed] = []
    for (account_id, key), holding in holdings.items():
        security_id = securities.get(holding.security.key)
        if security_id is None:
            work.reject("holding", "bad_security", account_key=holding.account_key, record_key=key)
            continue
        listed.append(nouns.holding(holding, account_id, security_id, work.run_id))
    outcome = apply(work.connection, nouns.HOLDINGS, listed, careful=work.careful)
    work.tally.add("holdings", added=outcome.added, changed=outcome.changed, unchanged=outcome.unchanged)
    work.reject_refused("holding", nouns.HOLDINGS, outcome.refused)
    _close_vanished(work, page, holdings.keys())
    stated = work.accounts.main
    touched = {account_id for account_id, _ in holdings} | {
        stated[key] for key in page.holdings_complete_for if key in stated
    }
    _note_day(work, [UUID(bytes=id_) for id_ in touched])


def _close_vanished(work: Work, page: Page, listed: Set[tuple[bytes, str]]) -> None:
    gone = vanished(
        work,
        page,
        nouns.HOLDINGS,
        complete_for=page.holdings_complete_for,
        listed=listed,
        kinds={"holding", "security"},
    )
    if gone:
        work.connection.execute(
            "WITH closed AS (UPDATE holdings SET quantity = 0, market_value = 0, closed_at = %(now)s,"
            " content_hash = ''::bytea, run_id = %(run_id)s WHERE id = ANY(%(ids)s) RETURNING id)"
            " INSERT INTO holding_days (holding_id, day, quantity, market_value)"
            " SELECT id, %(day)s, 0, 0 FROM closed"
            " ON CONFLICT (holding_id, day) DO UPDATE SET quantity = 0, market_value = 0, price = NULL",
            {"now": work.now, "run_id": work.run.id, "ids": gone, "day": work.now.date()},
        )
        work.tally.add("holdings", removed=len(gone))


def _note_day(work: Work, account_ids: Sequence[UUID]) -> None:
    if account_ids:
        work.connection.execute(
            "INSERT INTO holding_days (holding_id, day, quantity, market_value, price)"
            " SELECT id, %s, quantity, market_value, price FROM holdings"
            " WHERE account_id = ANY(%s) AND closed_at IS NULL"
            " ON CONFLICT (holding_id, day) DO UPDATE"
            " SET quantity = EXCLUDED.quantity, market_value = EXCLUDED.market_value, price = EXCLUDED.price"
            " WHERE (holding_days.quantity, holding_days.market_value, holding_days.price)"
            " IS DISTINCT FROM (EXCLUDED.quantity, EXCLUDED.market_value, EXCLUDED.price)",
            (work.now.date(), list(account_ids)),
        )
