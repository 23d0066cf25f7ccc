"""What Enable Banking publishes of errors and banks, and the made-up application that the stand-in knows."""

from __future__ import annotations

from typing import Any

from worker.sandbox.wire import Answer, json_answer

APPLICATION_ID = "5f0c5a80-0000-4000-8000-00000000eb01"
REDIRECT_URI = "https://127.0.0.1"

_WORDS = {
    400: "ASPSP_ERROR",
    401: "UNAUTHORIZED_ACCESS EXPIRED_SESSION REVOKED_SESSION CLOSED_SESSION",
    403: "ACCESS_DENIED",
    404: "SESSION_DOES_NOT_EXIST ACCOUNT_DOES_NOT_EXIST",
    408: "ASPSP_TIMEOUT",
    429: "ASPSP_RATE_LIMIT_EXCEEDED",
}
_STATUSES = {word: status for status, words in _WORDS.items() for word in words.split()}
_NAMED = {
    "bad_request": "WRONG_REQUEST_PARAMETERS",
    "unauthorized": "UNAUTHORIZED_ACCESS",
    "forbidden": "ACCESS_DENIED",
    "not_found": "ACCOUNT_DOES_NOT_EXIST",
}
_BARE = {"method_not_allowed": 405, "internal": 500, "unavailable": 503}
_METHOD = {"approach": "REDIRECT", "hidden_method": False}
VALIDITY = 90 * 86_400


def _bank(name: str, country: str, *methods: tuple[str, str], headers: tuple[str, ...] = ()) -> dict[str, Any]:
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


BANKS = (
    _bank("Mock Bank", "FI", ("personal", "app"), ("business", "app"), ("business", "card")),
    _bank("Zweite Bank", "DE", ("personal", "redirect"), headers=("psuIpAddress", "psuUserAgent")),
)
"""The banks as they are listed."""


def error(name: str) -> Answer:
    """A published error by its word, or by the sandbox's name for it."""
    if name in _BARE:
        return json_answer(_BARE[name], {"code": _BARE[name], "message": name})
    word = _NAMED.get(name, name)
    status = _STATUSES.get(word, 422)
    return json_answer(status, {"code": status, "message": word.replace("_", " ").capitalize(), "error": word})
