"""Counts which encryption key encrypted the stored tokens, and replaces ciphertexts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import msgspec
from sqlalchemy import func, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session

from worker.models import ProviderToken, Revocation, Subscription


class Ciphertexts(msgspec.Struct, frozen=True, kw_only=True):
    """One row's ciphertexts. `key_id` is the key that encrypted them.

    Attributes:
        provider_id: the id that they are bound to: the provider's, or the subscription's own.
        access_token: the first ciphertext: the token, or the secret of a subscription.
        refresh_token: the second one: the refresh token, or the old secret of a subscription.
    """

    id: UUID
    provider_id: UUID
    generation: int
    key_id: str
    access_token: str
    refresh_token: str | None

    def __repr__(self) -> str:
        """Leaves out the ciphertexts, so that they do not get into logs."""
        return f"Ciphertexts(provider_id={self.provider_id}, generation={self.generation}, key_id={self.key_id})"


Table = type[ProviderToken] | type[Revocation] | type[Subscription]
TABLES: tuple[Table, ...] = (ProviderToken, Revocation, Subscription)
"""Tables with ciphertexts: tokens in use, tokens of grants that are still to be revoked, secrets of our hooks."""
KINDS: dict[Table, tuple[str, str]] = {
    ProviderToken: ("access", "refresh"),
    Revocation: ("access", "refresh"),
    Subscription: ("hook", "old_hook"),
}
"""What the two ciphertexts of a row are bound to, besides the row."""
_OF_SUBSCRIPTIONS = {"provider_id": "id", "access_token": "secret", "refresh_token": "old_secret"}


def _id(table: Table) -> InstrumentedAttribute[UUID]:
    return table.provider_id if table is ProviderToken else table.id  # type: ignore[union-attr]


def _named(table: Table, name: str) -> str:
    """The table's own name of a column of `Ciphertexts`."""
    return _OF_SUBSCRIPTIONS.get(name, name) if table is Subscription else name


_REPLACE = {
    table: text(
        f"""
        UPDATE {table.__tablename__} t
        SET {_named(table, "access_token")} = r.access_token, {_named(table, "refresh_token")} = r.refresh_token,
            key_id = :key_id
        FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
            id uuid, generation int, key_id text, access_token text, refresh_token text
        )
        WHERE t.{_id(table).key} = r.id AND t.generation = r.generation AND t.key_id = r.key_id
        """  # noqa: S608 - names of our own tables and columns
    )
    for table in TABLES
}


def count_by_key(session: Session) -> dict[str, int]:
    """Number of stored tokens for each key that encrypted them."""
    counts: Counter[str] = Counter()
    for table in TABLES:
        statement = select(table.key_id, func.count().label("tokens")).group_by(table.key_id)
        counts.update({row.key_id: row.tokens for row in session.execute(statement)})
    return dict(counts)


def read_written_by_others(
    session: Session, *, key_id: str, after: UUID, limit: int, table: Table = ProviderToken
) -> list[Ciphertexts]:
    """Rows that were encrypted with another key, ordered by id, starting after the id `after`."""
    id_ = _id(table)
    names = [name for name in Ciphertexts.__struct_fields__ if name != "id"]
    columns = [getattr(table, _named(table, name)).label(name) for name in names]
    statement = select(id_.label("id"), *columns).where(table.key_id != key_id, id_ > after).order_by(id_).limit(limit)
    return [Ciphertexts(**row) for row in session.execute(statement).mappings()]


def replace_ciphertexts(
    session: Session, *, rows: Sequence[Ciphertexts], key_id: str, table: Table = ProviderToken
) -> int:
    """Replaces the ciphertexts of tokens with new ones that were encrypted with `key_id`.

    Fenced by generation and old key: a token that was refreshed in the meantime is left unchanged. No lease is needed,
    because the decrypted tokens stay the same.

    Returns:
        How many rows were replaced.
    """
    parameters = {"rows": msgspec.json.encode(rows).decode(), "key_id": key_id}
    return session.execute(_REPLACE[table], parameters).rowcount  # type: ignore[attr-defined, no-any-return]
