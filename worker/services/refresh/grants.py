"""New grants that waited in the journal: each is stored, or kept until it is revoked at its provider."""

from __future__ import annotations

from uuid import UUID

from msgspec import structs

from worker.crud import links, revocations
from worker.crud.database import OpenTransaction
from worker.crud.refresh.records import NewToken
from worker.crud.revocations import Waiting
from worker.models import Provider, new_id
from worker.process.logger import Logger
from worker.services.encryption import EncryptionService
from worker.services.refresh.plan import unseal_answer

log = Logger(__name__)


def store(session: OpenTransaction, *, encryption: EncryptionService, token: NewToken, owner: UUID) -> bool:
    """Stores a grant as the generation after the present one, unless the user has linked or unlinked since then.

    Returns:
        Whether it was stored.

    Raises:
        EncryptionError: the entry does not belong to its provider.
        NotFound: the provider no longer exists.
        Refused: the login is linked by another user.
    """
    if links.was_overtaken(session, provider_id=token.provider_id, since=token.issued_at):
        return False
    target = links.target_of_login(session, provider_id=token.provider_id, external_id=token.external_id)
    values = unseal_answer(encryption, token)
    bound = {
        f"{kind}_token": encryption.seal(
            value, provider_id=target.provider_id, kind=kind, generation=target.generation + 1
        )
        for kind, value in values.items()
    }
    moved = structs.replace(
        token, provider_id=target.provider_id, generation=target.generation, key_id=encryption.key_id, **bound
    )
    links.store_grant(session, token=moved, owner=owner)
    return True


def give_up(session: OpenTransaction, *, token: NewToken) -> None:
    """Keeps a grant that was not stored until it is revoked at its provider.

    If its login is linked, nothing is done: it may be the same grant that is in use there.
    """
    provider = session.get(Provider, token.provider_id)
    provider_key = token.provider_key if provider is None else provider.provider_key
    if provider_key is None:
        log.warning(
            "grant_left_at_provider",
            provider_id=str(token.provider_id),
            error="the provider is gone and the entry does not name its integration",
            next="the user can end the access at the institution",
        )
        return
    if links.has_login(
        session, provider_id=token.provider_id, provider_key=provider_key, external_id=token.external_id
    ):
        return
    kept = Waiting(
        id=new_id(),
        provider_id=token.provider_id,
        provider_key=provider_key,
        reason="abandoned",
        generation=token.generation + 1,
        access_token=token.access_token,
        refresh_token=token.refresh_token,
        key_id=token.key_id,
    )
    revocations.keep(session, grant=kept, external_id=token.external_id)
