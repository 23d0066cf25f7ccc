"""What Enable Banking publishes of errors and banks, and the made-up application that the stand-in knows."""

from __future__ import annotations

from typing import Any

from worker.sandbox.wire import Answer, json_answer

APPLICATION_ID = "5f0c5a80-0000-4000-8000-00000000eb01"
REDIRECT_URI = "https://127.0.0.1"
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
-----END PRIVATE KEY-----"""  # valid only in this stand-in

_STATUSES = {
    "ASPSP_RATE_LIMIT_EXCEEDED": 429,
    "ASPSP_TIMEOUT": 408,
    "ASPSP_ERROR": 400,
    "ACCESS_DENIED": 403,
    "UNAUTHORIZED_ACCESS": 401,
    "EXPIRED_SESSION": 401,
    "REVOKED_SESSION": 401,
    "CLOSED_SESSION": 401,
    "SESSION_DOES_NOT_EXIST": 404,
    "ACCOUNT_DOES_NOT_EXIST": 404,
}
_NAMED = {
    "bad_request": "WRONG_REQUEST_PARAMETERS",
    "unauthorized": "UNAUTHORIZED_ACCESS",
    "forbidden": "ACCESS_DENIED",
    "not_found": "ACCOUNT_DOES_NOT_EXIST",
}
_BARE = {"method_not_allowed": 405, "internal": 500, "unavailable": 503}
_METHOD = {"approach": "REDIRECT", "hidden_method": False}
VALIDITY = 90 * 86_400
_Bank = tuple[str, str, list[tuple[str, str]], list[str]]
BANKS: tuple[_Bank, ...] = (
    ("Mock Bank", "FI", [("personal", "app"), ("business", "app"), ("business", "card")], []),
    ("Zweite Bank", "DE", [("personal", "redirect")], ["psuIpAddress", "psuUserAgent"]),
)


def bank(name: str, country: str, methods: list[tuple[str, str]], headers: list[str]) -> dict[str, Any]:
    """A bank as it is listed."""
    return {
        "name": name,
        "country": country,
        "logo": f"https://bank.example/{country}/",
        "psu_types": list(dict.fromkeys(kind for kind, _ in methods)),
        "auth_methods": [{**_METHOD, "name": method, "title": method, "psu_type": kind} for kind, method in methods],
        "maximum_consent_validity": VALIDITY,
        "beta": False,
        **({"required_psu_headers": headers} if headers else {}),
    }


def error(name: str) -> Answer:
    """A published error by its word, or by the sandbox's name for it."""
    if name in _BARE:
        return json_answer(_BARE[name], {"code": _BARE[name], "message": name})
    word = _NAMED.get(name, name)
    status = _STATUSES.get(word, 422)
    return json_answer(status, {"code": status, "message": word.replace("_", " ").capitalize(), "error": word})
