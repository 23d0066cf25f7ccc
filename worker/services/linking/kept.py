"""What a setup token gave, if it was not stored: it is kept for a day, for whoever enters the same token again.

Such a token works once, and few providers have a call that ends what it gives. So a link that is refused after the
exchange, for example because the login is linked already, must not cost the user what came for the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from worker.crud import revocations
from worker.integrations.kit.base import TokenAnswer
from worker.integrations.kit.integration import Integration
from worker.models import ProviderCreate
from worker.process.logger import Logger
from worker.services.context import Context
from worker.services.linking.revocation import plain

log = Logger(__name__)

TIME = timedelta(days=1)
"""How long it is kept after it was last entered. Then it is ended like any other grant that nobody has, if possible."""


def name_of(integration: Integration, provider_in: ProviderCreate, form: Mapping[str, str]) -> str | None:
    """By what it is found again: a digest of the user and of what was entered, without spaces and line breaks.

    None if what was entered is not of the kind that works once; then nothing is kept.
    """
    if not integration.link_kind.works_once:
        return None
    entered = ["".join(value.split()) for value in form.values()]
    text = "\n".join([str(provider_in.user_id), provider_in.provider_key, *entered])
    return f"once:{sha256(text.encode()).hexdigest()}"


class Kept(NamedTuple):
    """What was kept: under which id in `revocations`, and the answer that came for the token."""

    id: UUID
    answer: TokenAnswer


async def find(
    runtime: Context, integration: Integration, provider_in: ProviderCreate, form: Mapping[str, str]
) -> Kept | None:
    """What is kept for this user and these entries; None if nothing is. It stays kept until a link takes it.

    Raises:
        EncryptionError: no configured key decrypts it.
        Unavailable: Postgres is out of reach.
    """
    name = name_of(integration, provider_in, form)
    if name is None:
        return None
    grant = await runtime.db(revocations.hold, provider_key=integration.key, external_id=name, time=TIME)
    if grant is None:
        return None
    log.info("kept_grant_is_used", provider_key=integration.key)
    access, refresh = plain(runtime, grant)
    return Kept(grant.id, TokenAnswer(access, refresh_token=refresh))
