"""Applications that sign their calls with an RSA key of their own (RS256), for stand-ins of such providers."""

from __future__ import annotations

from typing import cast

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from worker.sandbox.clock import Clock
from worker.sandbox.wire import Request

PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQCuIccb6qUrgdxn
xP6m6h4MMFweRUON/sUrsNQT6Qgb2v528/jkow7TLE+oBTrwEKE8+tWZHBDj5sJx
04wibs3GpTc3pAgToc8hWgnz1ke7fFRPlLxNg1IlyuW/5lalVm2pufuH4AR0Lj/k
4JrTagajHGnkLE1MgRwT2x83GKJVGX8zAbWQ6c9K/lh00hxrzn2UJA7EvZlY9Kq4
1SdVqyjAYNhXsX5ngUEp3WFMWReJ80x6LcRr7iYQRA2GElAtdUsqgB0vw8yt4erl
yKdYNltxyr8Mz+aqR+RVRFuM3zjmZO73qZn1dH9ild/UAGP/JbtBHcm8ifwDz+YD
XlMuStghAgMBAAECggEAAjTU9dP+gJNsqR2Kr6+K7rlnvjQMEkiGhwv+ilU+XQ8x
TW1Z9TIVUs4RurdJcxepQCfAsE5cVTofTJuGZjx9+8ssH/BcI3BX1FX0hyDRixA2
oUUcZBikRp/p7IlZ0ugXC6Ea2f9+QidnEXQnG6nd26miGqbVDYGCF/fqAiPo93Sn
cRcHvWGs0fulI/eDyenbTSbFpbZx3xTtbkhct+Ziz8q6dgdW+POfA4corj0wEYXz
UDJKz1fRFYwYmOfR0eTv6XafDnUFmunc3wW39xH1ldL0DId1S3H5oBNvKthky+OM
mNIeTpQayq1UAQio9SYWHH+4si4U4vvRNbCqKbQiAQKBgQD0cbfFxgm745ma9c5Y
3a2DINvM5A1mdCEYkmbBq1QQodJmDM7tx89ZYVCCTBZDSCaeoyacJEfBSWZkGMoy
skWli68sKyT2ZScZ3Xrcsa+3gSRsKsG+r7rz1yOIWiThMc8nP1UjRThnx/akwX7u
HNI4FkT7F+1HELUT80yewqPsOQKBgQC2XSK2sca79NCKUS+9Mh9e4xsAXy4bfKBc
Yc8i/rduA7FEL7Grqb875jc6EbBcTMTGlK7slcLe7jWKSiHJl69WNLmZIfHueTuf
bxbb6v0RBDbDgUhKmRxkwxqlXMo8vF7hAjid7x8PmB5neiGl6YbK4QiIA7G2Gdri
XmmMuSAbKQKBgAzO8JwyVkw8Ds5p1tgdNXxLenjv8ivOJfXNpgi723nLoOSsAyO+
doTubnOFXR1FaJCjZ+CCnifomq7gBahGYxPbj+A2moc2oaffTRLHVLe+0pPAYcqG
Fru0KC562rfaDkq2LNXeSKhXd/sGEIqVhAZgVFj71fkFTRewhfFDracxAoGBAKob
PmJEeiihOFWNXYaR1olgNrOmFRA2tC74XYs7JkdM0nHUO1rxQBzTpfhYv7WZNoQ1
9OVi3R+t++s/Mz0kbL1w+R9Kdq4IEAGsUhpZnC3fTGYZliFfqQikpZpSb6Mv4yDo
PX+0qbiWIOZNGk31A3MDbj3RlFdUzsQRZUuK89PhAoGBANXtElPyalB/YpECTy+A
AOVLgMLwErA9jEzUSq5ENNQpSg0QwSdPzLHJfeOWnYYmdrDQIu33xV0TSZszLeCt
yCb2RXmTOiCKYKaWlyNSrCJV/rOr0WtT5Qtn3ehvebHwAfYiPIkfiQe+F9BLmVG7
FBX2P5NQe/GYwTcEuBq0ULc6
-----END PRIVATE KEY-----"""  # made up, and valid only in the sandbox
_LONGEST = 86_400
_PUBLIC_KEY = cast("RSAPublicKey", load_pem_private_key(PRIVATE_KEY.encode(), None).public_key())


class SignedCalls:
    """Checks the tokens of the made-up application, each once.

    Args:
        clock: the sandbox's clock.
        key_id: the id of the key, in the token's header.
        issuer: the claim `iss`.
        audience: the claim `aud`.
    """

    def __init__(self, clock: Clock, *, key_id: str, issuer: str, audience: str) -> None:
        self._clock, self._key_id, self._issuer, self._audience = clock, key_id, issuer, audience
        self._known: dict[str, float] = {}

    def admits(self, request: Request) -> bool:
        """Whether the request has a token that the application signed, for a day at most, and that has not expired."""
        token = request.header("authorization").removeprefix("Bearer ")
        if self._known.get(token, 0) > self._clock.now().timestamp():
            return True
        try:
            claims = jwt.decode(
                token,
                _PUBLIC_KEY,
                algorithms=["RS256"],
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["iat", "exp"]},
            )
            known = jwt.get_unverified_header(token).get("kid") == self._key_id
        except jwt.InvalidTokenError:
            return False
        if not known or claims["exp"] - claims["iat"] > _LONGEST:
            return False
        self._known[token] = claims["exp"]
        return True
