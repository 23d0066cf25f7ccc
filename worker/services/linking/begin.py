"""Begins an authorisation: makes the address at which the user gives consent."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs
from uuid import UUID

from pydantic import ValidationError

from worker.crud import links
from worker.errors import NotFound, Refused
from worker.integrations.kit.base import Caller
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import Choice, LinkKind
from worker.models import ProviderCreate
from worker.services.context import Context
from worker.services.linking import pkce

_SECOND = ".anyway"
"""The end of a state of a link that may be the second one of its login."""


@dataclass(frozen=True, slots=True)
class LinkBegun:
    """An authorisation that a user has begun.

    Attributes:
        url: the address at which the user gives consent.
        holder: a secret that only the process or browser which began it may hold; needed to complete it.
        state: what the provider sends back together with the user.
    """

    url: str = field(repr=False)
    holder: str = field(repr=False)
    state: str = field(repr=False)


async def begin_link(
    runtime: Context,
    provider_key: str,
    user_id: UUID,
    alias: str,
    *,
    form: Mapping[str, str] | None = None,
    session_id: UUID | None = None,
    anyway: bool = False,
) -> LinkBegun:
    """Begins an authorisation. Its state is random, can be used once, and expires; only its hash is stored.

    The state alone completes nothing. Otherwise an attacker could make a user open a callback URL that has the
    attacker's state, and so link the attacker's login to that user, or the user's login to the attacker. That is why
    the `holder` is needed too. With `session_id`, this link session ends when the authorisation is completed.

    Args:
        runtime: the process's context.
        provider_key: the integration.
        user_id: whose login it becomes.
        alias: what the user calls it.
        form: what the user has filled in before the consent (`link_kind.asks`).
        session_id: the link session that it belongs to.
        anyway: the login may be linked under another alias already.

    Raises:
        NotFound: no such integration or user.
        Refused: this integration is not linked by an authorise URL, or the alias or the form cannot be used.
        ProviderError: the provider has made no address for consent.
    """
    integration = enabled(runtime, provider_key)
    kind = integration.link_kind
    if not kind.redirects:
        raise Refused(f"{provider_key} has no address for consent: {_how(kind)}")
    provider_in = checked(user_id, provider_key, alias)
    answers = await _picked(runtime, integration, kind.asked(form or {}))
    state, holder = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    if anyway:
        state += _SECOND
    verifier = pkce.new_verifier() if kind.pkce else None
    await runtime.db(
        links.save_state,
        state_hash=hashed(state),
        holder_hash=hashed(holder),
        provider_in=provider_in,
        seconds=runtime.settings.link_state_seconds,
        code_verifier=verifier and pkce.seal_verifier(runtime.encryption, verifier, user_id=user_id),
        session_id=session_id,
    )
    challenge, now = verifier and pkce.challenge_of(verifier), await runtime.now()
    url = await integration.begin_consent(Caller(manual=True), answers, state=state, challenge=challenge, now=now)
    return LinkBegun(url, holder, state)


async def choices(runtime: Context, provider_key: str) -> dict[str, Sequence[Choice]]:
    """What may be chosen before the consent, by the names of the fields. Raises `NotFound`, `ProviderError`."""
    integration = enabled(runtime, provider_key)
    caller = Caller(manual=True)
    asks = integration.link_kind.asks
    return {field.name: await integration.choices(caller, field.name) for field in asks if field.chosen}


async def _picked(runtime: Context, integration: Integration, given: Mapping[str, str]) -> dict[str, str]:
    """The form, in which a choice may be given by words of its label. Raises `Refused` if not exactly one fits."""
    offered = await choices(runtime, integration.key)
    fields = {field.name: field for field in integration.link_kind.asks}
    return {
        name: fields[name].pick(offered[name], value) if name in offered else value for name, value in given.items()
    }


def enabled(runtime: Context, provider_key: str) -> Integration:
    """The integration with this key. Raises `NotFound` if it is not enabled."""
    integration = runtime.integrations.get(provider_key)
    if integration is None:
        raise NotFound(f"no integration {provider_key} is enabled; INTEGRATIONS has: {', '.join(runtime.integrations)}")
    return integration


def checked(user_id: UUID, provider_key: str, alias: str) -> ProviderCreate:
    """The input that creates the provider, with a checked alias. Raises `Refused` if the alias cannot be used."""
    try:
        return ProviderCreate(user_id=user_id, provider_key=provider_key, alias=alias)
    except ValidationError:
        raise Refused(
            "the alias must have 1 to 100 characters that can be seen, on one line; nothing was linked. "
            "Choose another alias"
        ) from None


def _how(kind: LinkKind) -> str:
    asked = ", ".join(field.label for field in kind.fields)
    return f"it is linked with its {asked}" if asked else "its data comes in files"


def allows_second(state: str) -> bool:
    """Whether the login may be linked under another alias already. A state that is changed is no state any more."""
    return state.endswith(_SECOND)


def state_in(query: str) -> str:
    """The state in the query with which a provider sends the user back; "" if there is none."""
    return parse_qs(query).get("state", [""])[0]


def hashed(state: str) -> bytes:
    """The hash that is stored of a state or a holder."""
    return hashlib.sha256(state.encode()).digest()
