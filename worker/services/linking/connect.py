"""Linking a user's login, linking it anew, and ending it. Tokens pass through memory alone."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import structlog
from pydantic import ValidationError

from worker.crud import links, revocations
from worker.crud.database import OpenTransaction
from worker.crud.links import LinkTarget
from worker.crud.refresh import tokens
from worker.crud.refresh.tokens import NewToken, TokenState
from worker.crud.revocations import Waiting
from worker.errors import EncryptionError, NotFound, ProviderError, Refused, Transient, Unavailable
from worker.integrations.kit.base import Caller, TokenAnswer
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import CODE, CODE_VERIFIER, LinkKind
from worker.integrations.kit.oauth2 import parse_callback
from worker.models import ProviderCreate, new_id
from worker.services.context import Context
from worker.services.linking import pkce, revocation
from worker.services.refresh import journal
from worker.services.refresh.lease import store_in_time
from worker.services.refresh.plan import seal_answer

log = structlog.get_logger()


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

    A state alone completes nothing: whoever got somebody to follow a callback with it would link their own login to
    that user, or the user's to themselves. Only who also has the `holder` that is returned here can.

    Raises:
        NotFound: no such integration or user.
        Refused: this integration is not linked by an authorise URL, or the alias cannot be used.
    """
    integration = _integration(runtime, provider_key)
    kind = integration.link_kind
    if not kind.redirects:
        raise Refused(f"{provider_key} has no address for consent: {_how(kind)}")
    provider_in = _checked(user_id, provider_key, alias)
    state, holder = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    verifier = pkce.new_verifier() if kind.pkce else None
    await runtime.db(
        links.save_state,
        state_hash=_hash(state),
        holder_hash=_hash(holder),
        provider_in=provider_in,
        seconds=runtime.settings.link_state_seconds,
        code_verifier=verifier and pkce.seal_verifier(runtime.encryption, verifier, user_id=user_id),
    )
    return LinkBegun(integration.authorize_url(state, verifier and pkce.challenge_of(verifier)), holder)


async def complete_link(runtime: Context, callback_url: str, *, holder: str) -> UUID:
    """Ends what `begin_link` began: the URL that the user was sent back to becomes a linked provider.

    The same user and alias, or the same login, are linked anew: the token's next generation, the status active.

    Args:
        runtime: the process's.
        callback_url: all of it.
        holder: what `begin_link` gave to who began it.

    Returns:
        The provider's id.

    Raises:
        Refused: the URL is not the callback's; or its state is unknown, expired, used, or was begun by somebody else.
        ProviderError: the provider did not take the code; begin again.
        Unavailable: Postgres is away; when the token was already given, it is in the journal.
    """
    state = parse_qs(urlsplit(callback_url.strip()).query).get("state", [""])[0]
    begun = await runtime.db(links.consume_state, state_hash=_hash(state), holder_hash=_hash(holder))
    if begun is None:
        raise Refused("this link was used before, has expired, or was not begun here: start linking again")
    integration = _integration(runtime, begun.provider_in.provider_key)
    form = {CODE: parse_callback(callback_url, integration.redirect_uri).code}
    if begun.code_verifier is not None:
        form[CODE_VERIFIER] = pkce.unseal_verifier(
            runtime.encryption, begun.code_verifier, user_id=begun.provider_in.user_id
        )
    return await _link(runtime, integration, begun.provider_in, form)


async def link_with_form(
    runtime: Context, provider_key: str, user_id: UUID, alias: str, form: Mapping[str, str]
) -> UUID:
    """Turns what the user filled in (`link_kind.fields`) into a linked provider; otherwise as `complete_link`.

    Raises:
        Refused: this integration is linked by an address, or the form is not filled in.
    """
    integration = _integration(runtime, provider_key)
    kind = integration.link_kind
    if kind.redirects:
        raise Refused(f"{provider_key} is linked by consent at its authorise URL: start there")
    return await _link(runtime, integration, _checked(user_id, provider_key, alias), kind.checked(form))


async def unlink(runtime: Context, provider_id: UUID, *, actor: str = "user") -> bool:
    """Ends a link: revoked at the provider where it has a way, its token forgotten here, its rows kept.

    A grant that the provider could not be asked to end just now is kept until it was (`services.revocation`).

    Returns:
        Whether the provider confirmed the revocation.

    Raises:
        NotFound: no such provider.
        Refused: its token is being refreshed just now.
    """
    owner = uuid4()
    state = await _lease(runtime, provider_id, owner)
    revoked = await _revoke(runtime, state)
    await runtime.db(
        links.end_link, provider_id=provider_id, actor=actor, revoked=revoked is True, revoke_later=revoked is None
    )
    log.info("unlinked", provider_id=str(provider_id), revoked=revoked is True, revoke_later=revoked is None)
    return revoked is True


@dataclass(frozen=True, slots=True)
class _Grant:
    integration: Integration
    provider_in: ProviderCreate
    answer: TokenAnswer
    target: LinkTarget


async def _link(
    runtime: Context, integration: Integration, provider_in: ProviderCreate, form: Mapping[str, str]
) -> UUID:
    # The provider exists before its token, so that a token that cannot be stored has a place in the journal.
    target = await runtime.db(links.target, provider_in=provider_in)
    caller = Caller(provider_id=target.provider_id, manual=True)
    try:
        async with asyncio.timeout(runtime.settings.lease_seconds):
            answer = await integration.exchange(caller, form, now=target.now)
    except TimeoutError:
        raise Transient("deadline") from None
    grant = _Grant(integration, provider_in, answer, target)
    try:
        provider_id = await store_in_time(runtime, partial(_store, runtime=runtime, grant=grant))
    except Unavailable as error:
        await journal.keep(runtime, [_sealed(runtime, grant, target)])
        raise Unavailable("Postgres is away; the login is in the journal until it can be stored") from error
    except Exception:
        await _abandon(runtime, grant)
        raise
    log.info("linked", provider_id=str(provider_id), provider_key=integration.key, flags=list(answer.flags))
    await revocation.revoke_soon(runtime, provider_id)  # of a login that this one has replaced
    return provider_id


def _store(session: OpenTransaction, *, runtime: Context, grant: _Grant) -> UUID:
    # During the exchange a refresh may have ended, another link may have been stored or have taken the provider away:
    # what the grant follows is read now.
    ours = links.find_or_create(session, provider_in=grant.provider_in)
    target = links.target_of_login(session, provider_id=ours.id, external_id=grant.answer.external_id)
    links.store_grant(session, token=_sealed(runtime, grant, target), owner=uuid4())
    return target.provider_id


async def _abandon(runtime: Context, grant: _Grant) -> None:
    """Leaves nothing of a grant that was not stored, neither here nor, where it can be ended, at the provider.

    Never raises. The grant of a login that is stored stays: it may be the very one that is in use there.
    """
    answer, provider_id = grant.answer, grant.target.provider_id
    try:
        in_use = await runtime.db(links.abandon, provider_in=grant.provider_in, external_id=answer.external_id)
    except Unavailable:
        log.warning("link_left_behind", provider_id=str(provider_id), next="linking again under the alias mends it")
        return
    if in_use:
        return
    sealed = _sealed(runtime, grant, grant.target)
    kept = Waiting(
        id=new_id(),
        provider_id=provider_id,
        provider_key=grant.integration.key,
        reason="abandoned",
        generation=sealed.generation + 1,
        access_token=sealed.access_token,
        refresh_token=sealed.refresh_token,
        key_id=sealed.key_id,
    )
    with suppress(Unavailable):
        await runtime.db(revocations.keep, grant=kept, external_id=answer.external_id)
        await revocation.revoke_soon(runtime, provider_id)
    log.warning("link_abandoned", provider_id=str(provider_id))


def _sealed(runtime: Context, grant: _Grant, target: LinkTarget) -> NewToken:
    return seal_answer(
        runtime.encryption,
        grant.integration.refresh_policy,
        grant.answer,
        provider_id=target.provider_id,
        generation=target.generation,
        issued_at=grant.target.now,
        new_grant=True,
    )


async def _lease(runtime: Context, provider_id: UUID, owner: UUID) -> TokenState:
    """Waits until nobody else uses the token."""
    give_up_at = asyncio.get_running_loop().time() + runtime.settings.lease_seconds
    while True:
        leased = await runtime.db(
            tokens.lease, ids=[provider_id], owner=owner, seconds=runtime.settings.lease_seconds, active_only=False
        )
        state = (await runtime.db(tokens.read, ids=[provider_id])).get(provider_id)
        if state is None:
            raise NotFound(f"no provider has the id {provider_id}")
        if leased or state.generation is None:
            return state
        if asyncio.get_running_loop().time() >= give_up_at:
            raise Refused(f"provider {provider_id} is being refreshed just now: try again in a minute")
        await asyncio.sleep(0.1)


async def _revoke(runtime: Context, state: TokenState) -> bool | None:
    """Whether the provider has ended the grant; None when it could not be asked."""
    integration = runtime.integrations.get(state.provider_key)
    if state.generation is None or not state.access_token:
        return False
    if integration is None:
        return None
    unseal, bound = runtime.encryption.unseal, (state.provider_id, state.generation, state.key_id)
    try:
        access = unseal(state.access_token, provider_id=bound[0], kind="access", generation=bound[1], key_id=bound[2])
        refresh = state.refresh_token and unseal(
            state.refresh_token, provider_id=bound[0], kind="refresh", generation=bound[1], key_id=bound[2]
        )
        return await revocation.end_grant(
            runtime, integration, state.provider_id, access_token=access, refresh_token=refresh
        )
    except EncryptionError as error:
        log.warning("revocation_failed", provider_id=str(state.provider_id), error=type(error).__name__, kept="nothing")
        return False
    except (ProviderError, TimeoutError) as error:
        log.warning(
            "revocation_failed",
            provider_id=str(state.provider_id),
            error=type(error).__name__,
            kept="the grant",
            next="tried again by the upkeep worker",
        )
        return None


def _integration(runtime: Context, provider_key: str) -> Integration:
    integration = runtime.integrations.get(provider_key)
    if integration is None:
        raise NotFound(f"no integration {provider_key} is enabled; INTEGRATIONS has: {', '.join(runtime.integrations)}")
    return integration


def _checked(user_id: UUID, provider_key: str, alias: str) -> ProviderCreate:
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


def _hash(state: str) -> bytes:
    return hashlib.sha256(state.encode()).digest()
