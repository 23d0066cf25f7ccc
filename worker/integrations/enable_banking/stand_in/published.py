"""What Enable Banking publishes of errors and banks, and the made-up application that the stand-in knows."""

from __future__ import annotations

from typing import Any

from worker.sandbox.wire import Answer, json_answer

APPLICATION_ID = "5f0c5a80-0000-4000-8000-00000000eb01"
REDIRECT_URI = "https://127.0.0.1"

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
