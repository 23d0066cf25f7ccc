"""Counts which encryption key encrypted the stored tokens, and replaces ciphertexts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session


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


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table with ciphertexts, and its own names of the columns of `Ciphertexts`.

    Attributes:
        kinds: what the two ciphertexts of a row are bound to, besides the row.
    """

    name: str
    id: str = "id"
    provider_id: str = "provider_id"
    access_token: str = "access_token"  # noqa: S105 - a column
    refresh_token: str = "refresh_token"  # noqa: S105 - a column
    kinds: tuple[str, str] = ("access", "refresh")


TABLES = (
    Table(name="provider_tokens", id="provider_id"),
    Table(name="revocations"),
    Table(
        name="hook_subscriptions",
        provider_id="id",
        access_token="secret",  # noqa: S106 - a column
        refresh_token="old_secret",  # noqa: S106 - a column
        kinds=("hook", "old_hook"),
    ),
)
"""Tokens in use, tokens of grants that are still to be revoked, secrets of our hooks."""

# As text: `dashtam status`, which also counts, would have to make the seven tables of two files of models for it.
_COUNT = text(
    " UNION ALL ".join(f"SELECT key_id, count(*) FROM {table.name} GROUP BY key_id" for table in TABLES)  # noqa: S608 - ours
)
_READ = """
    SELECT {id} AS id, {provider_id} AS provider_id, generation, key_id, {access_token} AS access_token,
        {refresh_token} AS refresh_token
    FROM {name} WHERE key_id <> :key_id AND {id} > :after ORDER BY {id} LIMIT :limit
"""
_REPLACE = """
    UPDATE {name} t
    SET {access_token} = r.access_token, {refresh_token} = r.refresh_token, key_id = :key_id
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
        id uuid, generation int, key_id text, access_token text, refresh_token text
    )
    WHERE t.{id} = r.id AND t.generation = r.generation AND t.key_id = r.key_id
"""


def count_by_key(session: Session) -> dict[str, int]:
    """Number of stored tokens for each key that encrypted them."""
    counts: Counter[str] = Counter()
    for key_id, tokens in session.execute(_COUNT):
        counts[key_id] += tokens
    return dict(counts)


def read_written_by_others(
    session: Session, *, key_id: str, after: UUID, limit: int, table: Table = TABLES[0]
) -> list[Ciphertexts]:
    """Rows that were encrypted with another key, ordered by id, starting after the id `after`."""
    found = session.execute(_of(table, _READ), {"key_id": key_id, "after": after, "limit": limit})
    return [Ciphertexts(**row) for row in found.mappings()]


def replace_ciphertexts(session: Session, *, rows: Sequence[Ciphertexts], key_id: str, table: Table = TABLES[0]) -> int:
    """Replaces the ciphertexts of tokens with new ones that were encrypted with `key_id`.

    Fenced by generation and old key: a token that was refreshed in the meantime is left unchanged. No lease is needed,
    because the decrypted tokens stay the same.

    Returns:
        How many rows were replaced.
    """
    parameters = {"rows": msgspec.json.encode(rows).decode(), "key_id": key_id}
    return session.execute(_of(table, _REPLACE), parameters).rowcount  # type: ignore[attr-defined, no-any-return]


def _of(table: Table, statement: str) -> TextClause:
    return text(statement.format(**msgspec.structs.asdict(table)))
