"""Which encryption key wrote what, and writing it anew."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from worker.models import ProviderToken


class Ciphertexts(msgspec.Struct, frozen=True, kw_only=True):
    """One provider's stored token. `key_id` is the key that wrote it."""

    provider_id: UUID
    generation: int
    key_id: str
    access_token: str
    refresh_token: str | None

    def __repr__(self) -> str:
        """Ciphertexts stay out of logs too."""
        return f"Ciphertexts(provider_id={self.provider_id}, generation={self.generation}, key_id={self.key_id})"


_REPLACE = text(
    """
    UPDATE provider_tokens t
    SET access_token = r.access_token, refresh_token = r.refresh_token, key_id = :key_id
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
        provider_id uuid, generation int, key_id text, access_token text, refresh_token text
    )
    WHERE t.provider_id = r.provider_id AND t.generation = r.generation AND t.key_id = r.key_id
    """
)


def count_by_key(session: Session) -> dict[str, int]:
    """Stored tokens by the key that wrote them."""
    statement = select(ProviderToken.key_id, func.count().label("tokens")).group_by(ProviderToken.key_id)
    return {row.key_id: row.tokens for row in session.execute(statement)}


def read_written_by_others(session: Session, *, key_id: str, after: UUID, limit: int) -> list[Ciphertexts]:
    """Tokens that another key than this one wrote, by provider id, from behind `after`."""
    columns = [getattr(ProviderToken, name) for name in Ciphertexts.__struct_fields__]
    statement = (
        select(*columns)
        .where(ProviderToken.key_id != key_id, ProviderToken.provider_id > after)
        .order_by(ProviderToken.provider_id)
        .limit(limit)
    )
    return [Ciphertexts(**row) for row in session.execute(statement).mappings()]


def replace_ciphertexts(session: Session, *, rows: Sequence[Ciphertexts], key_id: str) -> int:
    """Puts the same tokens, written by `key_id`, in place of those read.

    Fenced by generation and old key: a token that was refreshed meanwhile is left alone. The lease is not needed: the
    plain values stay what they are.

    Returns:
        How many rows were replaced.
    """
    parameters = {"rows": msgspec.json.encode(rows).decode(), "key_id": key_id}
    return session.execute(_REPLACE, parameters).rowcount  # type: ignore[attr-defined, no-any-return]
