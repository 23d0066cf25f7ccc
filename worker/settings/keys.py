"""Reads the encryption keys from the configuration: `id:key` pairs, separated by commas."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from worker.errors import ConfigurationError


def parse_keys(text: str) -> Mapping[str, bytes]:
    """Key id → Fernet key, in the order given.

    Raises:
        ConfigurationError: there is no key, or one is malformed or given twice. The text names only the variable.
    """
    keys: dict[str, bytes] = {}
    for position, pair in enumerate((part.strip() for part in text.split(",") if part.strip()), start=1):
        key_id, colon, key = pair.partition(":")
        if not colon or not key_id:
            raise ConfigurationError(f"ENCRYPTION_KEYS: entry {position} is not of the form id:key")
        if any(sign.isspace() or not sign.isprintable() for sign in key_id):
            raise ConfigurationError(f"ENCRYPTION_KEYS: entry {position} has an invisible character in its id")
        if not _is_fernet_key(key):
            raise ConfigurationError(f"ENCRYPTION_KEYS: entry {position} is not a key of `dashtam keys generate`")
        if key_id in keys or key.encode() in keys.values():
            raise ConfigurationError(f"ENCRYPTION_KEYS: entry {position} repeats an id or a key")
        keys[key_id] = key.encode()
    if not keys:
        raise ConfigurationError("ENCRYPTION_KEYS: no key; `dashtam keys generate` prints one")
    return keys


def _is_fernet_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.encode("ascii"), altchars=b"-_", validate=True)) == 32
    except (binascii.Error, UnicodeEncodeError, ValueError):
        return False
