"""Takes one login's share out of an account that several logins, or several links of one login, have made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from worker.crud.identity.records import Held, hold, keep
from worker.crud.sync import sources
from worker.crud.sync.apply import Connection, driver, new_ids
from worker.errors import Refused
from worker.models import new_id
from worker.models.identity_rows import Done


@dataclass(frozen=True, slots=True)
class Saved:
    """What a merge has deleted, as JSON that Postgres has written; and small parts of it, decoded."""

    json: str
    account_id: UUID
    source_id: UUID
    balance_days: list[str]
    accesses: list[str]

    @classmethod
    def of(cls, text: str) -> Saved:
        """Decodes the small parts. Amounts stay in the text, because they would lose digits."""
        parts: dict[str, Any] = json.loads(text)
        moved: dict[str, list[str]] = parts["moved"]
        return cls(text, UUID(parts["account"]["id"]), UUID(parts["source"]), moved["balance_days"], parts["accesses"])


class _Share(NamedTuple):
    """A source of the account that is split."""

    id: UUID
    provider_id: UUID
    key: str
    ended_at: datetime | None

    @property
    def is_live(self) -> bool:
        return self.ended_at is None


def split(session: Session, *, account_id: UUID, provider_id: UUID | None, actor: str) -> Done:
    """Gives the source that came last (of this login, if one is given) an account of its own.

    A transaction that only this source lists moves there. One that others list, too, is in both accounts afterwards.

    Raises:
        NotFound: there is no such account.
        Refused: it has only one source, or none of this login. Nothing was changed.
    """
    (held,) = hold(session, [account_id])
    connection = driver(session)
    shares = _shares(connection, held.id)
    if len(shares) < 2:
        raise Refused("the account was never merged or recognised, so there is nothing to split; nothing was changed")
    of_login = [share for share in shares if provider_id in (None, share.provider_id)]
    if not of_login:
        raise Refused("this login has no share in the account; nothing was changed. `dashtam accounts` lists both")
    return take_out(session, held, of_login[-1].id, actor=actor)


def take_out(session: Session, held: Held, source_id: UUID, *, actor: str, saved: Saved | None = None) -> Done:
    """Takes a source out of a locked account.

    Args:
        session: the transaction.
        held: the account.
        source_id: the source.
        actor: for the audit log.
        saved: what a merge has deleted; the new account and its rows get back their ids.

    Raises:
        Refused: the account does not have this source any more.
    """
    connection = driver(session)
    sources.note_main(connection, held.id)
    shares = _shares(connection, held.id)
    leaving = next((share for share in shares if share.id == source_id), None)
    others = [share for share in shares if share.id != source_id]
    if leaving is None or not others:
        raise Refused("the account was split in the meantime; nothing was changed")
    was_main = leaving.is_live and (leaving.provider_id, leaving.key) == (held.provider_id, held.key)
    heir = max(others, key=lambda share: share.is_live) if was_main else None
    if heir is not None:
        _make_heir(connection, held.id, heir)
    other_id = saved.account_id if saved else new_id()
    _new_account(connection, held.id, other_id, leaving, saved)
    shared, moved = _divide(connection, held.id, other_id, source_id, saved)
    if was_main:
        _move_since(connection, held.id, other_id, source_id)
    if saved:
        _restore(connection, held.id, other_id, saved)
    connection.execute("DELETE FROM account_sources WHERE id = %s", (source_id,))
    if heir is not None:
        name_rows(connection, held.id, heir.id)
    if len(others) == 1:
        connection.execute("DELETE FROM account_sources WHERE account_id = %s", (held.id,))
    for id_ in (held.id, other_id):
        sources.begin_books_anew(connection, id_)
    kept = json.dumps({"was_main": was_main, "heir_had_ended": heir is not None and not heir.is_live})
    logins = [leaving.provider_id, *(share.provider_id for share in others)]
    change_id = keep(session, "split", held, other_id, providers=logins, actor=actor, saved=kept)
    return Done(change_id, "split", held.id, other_id, shared=shared, moved=moved)


def _shares(connection: Connection, account_id: UUID) -> list[_Share]:
    found = connection.execute(
        "SELECT id, provider_id, key, ended_at FROM account_sources WHERE account_id = %s"
        " ORDER BY ended_at IS NULL, created_at, id",
        (account_id,),
    )
    return [_Share(*row) for row in found]


def _make_heir(connection: Connection, account_id: UUID, heir: _Share) -> None:
    """The account is stated by another source from now on; by one that is not read any more, it is out of reach."""
    sources.make_main(connection, account_id, heir.provider_id, heir.key)
    if not heir.is_live:
        connection.execute("UPDATE account_sources SET ended_at = NULL WHERE id = %s", (heir.id,))
        connection.execute("UPDATE accounts SET status = 'inaccessible' WHERE id = %s", (account_id,))
        connection.execute(_REVIVE, (account_id, heir.ended_at, heir.id))


# Withdrawn because the other link did not list them. Those that were pending cannot be told from the others any more.
_REVIVE = """
    UPDATE transactions t SET status = 'posted' FROM sync_runs r
    WHERE t.account_id = %s AND t.status = 'removed' AND r.id = t.run_id AND coalesce(r.finished_at, now()) >= %s
        AND EXISTS (SELECT FROM transaction_keys k WHERE k.transaction_id = t.id AND k.source_id = %s)
"""


def _new_account(
    connection: Connection, account_id: UUID, other_id: UUID, leaving: _Share, saved: Saved | None
) -> None:
    changes = {
        "id": str(other_id),
        "provider_id": str(leaving.provider_id),
        "provider_account_id": leaving.key,
        "status": "active" if leaving.is_live else "inaccessible",
        "content_hash": "\\x",
    }
    connection.execute(
        "INSERT INTO accounts SELECT made.* FROM accounts a, jsonb_populate_record(NULL::accounts,"
        " coalesce(%(saved)s::jsonb -> 'account', to_jsonb(a)) || %(changes)s::jsonb) AS made WHERE a.id = %(account)s",
        {
            "saved": saved.json if saved else None,
            "changes": json.dumps(changes),
            "account": account_id,
        },
    )


_OTHERS_TOO = """
    EXISTS (SELECT FROM transaction_keys o JOIN account_sources s ON s.id = o.source_id
        WHERE o.transaction_id = t.id AND o.source_id <> k.source_id)
"""
_COPY = f"""
    INSERT INTO transactions
    SELECT made.* FROM (
        SELECT t.*, k.key AS source_key, row_number() OVER (ORDER BY t.id) AS number
        FROM transaction_keys k JOIN transactions t ON t.id = k.transaction_id
        WHERE k.source_id = %(source)s AND {_OTHERS_TOO}
    ) AS t
    LEFT JOIN jsonb_array_elements(%(saved)s::jsonb -> 'transactions') AS kept (row)
        ON kept.row ->> 'provider_transaction_id' = t.source_key
    CROSS JOIN LATERAL jsonb_populate_record(NULL::transactions,
        coalesce(kept.row, to_jsonb(t) || jsonb_build_object('id', (%(ids)s::uuid[])[t.number], 'content_hash', '\\x'))
        || jsonb_build_object('account_id', %(other)s::uuid, 'provider_transaction_id', t.source_key, 'loop_id', NULL)
    ) AS made
"""  # noqa: S608 - constants
_MOVE = f"""
    UPDATE transactions t SET account_id = %(other)s, provider_transaction_id = k.key FROM transaction_keys k
    WHERE k.source_id = %(source)s AND k.transaction_id = t.id AND t.account_id = %(account)s AND NOT {_OTHERS_TOO}
"""  # noqa: S608 - constants


def _divide(
    connection: Connection, account_id: UUID, other_id: UUID, source_id: UUID, saved: Saved | None
) -> tuple[int, int]:
    """Copies the transactions that both have, and moves those of the leaving source alone. Returns both numbers."""
    named = connection.execute("SELECT count(*) FROM transaction_keys WHERE source_id = %s", (source_id,)).fetchone()
    given = {"source": source_id, "account": account_id, "other": other_id}
    ids = [UUID(bytes=id_) for id_ in new_ids(named[0] if named else 0)]
    copied = connection.execute(_COPY, given | {"saved": saved.json if saved else None, "ids": ids})
    moved = connection.execute(_MOVE, given)
    return copied.rowcount, moved.rowcount


def _move_since(connection: Connection, account_id: UUID, other_id: UUID, source_id: UUID) -> None:
    """Moves positions and liabilities, and the balances since the source states the account."""
    given = {"account": account_id, "other": other_id, "source": source_id}
    since = "(SELECT created_at FROM account_sources WHERE id = %(source)s)"
    for statement in (
        f"UPDATE balances SET account_id = %(other)s WHERE account_id = %(account)s AND taken_at >= {since}",  # noqa: S608
        "UPDATE balance_days SET account_id = %(other)s WHERE account_id = %(account)s"  # noqa: S608
        f" AND day >= ({since} AT TIME ZONE 'UTC')::date",
        "UPDATE holdings SET account_id = %(other)s WHERE account_id = %(account)s",
        "UPDATE liabilities SET account_id = %(other)s WHERE account_id = %(account)s",
    ):
        connection.execute(statement, given)


_RESTORE = {
    "balances": "ON CONFLICT (id) DO UPDATE SET account_id = excluded.account_id",
    "balance_days": "ON CONFLICT DO NOTHING",
    "holdings": "ON CONFLICT (id) DO UPDATE SET account_id = excluded.account_id",
    "liabilities": "ON CONFLICT (id) DO UPDATE SET account_id = excluded.account_id",
    "holding_days": "ON CONFLICT DO NOTHING",
}


def _restore(connection: Connection, account_id: UUID, other_id: UUID, saved: Saved) -> None:
    """Gives the account back the balances and positions that it had before it was merged."""
    connection.execute(
        "DELETE FROM balance_days WHERE account_id = %s AND day = ANY(%s::date[])",
        (account_id, saved.balance_days),
    )
    for table, conflict in _RESTORE.items():
        connection.execute(
            f"INSERT INTO {table} SELECT *"  # noqa: S608
            f" FROM jsonb_populate_recordset(NULL::{table}, %s::jsonb -> '{table}') {conflict}",
            (saved.json,),
        )
    connection.execute(
        "UPDATE simplefin_accesses SET account_ids = array_append(account_ids, %(other)s)"
        " WHERE id = ANY(%(ids)s::uuid[]) AND account_ids IS NOT NULL AND NOT %(other)s = ANY(account_ids)",
        {"other": other_id, "ids": saved.accesses},
    )


def name_rows(connection: Connection, account_id: UUID, source_id: UUID) -> None:
    """Gives the account's rows the keys of its main source; rows that only others list get keys of their own."""
    # Two steps, because one row's new key may be another row's old one.
    connection.execute(
        "UPDATE transactions SET provider_transaction_id = 'renamed:' || id WHERE account_id = %s", (account_id,)
    )
    connection.execute(
        "UPDATE transactions t SET provider_transaction_id = named.key FROM ("
        " SELECT DISTINCT ON (k.transaction_id) k.transaction_id,"
        " CASE WHEN k.source_id = %(main)s THEN k.key ELSE k.source_id || ':' || k.key END AS key"
        " FROM transaction_keys k JOIN account_sources s ON s.id = k.source_id WHERE s.account_id = %(account)s"
        " ORDER BY k.transaction_id, k.source_id <> %(main)s, s.created_at"
        ") AS named WHERE named.transaction_id = t.id AND t.account_id = %(account)s",
        {"main": source_id, "account": account_id},
    )
