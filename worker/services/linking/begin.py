"""Beginning to link a login: the address where its user is to consent."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from uuid import UUID

from pydantic import ValidationError

from worker.crud import links
from worker.errors import NotFound, Refused
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import LinkKind
from worker.models import ProviderCreate
from worker.services.context import Context
from worker.services.linking import pkce


@dataclass(frozen=True, slots=True)
class LinkBegun:
    """An authorisation that a user has begun.

    Attributes:
        url: where the user is to consent.
        holder: a secret that stays with who began it (a process, a cookie) and completes it.
    """

    url: str = field(repr=False)
    holder: str = field(repr=False)


async def begin_link(runtime: Context, provider_key: str, user_id: UUID, alias: str) -> LinkBegun:
    """Where the user is to consent. The state in it is random, good for one use, and expires; only its hash is kept.

    A state alone completes nothing. Otherwise an attacker who made a user follow a callback with it could link the
    attacker's login to that user, or the user's login to the attacker. So the `holder` is needed too.

    Raises:
        NotFound: no such integration or user.
        Refused: this integration is not linked by an authorise URL, or the alias cannot be used.
    """
    integration = enabled(runtime, provider_key)
    kind = integration.link_kind
    if not kind.redirects:
        raise Refused(f"{provider_key} has no address for consent: {_how(kind)}")
    provider_in = checked(user_id, provider_key, alias)
    state, holder = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    verifier = pkce.new_verifier() if kind.pkce else None
    await runtime.db(
        links.save_state,
        state_hash=hashed(state),
        holder_hash=hashed(holder),
        provider_in=provider_in,
        seconds=runtime.settings.link_state_seconds,
        code_verifier=verifier and pkce.seal_verifier(runtime.encryption, verifier, user_id=user_id),
    )
    return LinkBegun(integration.authorize_url(state, verifier and pkce.challenge_of(verifier)), holder)


def enabled(runtime: Context, provider_key: str) -> Integration:
    """The integration of this key. Raises `NotFound` if it is not enabled."""
    integration = runtime.integrations.get(provider_key)
    if integration is None:
        raise NotFound(f"no integration {provider_key} is enabled; INTEGRATIONS has: {', '.join(runtime.integrations)}")
    return integration


def checked(user_id: UUID, provider_key: str, alias: str) -> ProviderCreate:
    """The provider to link, its alias checked. Raises `Refused`."""
    try:
        return ProviderCreate(user_id=user_id, provider_key=provider_key, alias=alias)
    except ValidationError:
        raise Refused(
            "the alias must have 1 to 100 characters that can be seen, on one line; nothing was linked. "
            "Choose another --alias"
        ) from None


def _how(kind: LinkKind) -> str:
    asked = ", ".join(field.label for field in kind.fields)
    return f"it is linked with its {asked}" if asked else "its data comes in files"


def hashed(state: str) -> bytes:
    """What is kept of a state and of its holder."""
    return hashlib.sha256(state.encode()).digest()
