"""Merges an account into another one: it then has the keys of both, and each of their transactions once."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from worker.crud.identity.records import Held, hold, keep
from worker.crud.sync import sources
from worker.crud.sync.alike import Looks, Matcher, normalised
from worker.crud.sync.apply import Connection, driver
from worker.errors import Refused
from worker.models.identity_rows import Done
from worker.models.vocabulary import AccountStatus, ProviderStatus, TransactionStatus

Pairs = list[tuple[UUID, UUID]]


def merge(session: Session, *, from_id: UUID, into_id: UUID, actor: str, file_keys: frozenset[str]) -> Done:
    """Merges one account into another one of the same user.

    The login of `into_id` goes on stating account, balances and positions. That of `from_id` only adds transactions.

    Args:
        session: the transaction.
        from_id: the account that is merged; its id ends.
        into_id: the account that stays.
        actor: for the audit log.
        file_keys: keys of the integrations whose data comes in files.

    Raises:
        NotFound: one of the accounts does not exist.
        Refused: they cannot be one account; the text says why. Nothing was changed.
    """
    if from_id == into_id:
        raise Refused("these are the same account; nothing was changed. Name two accounts")
    gone, stays = hold(session, [from_id, into_id])
    _check(session, gone, stays, file_keys)
    return join(session, gone, stays, actor=actor)


def join(session: Session, gone: Held, stays: Held, *, actor: str) -> Done:
    """Merges two accounts that are locked and may be merged."""
    connection = driver(session)
    sources.note_main(connection, stays.id)
    connection.execute("DELETE FROM account_sources WHERE account_id = %s AND ended_at IS NOT NULL", (gone.id,))
    source_id = sources.note_main(connection, gone.id)
    pairs = _pairs(connection, gone.id, stays.id)
    saved = _saved(connection, gone, [row for row, _ in pairs])
    _move_rows(connection, gone.id, stays.id, source_id, pairs)
    more = {"source": str(source_id), "moved": _move_history(connection, gone.id, stays.id)}
    saved = f"{saved[:-1]}, {json.dumps(more)[1:]}"
    if gone.status == AccountStatus.INACCESSIBLE:
        sources.end(connection, [source_id])
    moved = connection.execute(
        "SELECT count(*) FROM transaction_keys k JOIN transactions t ON t.id = k.transaction_id"
        " WHERE k.source_id = %s AND t.id <> ALL(%s) AND t.status <> 'removed'",
        (source_id, [row for _, row in pairs]),
    ).fetchone()
    connection.execute("DELETE FROM accounts WHERE id = %s", (gone.id,))
    sources.begin_books_anew(connection, stays.id)
    logins = [gone.provider_id, stays.provider_id]
    change_id = keep(session, "merge", stays, gone.id, providers=logins, actor=actor, saved=saved)
    return Done(change_id, "merge", stays.id, gone.id, shared=len(pairs), moved=moved[0] if moved else 0)


def _check(session: Session, gone: Held, stays: Held, file_keys: frozenset[str]) -> None:
    if gone.user_id != stays.user_id:
        raise Refused("the accounts belong to different users; nothing was changed")
    if gone.currency != stays.currency:
        raise Refused(f"one account is in {gone.currency}, the other in {stays.currency}; nothing was changed")
    states = (gone.provider_key not in file_keys and gone.provider_status != ProviderStatus.UNLINKED, gone.status)
    others = (stays.provider_key not in file_keys and stays.provider_status != ProviderStatus.UNLINKED, stays.status)
    active = AccountStatus.ACTIVE
    if states == (True, active) and others != (True, active):
        raise Refused(
            f"the login {stays.alias} does not state its account any more, or its data comes in files, so balances"
            f" would stop; nothing was changed. The other way round: dashtam accounts merge {stays.id} {gone.id}"
        )
    live = driver(session).execute(
        "SELECT count(*) FROM account_sources WHERE account_id = %s AND ended_at IS NULL", (gone.id,)
    ).fetchone()  # fmt: skip
    if live is not None and live[0] > 1:
        raise Refused(
            "the first account comes from several logins already; nothing was changed. Split it first: dashtam accounts"
            f" split {gone.id}"
        )


_ROWS = """
    SELECT id, posted_date, amount, currency, description, status FROM transactions
    WHERE account_id = %s AND status <> 'removed' ORDER BY posted_date, id
"""


def _pairs(connection: Connection, gone: UUID, stays: UUID) -> Pairs:
    """Transactions that both accounts have."""
    one, other = (connection.execute(_ROWS, (id_,)).fetchall() for id_ in (gone, stays))
    found = Matcher([_looks(row) for row in one], [_looks(row) for row in other]).match()
    return [(one[index][0], other[place][0]) for index, place in found.items()]


def _looks(row: tuple[Any, ...]) -> Looks:
    _, day, amount, currency, description, status = row
    return Looks(day, amount, currency, normalised(description), status == TransactionStatus.PENDING)


_SAVED = """
    SELECT jsonb_build_object(
        'account', (SELECT to_jsonb(a) FROM accounts a WHERE a.id = %(account)s),
        'transactions', (SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]') FROM transactions t WHERE t.id = ANY(%(rows)s)),
        'balances', (SELECT coalesce(jsonb_agg(to_jsonb(b)), '[]') FROM balances b WHERE b.account_id = %(account)s),
        'balance_days',
        (SELECT coalesce(jsonb_agg(to_jsonb(b)), '[]') FROM balance_days b WHERE b.account_id = %(account)s),
        'holdings', (SELECT coalesce(jsonb_agg(to_jsonb(h)), '[]') FROM holdings h WHERE h.account_id = %(account)s),
        'holding_days', (SELECT coalesce(jsonb_agg(to_jsonb(d)), '[]') FROM holding_days d
            JOIN holdings h ON h.id = d.holding_id WHERE h.account_id = %(account)s),
        'liabilities',
        (SELECT coalesce(jsonb_agg(to_jsonb(l)), '[]') FROM liabilities l WHERE l.account_id = %(account)s),
        'accesses', (SELECT coalesce(jsonb_agg(id), '[]') FROM simplefin_accesses WHERE %(account)s = ANY(account_ids))
    )::text
"""


def _saved(connection: Connection, gone: Held, rows: list[UUID]) -> str:
    """Everything that the merge deletes, as JSON."""
    (saved,) = connection.execute(_SAVED, {"account": gone.id, "rows": rows}).fetchone() or ("",)
    return str(saved)


def _move_rows(connection: Connection, gone: UUID, stays: UUID, source_id: UUID, pairs: Pairs) -> None:
    """Gives the staying account the source, and the transactions that it does not have yet."""
    connection.execute("UPDATE account_sources SET account_id = %s WHERE id = %s", (stays, source_id))
    connection.execute(
        "UPDATE transaction_keys k SET transaction_id = pair.stays FROM unnest(%s::uuid[], %s::uuid[])"
        " AS pair (gone, stays)"
        " WHERE k.transaction_id = pair.gone AND k.source_id = %s",
        ([gone for gone, _ in pairs], [stays for _, stays in pairs], source_id),
    )
    connection.execute(
        "UPDATE transactions t SET account_id = %(stays)s, provider_transaction_id = k.source_id || ':' || k.key"
        " FROM transaction_keys k"
        " WHERE k.source_id = %(source)s AND k.transaction_id = t.id AND t.account_id = %(gone)s",
        {"stays": stays, "gone": gone, "source": source_id},
    )


def _move_history(connection: Connection, gone: UUID, stays: UUID) -> dict[str, Any]:
    """Moves balances of times, positions and liabilities, of which the staying account has none.

    Returns:
        The days of the balances that were moved.
    """
    given = {"gone": gone, "stays": stays}
    connection.execute(
        "UPDATE balances SET account_id = %(stays)s WHERE account_id = %(gone)s AND taken_at <"
        " coalesce((SELECT min(taken_at) FROM balances WHERE account_id = %(stays)s), 'infinity')",
        given,
    )
    days = connection.execute(
        "UPDATE balance_days SET account_id = %(stays)s WHERE account_id = %(gone)s AND day NOT IN"
        " (SELECT day FROM balance_days WHERE account_id = %(stays)s) RETURNING day",
        given,
    ).fetchall()
    for table in ("holdings", "liabilities"):
        connection.execute(
            f"UPDATE {table} SET account_id = %(stays)s WHERE account_id = %(gone)s"  # noqa: S608
            f" AND NOT EXISTS (SELECT FROM {table} WHERE account_id = %(stays)s)",
            given,
        )
    connection.execute(
        "UPDATE simplefin_accesses SET account_ids ="
        " CASE WHEN %(stays)s = ANY(account_ids) THEN array_remove(account_ids, %(gone)s)"
        " ELSE array_replace(account_ids, %(gone)s, %(stays)s) END WHERE %(gone)s = ANY(account_ids)",
        given,
    )
    return {"balance_days": [str(day) for (day,) in days]}
