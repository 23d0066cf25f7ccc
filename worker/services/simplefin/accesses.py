"""SimpleFIN accesses: making a setup token, exchanging it once for an access URL, checking, listing and revoking.

A setup token is the base64 form of an address with a secret. An app posts to that address and gets the access URL,
which has a user name and a password. Both secrets have 256 random bits. Only their SHA-256 is stored, as for API keys.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from uuid import UUID

from worker.crud.database import OpenTransaction
from worker.crud.simplefin import accesses
from worker.errors import BadArgument, NotFound, NotPermitted
from worker.models.simplefin import AccessRow, NewAccess
from worker.process.logger import Logger
from worker.services.context import Context
from worker.telemetry.redaction import remember_shapes
from worker.text.plain_text import visible

log = Logger(__name__)

PATH = "/simplefin"
"""Below this path is everything that apps ask for."""

_PREFIX_BYTES = 4
_SECRET_BYTES = 32
_CLAIM = re.compile(r"sfc_[A-Za-z0-9_-]{43}")
_SECRET = re.compile(r"sfa_[A-Za-z0-9_-]{43}")
_LONGEST_NAME = 100

remember_shapes((r"\bsf[ac]_[\w-]{20,}",))


@dataclass(frozen=True, slots=True)
class AccessMade:
    """A new access. Its setup token is known only now and cannot be shown again."""

    row: AccessRow
    setup_token: str = field(repr=False)


def root(runtime: Context, base_url: str = "") -> str:
    """The address below which apps ask.

    Args:
        runtime: the process's context.
        base_url: the address by which this server was reached; it counts if `WEB_PUBLIC_URL` is empty.
    """
    settings = runtime.settings
    base = settings.web_public_url or base_url or f"http://{settings.web_address}:{settings.web_port}"
    return f"{base.rstrip('/')}{PATH}"


async def create(
    runtime: Context,
    *,
    user_id: UUID,
    name: str,
    account_ids: Sequence[UUID],
    actor: str,
    base_url: str = "",
) -> AccessMade:
    """Makes an access and its setup token.

    Args:
        runtime: the process's context.
        user_id: whose accounts the app will see.
        name: what it is for.
        account_ids: the only accounts that the app will see; empty: all, also those that come later.
        actor: who makes it, for the audit log.
        base_url: see `root`.

    Raises:
        BadArgument: the name cannot be used.
        NotFound: an account is not one of the user's.
    """
    if not 0 < len(name.strip()) <= _LONGEST_NAME or visible(name) != name:
        raise BadArgument(f"the name must have 1 to {_LONGEST_NAME} characters that can be seen; nothing was made")
    claim = f"sfc_{secrets.token_urlsafe(_SECRET_BYTES)}"
    new = NewAccess(
        user_id, name.strip(), secrets.token_hex(_PREFIX_BYTES), tuple(dict.fromkeys(account_ids)) or None, actor
    )

    def store(session: OpenTransaction) -> AccessRow:
        known = accesses.own_accounts(session, user_id=user_id, ids=account_ids)
        if strange := [str(id_) for id_ in account_ids if id_ not in known]:
            raise NotFound(
                f"the user has no account {', '.join(strange)}; `dashtam accounts` shows ids. Nothing was made"
            )
        seconds = runtime.settings.setup_token_seconds
        return accesses.create(session, new=new, claim_hash=_hashed(claim), seconds=seconds)

    row = await runtime.db(store)
    address = f"{root(runtime, base_url)}/claim/{claim}"
    return AccessMade(row, base64.b64encode(address.encode()).decode())


async def claim(runtime: Context, given: str, *, base_url: str) -> str:
    """Exchanges the secret of a setup token for an access URL.

    Raises:
        NotPermitted: the secret is unknown, expired, revoked or used. The message does not say which.
    """
    secret = f"sfa_{secrets.token_urlsafe(_SECRET_BYTES)}"
    prefix = None
    if _CLAIM.fullmatch(given):
        hashes = {"claim_hash": _hashed(given), "secret_hash": _hashed(secret)}
        prefix = await runtime.db(lambda session: accesses.claim(session, **hashes))
    if prefix is None:
        log.warning("simplefin_claim_refused", next="if its user did not use it: dashtam simplefin list")
        raise NotPermitted(
            "this setup token is unknown, has expired, or was used before; nothing was changed. If you did not use it"
            " yourself, somebody else may have: revoke it, and make a new one"
        )
    scheme, rest = root(runtime, base_url).split("://", 1)
    return f"{scheme}://{prefix}:{secret}@{rest}"


async def authenticate(runtime: Context, prefix: str, secret: str) -> AccessRow:
    """Finds the access that a user name and a password belong to.

    Raises:
        NotPermitted: there is none, or it was revoked. The message does not say which.
        Unavailable: Postgres is out of reach.
    """
    row = None
    if _SECRET.fullmatch(secret):
        row = await runtime.db(accesses.find_valid, prefix=prefix, secret_hash=_hashed(secret))
    if row is None:
        raise NotPermitted("this access URL is unknown or was revoked: make a new setup token and connect again")
    return row


async def list_accesses(runtime: Context, *, user_id: UUID | None, ended: bool, limit: int) -> list[AccessRow]:
    """Accesses of one user or of all, oldest first; `ended` adds those that are revoked or were never claimed."""
    return await runtime.db(accesses.list_accesses, user_id=user_id, ended=ended, limit=limit)


async def revoke(runtime: Context, prefix: str, *, actor: str, user_id: UUID | None = None) -> tuple[AccessRow, bool]:
    """Ends an access permanently; a setup token that was not used yet is ended, too.

    Args:
        runtime: the process's context.
        prefix: of the access.
        actor: who does it, for the audit log.
        user_id: only if it is an access of this user.

    Returns:
        The access, and whether this changed anything.

    Raises:
        NotFound: no access has this prefix.
    """

    def end(session: OpenTransaction) -> tuple[AccessRow, bool]:
        found = accesses.by_prefix(session, prefix=prefix)
        if not found or user_id not in (None, found[0].user_id):
            raise NotFound("no access has this prefix; `dashtam simplefin list` shows them")
        changed = accesses.revoke(session, access_id=found[0].id, actor=actor)
        return accesses.by_prefix(session, prefix=prefix)[0], changed

    return await runtime.db(end)


def host_of(root_url: str) -> str:
    """The host in an address, without its port."""
    return urlsplit(root_url).hostname or ""


def _hashed(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
