"""Encryption of stored tokens: Fernet with several keys, every ciphertext bound to its row.

Fernet has no associated data. So provider, kind and generation are encrypted together with the token, and checked when
it is decrypted: a ciphertext that was moved to another row is refused before anything is sent.
"""

from __future__ import annotations

from uuid import UUID

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from worker.errors import EncryptionError
from worker.settings import get_settings
from worker.settings.keys import parse_keys


class _Bound(msgspec.Struct, array_like=True):
    provider_id: UUID
    kind: str
    generation: int
    value: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Bound).decode


class EncryptionService:
    """Encrypts with the first configured key and decrypts with any.

    Args:
        keys: `id:key` pairs, comma-separated, as in `ENCRYPTION_KEYS`; read from the settings when left out.

    Raises:
        ConfigurationError: a key is missing, malformed or given twice. Names the variable, never a value.
    """

    def __init__(self, keys: str | None = None) -> None:
        parsed = parse_keys(keys if keys is not None else get_settings().encryption_keys.get_secret_value())
        self._by_id = {key_id: Fernet(key) for key_id, key in parsed.items()}
        self._any = MultiFernet(list(self._by_id.values()))
        self.key_id = next(iter(parsed))
        """Id of the key that encrypts."""

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Ids of all configured keys, first the one that encrypts."""
        return tuple(self._by_id)

    def encrypt(self, value: str) -> str:
        """Encrypts `value` without binding it to anything; for provider tokens use `seal`."""
        return self._by_id[self.key_id].encrypt(value.encode()).decode()

    def decrypt(self, ciphertext: str) -> str:
        """Decrypts what `encrypt` returned.

        Raises:
            EncryptionError: no configured key decrypts it.
        """
        return self._open(ciphertext, None).decode()

    def seal(self, value: str, *, provider_id: UUID, kind: str, generation: int) -> str:
        """Encrypts `value`; only `unseal` with the same provider, kind and generation decrypts it."""
        return self._by_id[self.key_id].encrypt(_encode(_Bound(provider_id, kind, generation, value))).decode()

    def unseal(
        self, ciphertext: str, *, provider_id: UUID, kind: str, generation: int, key_id: str | None = None
    ) -> str:
        """Decrypts what `seal` returned.

        Args:
            ciphertext: as stored.
            provider_id: the row that it was read from.
            kind: `access`, `refresh` or `journal`.
            generation: as stored in the same row.
            key_id: id of the key that encrypted it, when known; then the others need not be tried.

        Raises:
            EncryptionError: no configured key decrypts it, or it belongs to another row, kind or generation.
        """
        try:
            bound = _decode(self._open(ciphertext, key_id))
        except msgspec.MsgspecError:
            raise EncryptionError("the ciphertext is not bound to a provider; it was not used") from None
        if (bound.provider_id, bound.kind, bound.generation) != (provider_id, kind, generation):
            raise EncryptionError("the ciphertext belongs to another provider, kind or generation; it was not used")
        return bound.value

    def _open(self, ciphertext: str, key_id: str | None) -> bytes:
        if key_id is not None and key_id not in self._by_id:
            raise EncryptionError(f"no key named {key_id!r} is in ENCRYPTION_KEYS; put it back to read this token")
        fernet = self._by_id[key_id] if key_id is not None else self._any
        try:
            return fernet.decrypt(ciphertext.encode())
        except InvalidToken:
            raise EncryptionError("no key in ENCRYPTION_KEYS opens this ciphertext; nothing was changed") from None
