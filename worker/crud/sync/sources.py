"""Accounts by the keys under which a login lists them, and which of these accounts have more than one key.

An account with several keys has a row in `account_sources` for each, and each of its rows has the keys under which
these sources list it in `transaction_keys`. All other accounts have nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from worker.crud.sync.apply import Connection
from worker.models import new_id


class Source(NamedTuple):
    """One key of an account that has several.

    Attributes:
        is_main: this login states the account, its balances and positions; the others only add transactions.
    """

    id: UUID
    is_main: bool


class Known(dict[str, bytes]):
    """Our ids of the accounts that a login lists, by the provider's ids.

    Attributes:
        sources: those of them that have several keys.
        securities: our ids of the securities that this run has met, by their keys.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[str, Source] = {}
        self.securities: dict[str, bytes] = {}

    def copy(self) -> Known:
        """A copy that may be changed by itself."""
        copied = Known()
        copied.update(self)
        copied.sources.update(self.sources)
        copied.securities.update(self.securities)
        return copied

    def is_further(self, account_key: str | None) -> bool:
        """Whether another login states this account, so that this one only adds transactions."""
        source = self.sources.get(account_key or "")
        return source is not None and not source.is_main

    @property
    def main(self) -> dict[str, bytes]:
        """Those that this login states."""
        return {key: id_ for key, id_ in self.items() if not self.is_further(key)}


_READ = """
    SELECT a.provider_account_id, a.id, s.id, true FROM accounts a
    LEFT JOIN account_sources s
        ON s.provider_id = a.provider_id AND s.key = a.provider_account_id AND s.ended_at IS NULL
    WHERE a.provider_id = %(id)s
    UNION ALL
    SELECT s.key, a.id, s.id, false FROM account_sources s JOIN accounts a ON a.id = s.account_id
    WHERE s.provider_id = %(id)s AND s.ended_at IS NULL
        AND (a.provider_id, a.provider_account_id) IS DISTINCT FROM (s.provider_id, s.key)
"""


def read_known(connection: Connection, provider_id: UUID) -> Known:
    """The accounts that the login lists, as far as they are stored.

    Rows that the main source has stored while its worker did not know of the other sources get their keys now.
    """
    known = Known()
    for key, account_id, source_id, is_main in connection.execute(_READ, {"id": provider_id}):
        known[key] = account_id.bytes
        if source_id is not None:
            known.sources[key] = Source(source_id, is_main)
            if is_main:
                note_unnamed(connection, source_id, account_id)
    return known


_NOTE_UNNAMED = """
    INSERT INTO transaction_keys (source_id, key, transaction_id)
    SELECT %s, t.provider_transaction_id, t.id FROM transactions t
    WHERE t.account_id = %s AND NOT EXISTS (SELECT FROM transaction_keys k WHERE k.transaction_id = t.id)
    ON CONFLICT DO NOTHING
"""


def note_unnamed(connection: Connection, source_id: UUID, account_id: UUID) -> None:
    """Notes the keys of the rows of which no source is known: the account's main source has stored them."""
    connection.execute(_NOTE_UNNAMED, (source_id, account_id))


def note_main(connection: Connection, account_id: UUID) -> UUID:
    """The account's main source, which is stored if the account had only this one until now."""
    main = connection.execute(
        "SELECT s.id FROM accounts a JOIN account_sources s ON s.account_id = a.id AND s.ended_at IS NULL"
        " AND (s.provider_id, s.key) = (a.provider_id, a.provider_account_id) WHERE a.id = %s",
        (account_id,),
    ).fetchone()
    if main is not None:
        source_id: UUID = main[0]
    else:
        source_id = new_id()
        connection.execute(
            "INSERT INTO account_sources (id, account_id, provider_id, key, created_at)"
            " SELECT %s, id, provider_id, provider_account_id, clock_timestamp() FROM accounts WHERE id = %s",
            (source_id, account_id),
        )
    note_unnamed(connection, source_id, account_id)
    return source_id


def add(connection: Connection, account_id: UUID, provider_id: UUID, key: str) -> UUID:
    """Stores a further source of an account, all of whose sources so far are stored."""
    source_id = new_id()
    connection.execute(
        "INSERT INTO account_sources (id, account_id, provider_id, key, created_at)"
        " VALUES (%s, %s, %s, %s, clock_timestamp())",  # later than a source that was added in the same transaction
        (source_id, account_id, provider_id, key),
    )
    return source_id


def make_main(connection: Connection, account_id: UUID, provider_id: UUID, key: str) -> None:
    """Makes the login with this key the one that states the account. The account's next listing writes it anew."""
    connection.execute(
        "UPDATE accounts SET provider_id = %s, provider_account_id = %s, content_hash = ''::bytea WHERE id = %s",
        (provider_id, key, account_id),
    )


def end(connection: Connection, source_ids: Sequence[UUID]) -> None:
    """Notes that the account is known under another key instead."""
    connection.execute(
        "UPDATE account_sources SET ended_at = clock_timestamp() WHERE id = ANY(%s) AND ended_at IS NULL",
        (list(source_ids),),
    )


def begin_books_anew(connection: Connection, account_id: UUID) -> None:
    """Makes the books check set its opening figure again, because rows of earlier days were added or taken away."""
    connection.execute("UPDATE accounts SET opening = NULL, opening_from = NULL WHERE id = %s", (account_id,))
    connection.execute("DELETE FROM book_drifts WHERE account_id = %s", (account_id,))
