"""Positions, the instruments that they are in, and what they were day by day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from worker.crud.sync import nouns
from worker.crud.sync.apply import Listed, apply, is_safe_key
from worker.crud.sync.work import Work
from worker.models.pages import Page
from worker.models.records import HoldingRecord, SecurityRecord


def store_securities(work: Work, records: Iterable[SecurityRecord], *, describe: bool) -> dict[str, bytes]:
    """Stores instruments; returns their ids by key, without those that cannot be stored.

    The integration that first named an instrument keeps describing it, and with `describe` alone (positions do,
    transactions name it as it was called on their day): two that describe one differently would rewrite it in turn
    for ever.
    """
    # In one order everywhere: two runs that store the same instruments wait for each other instead of deadlocking.
    known = {record.key: record for record in records if is_safe_key(record.key)}
    if not known:
        return {}
    ordered = [known[key] for key in sorted(known)]
    rows = work.connection.execute("SELECT key, source FROM securities WHERE key = ANY(%s)", (list(known),))
    others = {key for key, source in rows if not describe or source != work.run.provider_key}
    outcome = apply(
        work.connection,
        nouns.SECURITIES,
        [nouns.security(record, work.run.provider_key) for record in ordered if record.key not in others],
        careful=work.careful,
    )
    work.tally.add("securities", added=outcome.added, changed=outcome.changed)
    work.reject_refused("security", nouns.SECURITIES, outcome.refused)
    found = work.connection.execute("SELECT key, id FROM securities WHERE key = ANY(%s)", (list(known),))
    return {key: id_.bytes for key, id_ in found}


def apply_holdings(work: Work, page: Page) -> None:
    """Stores the page's positions and closes those that a complete listing no longer has."""
    holdings = _known(work, page.holdings)
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
    _close_vanished(work, page)
    touched = {account_id for account_id, _ in holdings} | {
        work.accounts[key] for key in page.holdings_complete_for if key in work.accounts
    }
    _note_day(work, [UUID(bytes=id_) for id_ in touched])


def _known(work: Work, holdings: Sequence[HoldingRecord]) -> dict[tuple[bytes, str], HoldingRecord]:
    known = {}
    for holding in holdings:
        account_id = work.account(holding.account_key, kind="holding", record_key=holding.holding_key)
        if account_id is None:
            continue
        if not is_safe_key(holding.holding_key):
            work.reject("holding", "bad_key", account_key=holding.account_key)
            continue
        known[account_id, holding.holding_key] = holding
    return known


def _close_vanished(work: Work, page: Page) -> None:
    """Closes positions that are not listed.

    No brake here: people do sell all that they have, and a position that is listed again is open again.
    """
    rejects = [*page.rejects, *work.rejects]
    uncertain = {reject.account_key for reject in rejects if reject.kind in ("holding", "security")}
    complete = [
        UUID(bytes=work.accounts[key])
        for key in page.holdings_complete_for
        if key in work.accounts and key not in uncertain and None not in uncertain
    ]
    if not complete:
        return
    keep = {(work.accounts.get(holding.account_key), holding.holding_key) for holding in page.holdings}
    open_rows = work.connection.execute(
        "SELECT id, account_id, holding_key FROM holdings WHERE account_id = ANY(%s) AND closed_at IS NULL", (complete,)
    )
    vanished = [id_ for id_, account_id, key in open_rows if (account_id.bytes, key) not in keep]
    if vanished:
        work.connection.execute(
            "WITH closed AS (UPDATE holdings SET quantity = 0, market_value = 0, closed_at = %(now)s,"
            " content_hash = ''::bytea, run_id = %(run_id)s WHERE id = ANY(%(ids)s) RETURNING id)"
            " INSERT INTO holding_days (holding_id, day, quantity, market_value)"
            " SELECT id, %(day)s, 0, 0 FROM closed"
            " ON CONFLICT (holding_id, day) DO UPDATE SET quantity = 0, market_value = 0, price = NULL",
            {"now": work.now, "run_id": work.run.id, "ids": vanished, "day": work.now.date()},
        )
        work.tally.add("holdings", removed=len(vanished))


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
