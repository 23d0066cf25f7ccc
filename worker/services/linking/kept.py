"""What a setup token gave, if it was not stored: it is kept for a day, for whoever enters the same token again.

Such a token works once, and few providers have a call that ends what it gives. So a link that is refused after the
exchange, for example because the login is linked already, must not cost the user what came for the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256

from worker.crud import revocations
from worker.integrations.kit.base import TokenAnswer
from worker.integrations.kit.integration import Integration
from worker.models import ProviderCreate
from worker.process.logger import Logger
from worker.services.context import Context
from worker.services.linking.revocation import plain

log = Logger(__name__)

TIME = timedelta(days=1)
"""How long it is kept. After that it is ended like any other grant that nobody has, where the provider allows it."""


def name_of(integration: Integration, provider_in: ProviderCreate, form: Mapping[str, str]) -> str | None:
    """By what it is found again: a digest of the user and of what was entered, without spaces and line breaks.

    None if what was entered is not of the kind that works once; then nothing is kept.
    """
    if not integration.link_kind.works_once:
        return None
    entered = ["".join(value.split()) for value in form.values()]
    text = "\n".join([str(provider_in.user_id), provider_in.provider_key, *entered])
    return f"once:{sha256(text.encode()).hexdigest()}"


async def take(
    runtime: Context, integration: Integration, provider_in: ProviderCreate, form: Mapping[str, str]
) -> TokenAnswer | None:
    """What was kept for this user and these entries; None if nothing was.

    Raises:
        EncryptionError: no configured key decrypts it.
        Unavailable: Postgres is out of reach.
    """
    name = name_of(integration, provider_in, form)
    if name is None:
        return None
    grant = await runtime.db(revocations.take, provider_key=integration.key, external_id=name)
    if grant is None:
        return None
    log.info("kept_grant_is_used", provider_key=integration.key)
    access, refresh = plain(runtime, grant)
    return TokenAnswer(access, refresh_token=refresh)
