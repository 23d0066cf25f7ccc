"""An application's own RSA key, and the short-lived JWTs that it signs instead of getting a token (RS256)."""

from __future__ import annotations

import time
from collections.abc import Callable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from worker.errors import ConfigurationError

SMALLEST_BITS = 2048
SHAPES = (r"\beyJ[\w-]{10,}\.eyJ[\w-]+\.[\w-]+", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]+")
"""Regular expressions for JWTs and for private keys (`Integration.secret_shapes`)."""
_SECONDS = 3600
_RENEWED_BEFORE = 300
_CLOCKS_DIFFER = 60
_MEND = (
    "make one with: openssl genrsa -out private.key 4096; register its certificate at the provider, and name the file"
    " in {variable}_FILE"
)


class ApplicationKey:
    """Signs JWTs. One of them is used for an hour by all calls of a process.

    Args:
        pem: the private key, as it is in its file.
        variable: the variable that holds it, for errors.
        key_id: the id under which the provider knows the key.
        issuer: the claim `iss`.
        audience: the claim `aud`.
        clock: returns seconds since the epoch.

    Raises:
        ConfigurationError: this is no RSA key, or it is too small or locked. The text shows nothing of the key.
    """

    def __init__(
        self,
        pem: str,
        *,
        variable: str,
        key_id: str,
        issuer: str,
        audience: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = _loaded(pem, variable)
        self._key_id = key_id
        self._claims = {"iss": issuer, "aud": audience}
        self._clock = clock
        self._token, self._until = "", 0.0

    def bearer(self) -> dict[str, str]:
        """The header that shows who calls. The token's lifetime begins a minute ago, because clocks differ."""
        now = self._clock()
        if not now < self._until - _RENEWED_BEFORE or now < self._until - _SECONDS:
            self._until = now + _SECONDS
            times = {"iat": int(now) - _CLOCKS_DIFFER, "exp": int(self._until)}
            headers = {"kid": self._key_id}
            import jwt  # a slow import, which those who only check the key do not need

            self._token = jwt.encode({**self._claims, **times}, self._key, algorithm="RS256", headers=headers)
        return {"authorization": f"Bearer {self._token}"}


def _loaded(pem: str, variable: str) -> RSAPrivateKey:
    mend = _MEND.format(variable=variable)
    try:
        key = load_pem_private_key(pem.strip().encode(), None)
    except TypeError:
        raise ConfigurationError(
            f"{variable}: the key is locked with a password. Write it without: openssl rsa -in LOCKED -out private.key"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{variable}: this is no private key in PEM format; {mend}") from None
    if not isinstance(key, RSAPrivateKey):
        raise ConfigurationError(f"{variable}: the key is of another kind than RSA; {mend}")
    if key.key_size < SMALLEST_BITS:
        raise ConfigurationError(
            f"{variable}: the key has {key.key_size} bits, and {SMALLEST_BITS} is the least; {mend}"
        )
    return key
