"""Completes a link, a new one or one that replaces an earlier link: the user's consent becomes a stored token.

Tokens that are not encrypted exist only in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from msgspec import structs

from worker.crud import links, revocations
from worker.crud.database import OpenTransaction
from worker.crud.links import Begun, LinkTarget
from worker.crud.refresh.records import NewToken
from worker.crud.revocations import Waiting
from worker.errors import Refused, Transient, Unavailable
from worker.integrations.kit.base import Caller, TokenAnswer
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import CODE, CODE_VERIFIER
from worker.integrations.kit.oauth2 import parse_callback
from worker.models import ProviderCreate, new_id
from worker.process.logger import Logger
from worker.services.context import Context
from worker.services.hooks.addresses import want_address
from worker.services.linking import claims, duplicates, kept, pkce, revocation
from worker.services.linking.begin import allows_second, checked, enabled, hashed, state_in
from worker.services.refresh import journal
from worker.services.refresh.lease import store_in_time
from worker.services.refresh.plan import seal_answer

log = Logger(__name__)


async def complete_link(
    runtime: Context, callback_url: str, *, holder: str, expected: ProviderCreate | None = None
) -> UUID:
    """Completes what `begin_link` began: the URL of the callback becomes a linked provider.

    Unless `begin_link` was told otherwise, the login must not be linked under another alias.

    If the same user and alias, or the same login, is linked already, it gets the new token: its generation increases by
    one and its status becomes active.

    Args:
        runtime: the process's context.
        callback_url: the complete URL to which the user was sent back.
        holder: the secret that `begin_link` returned.
        expected: the login that must have been begun. A state of another login completes nothing and stays valid.

    Returns:
        The provider's id.

    Raises:
        Declined: the user did not give consent.
        LinkedAlready: it is linked under another alias; the new consent is ended.
        Refused: the URL is not the callback's; or its state is unknown, expired, used, or was begun elsewhere; or its
            link session has ended.
        ProviderError: the provider refused the code; begin again.
        Unavailable: Postgres is out of reach; if the provider has already answered, the token is in the journal.
    """
    state = state_in(urlsplit(callback_url.strip()).query)
    state_hash = hashed(state)

    def take(session: OpenTransaction) -> Begun | None:
        begun = links.consume_state(session, state_hash=state_hash, holder_hash=hashed(holder), expected=expected)
        if begun is not None and begun.session_id is not None:
            claims.take(session, begun.session_id, seconds=runtime.settings.lease_seconds)
        return begun

    begun = await runtime.db(take)
    if begun is None:
        raise Refused("this link was used before, has expired, or was not begun here: start linking again")
    async with claims.released(runtime, begun.session_id):
        integration = enabled(runtime, begun.provider_in.provider_key)
        form = {CODE: parse_callback(callback_url, integration.redirect_uri).code}
        if begun.code_verifier is not None:
            form[CODE_VERIFIER] = pkce.unseal_verifier(
                runtime.encryption, begun.code_verifier, user_id=begun.provider_in.user_id
            )
        guarded = not allows_second(state)
        return await _link(runtime, integration, begun.provider_in, form, begun.session_id, guarded=guarded)


async def link_with_form(
    runtime: Context,
    provider_key: str,
    user_id: UUID,
    alias: str,
    form: Mapping[str, str],
    *,
    session_id: UUID | None = None,
    anyway: bool = False,
) -> UUID:
    """Links a provider with what the user filled in (`link_kind.fields`); otherwise like `complete_link`.

    With `session_id`, this link session, which the caller has claimed, ends with the link. With `anyway`, the login may
    be linked under another alias already.

    Raises:
        LinkedAlready: it is, without `anyway`.
        Refused: this integration is linked by an address, or the form is incomplete.
    """
    integration = enabled(runtime, provider_key)
    kind = integration.link_kind
    if kind.redirects:
        raise Refused(f"{provider_key} is linked by consent at its authorise URL: start there")
    named = checked(user_id, provider_key, alias)
    return await _link(runtime, integration, named, kind.checked(form), session_id, guarded=not anyway)


@dataclass(frozen=True, slots=True)
class _Grant:
    """What is to be stored.

    Attributes:
        kept_as: the name under which it is kept if it is not stored; None if it is then ended at once.
        kept_id: the row under which it is kept already; None if it has just come from the provider.
    """

    integration: Integration
    provider_in: ProviderCreate
    answer: TokenAnswer
    target: LinkTarget
    session_id: UUID | None
    kept_as: str | None
    kept_id: UUID | None


async def _link(
    runtime: Context,
    integration: Integration,
    provider_in: ProviderCreate,
    form: Mapping[str, str],
    session_id: UUID | None,
    *,
    guarded: bool,
) -> UUID:
    if integration.reads_files and await runtime.db(links.has_other_login, provider_in=provider_in, external_id=None):
        raise Refused("files need to be linked only once, and this is done: import them into the login that is there")
    # The provider is created before the exchange, so that a token that cannot be stored can wait in the journal.
    target = await runtime.db(links.target, provider_in=provider_in)
    caller = Caller(provider_id=target.provider_id, manual=True)
    if guarded:
        await _refuse_told(runtime, integration, target, provider_in, form)
    kept_id, kept_as = None, kept.name_of(integration, provider_in, form)
    if (found := await kept.find(runtime, integration, provider_in, form)) is not None:
        kept_id, answer = found
    else:
        try:
            async with asyncio.timeout(runtime.settings.lease_seconds):
                answer = await integration.exchange(caller, form, now=target.now)
        except TimeoutError:
            raise Transient("deadline") from None
    grant = _Grant(integration, provider_in, answer, target, session_id, kept_as, kept_id)
    try:
        if guarded:
            await duplicates.refuse_second(runtime, integration, provider_in, answer, target_id=target.provider_id)
        provider_id = await store_in_time(runtime, partial(_store, runtime=runtime, grant=grant))
    except Unavailable as error:
        if kept_id is not None:
            raise Unavailable("Postgres is away; what came for it is still kept: enter the same again") from error
        await journal.keep(runtime, [_sealed(runtime, grant, target)])
        raise Unavailable("Postgres is away; the login is in the journal until it can be stored") from error
    except Exception:
        await _abandon(runtime, grant)
        raise
    log.info("linked", provider_id=str(provider_id), provider_key=integration.key, flags=list(answer.flags))
    await revocation.revoke_soon(runtime, provider_id)  # the grant that this link has replaced
    await want_address(runtime, provider_id, integration.key)
    return provider_id


async def _refuse_told(
    runtime: Context, integration: Integration, target: LinkTarget, provider_in: ProviderCreate, form: Mapping[str, str]
) -> None:
    try:
        await duplicates.refuse_told(runtime, integration, provider_in, form, target_id=target.provider_id)
    except duplicates.LinkedAlready:
        await runtime.db(links.abandon, provider_in=provider_in, external_id=None)
        raise


def _store(session: OpenTransaction, *, runtime: Context, grant: _Grant) -> UUID:
    # During the exchange a refresh may have ended, another link may have been stored, or the provider may have been
    # removed. So the row that the grant belongs to is read now.
    if grant.kept_id is not None and not revocations.take(session, id_=grant.kept_id):
        raise Refused("what came for it has just been linked by another request; nothing was changed")
    if grant.session_id is not None:
        claims.require_new(session, grant.session_id, grant.provider_in, external_id=grant.answer.external_id)
    ours = links.find_or_create(session, provider_in=grant.provider_in)
    target = links.target_of_login(session, provider_id=ours.id, external_id=grant.answer.external_id)
    links.store_grant(session, token=_sealed(runtime, grant, target), owner=uuid4())
    if grant.session_id is not None:
        claims.finish(session, grant.session_id, target.provider_id)
    return target.provider_id


async def _abandon(runtime: Context, grant: _Grant) -> None:
    """Removes a grant that was not stored: its unused provider here, and the consent at the provider, if it can be.

    Never raises. If its login is linked, the consent is left alone: it may be the one that is in use there. What came
    for a token that works once is first kept for a day, for whoever enters the same token again; if it was kept before,
    it still is.
    """
    answer, provider_id = grant.answer, grant.target.provider_id
    try:
        in_use = await runtime.db(links.abandon, provider_in=grant.provider_in, external_id=answer.external_id)
    except Unavailable:
        log.warning("link_left_behind", provider_id=str(provider_id), next="link it again under the same alias")
        return
    if in_use or grant.kept_id is not None:
        return
    sealed = _sealed(runtime, grant, grant.target)
    waiting = Waiting(
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
        name, after = (grant.kept_as, kept.TIME) if grant.kept_as else (answer.external_id, timedelta(0))
        await runtime.db(revocations.keep, grant=waiting, external_id=name, after=after)
        await revocation.revoke_soon(runtime, provider_id)
    log.warning("link_abandoned", provider_id=str(provider_id), kept=grant.kept_as is not None)


def _sealed(runtime: Context, grant: _Grant, target: LinkTarget) -> NewToken:
    sealed = seal_answer(
        runtime.encryption,
        grant.integration.refresh_policy,
        grant.answer,
        provider_id=target.provider_id,
        generation=target.generation,
        issued_at=grant.target.now,
        new_grant=True,
    )
    due_at = None if grant.integration.reads_files else sealed.sync_due_at
    return structs.replace(sealed, provider_key=grant.integration.key, sync_due_at=due_at)
