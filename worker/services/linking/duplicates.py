"""Refuses to link a login a second time by mistake: its accounts and transactions would all be there twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from worker.crud import links
from worker.crud.database import OpenTransaction
from worker.crud.identity import duplicates
from worker.crud.sync.identity import same_account
from worker.errors import ProviderError, Taken, Unavailable
from worker.integrations.kit.base import Caller, TokenAnswer
from worker.integrations.kit.integration import Integration
from worker.models import ProviderCreate
from worker.models.records import AccountRecord
from worker.process.logger import Logger
from worker.services.context import Context

log = Logger(__name__)

ANYWAY = "anyway"
"""The field of a form with which a person says that the login is to be linked a second time all the same."""


class LinkedAlready(Taken):
    """The login is linked under another name already; nothing was linked."""


async def refuse_told(
    runtime: Context, integration: Integration, provider_in: ProviderCreate, form: Mapping[str, str], *, target_id: UUID
) -> None:
    """Compares the accounts that the provider's own form has told of with those of the user's other logins.

    This is before anything is exchanged, so that there is no new consent to end. If nothing was told, or Postgres does
    not answer, nothing is compared. Raises `LinkedAlready`.
    """
    if told := integration.accounts_told(form):
        await _compare(runtime, integration, provider_in, told, target_id=target_id, exchanged=False)


async def refuse_second(
    runtime: Context, integration: Integration, provider_in: ProviderCreate, answer: TokenAnswer, *, target_id: UUID
) -> None:
    """Compares the accounts of a new grant with those of the user's other logins.

    If the provider or Postgres does not answer, nothing is compared, and linking goes on. It also goes on if the
    provider's own id of the login is that of a linked one: that one gets the grant, whatever it is called.

    Args:
        runtime: the process's context.
        integration: of the new grant.
        provider_in: the login that is linked.
        answer: the new grant.
        target_id: the provider that is to get the grant.

    Raises:
        LinkedAlready: all accounts of the one are accounts of the other.
    """
    if not integration.can_list_accounts:
        return
    caller, (user_id, key) = Caller(provider_id=target_id, manual=True), (provider_in.user_id, provider_in.provider_key)

    def may_be_second(session: OpenTransaction) -> bool:
        external_id = answer.external_id
        if external_id and links.has_login(session, provider_id=target_id, provider_key=key, external_id=external_id):
            return False
        return duplicates.has_others(session, user_id=user_id, provider_key=key, besides=target_id)

    try:
        if not await runtime.db(may_be_second):
            return  # most people have one login, and its provider need not be asked
        listed = await integration.list_accounts(caller, access_token=answer.access_token)
    except (ProviderError, Unavailable) as error:
        log.warning("duplicates_not_looked_for", provider_key=integration.key, error=type(error).__name__)
        return
    await _compare(runtime, integration, provider_in, listed, target_id=target_id, exchanged=True)


async def _compare(
    runtime: Context,
    integration: Integration,
    provider_in: ProviderCreate,
    listed: Sequence[AccountRecord],
    *,
    target_id: UUID,
    exchanged: bool,
) -> None:
    try:
        found = await runtime.db(
            duplicates.same_login,
            listed=listed,
            user_id=provider_in.user_id,
            provider_key=provider_in.provider_key,
            besides=target_id,
            same=same_account if exchanged else duplicates.looks_same,
        )
    except Unavailable as error:
        log.warning("duplicates_not_looked_for", provider_key=integration.key, error=type(error).__name__)
        return
    if found is None:
        return
    log.info("login_linked_already", provider_id=str(found.provider_id), accounts=len(found.accounts))
    kind, then = integration.link_kind, ""
    ended = "nothing was linked, and the new consent is ended" if exchanged else "nothing was linked or exchanged"
    if exchanged and kind.works_once:
        labels = " and ".join(field.label for field in kind.fields)
        ended = f"and nothing was linked. What came for the {labels} is kept for a day: enter the same {labels} again"
        then = f", and enter the same {labels}"
    raise LinkedAlready(
        f'this login is linked already as "{found.alias}": it has the same accounts ({", ".join(found.accounts)}).'
        f" That login was kept as it is, {ended}",
        for_operators=(
            f"add --anyway to your command{then} to link it a second time all the same. To link that one again:"
            f' dashtam link {integration.key} --user {provider_in.user_id} --alias "{found.alias}"'
        ),
        for_clients=(
            f"to link that one again, use its id {found.provider_id}; to link this login a second time all the same,"
            f' add "{ANYWAY}": "yes" to the form'
        ),
    )
