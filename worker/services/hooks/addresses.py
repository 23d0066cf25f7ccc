"""Makes sure that providers send the hooks about linked logins to our address: `WEB_PUBLIC_URL`.

A login whose address is unknown or another is checked; the check sets the address at the provider.
"""

from __future__ import annotations

from uuid import UUID

from worker.crud import hooks
from worker.errors import Unavailable
from worker.integrations.kit.integration import Integration
from worker.process.logger import Logger
from worker.services.context import Context

log = Logger(__name__)

_AT_ONCE = 1000


async def want_addresses(runtime: Context) -> None:
    """Makes the checks of logins due whose hooks do not go to our address: old links, or after a new address.

    Raises:
        Unavailable: Postgres is out of reach.
    """
    for key, integration in runtime.integrations.items():
        url = wanted_url(runtime, integration)
        if url is not None:
            await runtime.db(hooks.want_checks, provider_key=key, url=url, limit=_AT_ONCE)


async def want_address(runtime: Context, provider_id: UUID, provider_key: str) -> None:
    """The same for one login, which was just linked. If it cannot be recorded now, `want_addresses` does it later."""
    url = wanted_url(runtime, runtime.integrations[provider_key])
    if url is None:
        return
    try:
        await runtime.db(hooks.want_check, provider_id=provider_id, url=url)
    except Unavailable:
        log.warning("hook_address_not_wanted", provider_id=str(provider_id), next="upkeep does it within minutes")


def wanted_url(runtime: Context, integration: Integration) -> str | None:
    """The address to which the hooks about this integration's logins must go; None if none are asked for."""
    if integration.hooks is None or not integration.can_check:
        return None
    return runtime.settings.hook_url(integration.key)
