"""API keys: creating them, checking them at each request, listing and revoking them.

A key is `dashtam_<prefix>_<secret>`. Only its SHA-256 is stored. The secret has 256 random bits and cannot be guessed
from the hash, so a slow password hash is not needed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from worker.crud import api_keys
from worker.crud.database import OpenTransaction
from worker.errors import BadArgument, NotAuthenticated, NotFound, NotPermitted
from worker.models.access import ApiKeyRow, NewApiKey
from worker.models.vocabulary import KeyScope
from worker.services.context import Context
from worker.telemetry.redaction import remember_shapes
from worker.text.plain_text import visible

_PREFIX_CHARACTERS = 8
_SECRET_BYTES = 32
_KEY = re.compile(r"dashtam_[0-9a-f]{8}_[A-Za-z0-9_-]{43}")
_LONGEST_NAME = 100

remember_shapes((r"\bdashtam_[0-9a-f]{8}_[\w-]{20,}",))


@dataclass(frozen=True, slots=True)
class KeyMade:
    """A new key. Its full text is known only now and cannot be shown again."""

    row: ApiKeyRow
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a key that has been checked.

    Attributes:
        user_id: whose rows they may see; None for an operator, who may see all rows.
        name: what the key is for, in the words of who made it.
    """

    key_id: UUID
    prefix: str
    user_id: UUID | None
    scopes: frozenset[str]
    name: str = ""

    @property
    def actor(self) -> str:
        """The owner's name in the audit log."""
        return f"{'operator' if self.user_id is None else 'user'}:key {self.prefix}"


async def create(
    runtime: Context,
    *,
    name: str,
    scopes: Iterable[str],
    user_id: UUID | None,
    lifetime: timedelta | None,
    actor: str,
) -> KeyMade:
    """Creates a key for a user, or for an operator when `user_id` is None.

    Raises:
        BadArgument: the name cannot be used, or a scope does not exist.
    """
    if not 0 < len(name.strip()) <= _LONGEST_NAME or visible(name) != name:
        raise BadArgument(f"the name must have 1 to {_LONGEST_NAME} characters that can be seen; no key was made")
    wanted = tuple(scope for scope in KeyScope if scope in set(scopes))
    if unknown := sorted(set(scopes) - set(KeyScope)):
        raise BadArgument(f"no scope is named {', '.join(unknown)}; there are {', '.join(KeyScope)}. No key was made")
    prefix = secrets.token_hex(_PREFIX_CHARACTERS // 2)
    key = f"dashtam_{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    expires_at = None if lifetime is None else await runtime.now() + lifetime
    new = NewApiKey(name.strip(), prefix, wanted, user_id, expires_at)
    return KeyMade(await runtime.db(api_keys.create, new=new, key_hash=_hashed(key), actor=actor), key)


async def authenticate(runtime: Context, key: str | None) -> Principal:
    """Finds the owner of a key.

    Raises:
        NotAuthenticated: there is no key, or it is unknown, revoked or expired. The message does not say which.
        Unavailable: Postgres is out of reach.
    """
    row = None
    if key is not None and _KEY.fullmatch(key):
        row = await runtime.db(api_keys.find_valid, key_hash=_hashed(key))
    if row is None:
        raise NotAuthenticated("this needs an API key that is valid: Authorization: Bearer dashtam_…")
    return _principal(row)


async def still_valid(runtime: Context, key_id: UUID) -> Principal | None:
    """The owner of the key with this id; None if the key is revoked or expired.

    Raises:
        Unavailable: Postgres is out of reach.
    """
    row = await runtime.db(api_keys.find_valid, key_id=key_id)
    return None if row is None else _principal(row)


def require(principal: Principal, scopes: Iterable[str]) -> None:
    """Raises `NotPermitted` unless the key has these scopes."""
    if missing := sorted(set(scopes) - principal.scopes):
        raise NotPermitted(f"this API key lacks the scope {', '.join(missing)}; ask an operator for a key that has it")


async def list_keys(runtime: Context, *, user_id: UUID | None, revoked: bool, limit: int) -> list[ApiKeyRow]:
    """Keys of one user or of all, oldest first; `revoked` adds the revoked ones."""
    return await runtime.db(api_keys.list_keys, user_id=user_id, revoked=revoked, limit=limit)


async def revoke(runtime: Context, prefix: str, *, actor: str) -> tuple[ApiKeyRow, bool]:
    """Ends a key permanently. Returns the key, and whether this changed anything.

    Raises:
        NotFound: no key has this prefix.
    """

    def end(session: OpenTransaction) -> tuple[ApiKeyRow, bool]:
        found = api_keys.by_prefix(session, prefix=prefix, limit=1)
        if not found:
            raise NotFound("no API key has this prefix; `dashtam api-keys list` shows them")
        changed = api_keys.revoke(session, key_id=found[0].id, actor=actor)
        return api_keys.by_prefix(session, prefix=prefix, limit=1)[0], changed

    return await runtime.db(end)


def _principal(row: ApiKeyRow) -> Principal:
    return Principal(row.id, row.prefix, row.user_id, frozenset(row.scopes), row.name)


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
