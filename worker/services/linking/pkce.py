"""PKCE (RFC 7636): makes the code verifier and its challenge, and encrypts the verifier until the exchange."""

from __future__ import annotations

import base64
import hashlib
import secrets
from uuid import UUID

from worker.errors import EncryptionError, Refused
from worker.services.encryption import EncryptionService

_KIND = "verifier"


def new_verifier() -> str:
    """86 random characters; RFC 7636 allows 43 to 128."""
    return secrets.token_urlsafe(64)


def challenge_of(verifier: str) -> str:
    """The S256 challenge, which is sent to the provider with the request for consent."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def seal_verifier(encryption: EncryptionService, verifier: str, *, user_id: UUID) -> str:
    """The verifier's ciphertext. It is bound to the user, since there is no provider yet."""
    return encryption.seal(verifier, provider_id=user_id, kind=_KIND, generation=0)


def unseal_verifier(encryption: EncryptionService, ciphertext: str, *, user_id: UUID) -> str:
    """Decrypts what `seal_verifier` returned.

    Raises:
        Refused: no configured key decrypts it, or it belongs to another user.
    """
    try:
        return encryption.unseal(ciphertext, provider_id=user_id, kind=_KIND, generation=0)
    except EncryptionError:
        raise Refused("the record of who began this link can no longer be read: start linking again") from None
