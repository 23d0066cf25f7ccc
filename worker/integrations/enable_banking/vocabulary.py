"""Tables that map Enable Banking's words and errors to ours."""

from __future__ import annotations

import re

from worker import errors
from worker.integrations.kit.taxonomy import Rule, by_code, by_status
from worker.integrations.kit.words import by_word
from worker.models.vocabulary import AccountType, TransactionStatus

PERIOD_REFUSED = frozenset({"WRONG_TRANSACTIONS_PERIOD", "PERIOD_INVALID"})
SHORTER = (89, 60, 30)
_OF_THE_SESSION = ("EXPIRED_SESSION", "CLOSED_SESSION", "REVOKED_SESSION", "SESSION_DOES_NOT_EXIST")

_ALWAYS = (
    *by_code(
        errors.AppMisconfigured,
        "AUTHORIZATION_NOT_PROVIDED",
        "ACCESS_DENIED",
        "UNAUTHORIZED_IP",
        "INVALID_HOST",
        "NO_ACCOUNTS_ADDED",
        "REDIRECT_URI_NOT_ALLOWED",
    ),
    *by_code(errors.InstitutionDown, "ASPSP_ERROR", "ASPSP_TIMEOUT"),
    *by_code(errors.BadRequest, *PERIOD_REFUSED),
    Rule(errors.ReauthRequired, code="ASPSP_PSU_ACTION_REQUIRED"),
    Rule(errors.RateLimited, code="ASPSP_RATE_LIMIT_EXCEEDED", scope=errors.Scope.ACCOUNT),
)
RULES = (
    *_ALWAYS,
    *by_code(errors.ReauthRequired, *_OF_THE_SESSION, "WRONG_SESSION_STATUS"),
    *by_code(errors.ReauthRequired, "WRONG_AUTHORIZATION_CODE", "EXPIRED_AUTHORIZATION_CODE", "ALREADY_AUTHORIZED"),
    Rule(errors.AppMisconfigured, code="UNAUTHORIZED_ACCESS"),
    *by_status(errors.Forbidden, 401, 403),
)
ACCOUNT_RULES = (
    # Only the session itself says whether the login needs its user: some banks answer these for one account alone.
    *_ALWAYS,
    *by_code(errors.Forbidden, *_OF_THE_SESSION, "UNAUTHORIZED_ACCESS"),
    *by_code(errors.AccountGone, "ACCOUNT_DOES_NOT_EXIST", "ASPSP_ACCOUNT_NOT_ACCESSIBLE", "INVALID_ACCOUNT_ID"),
    *by_status(errors.Forbidden, 401, 403),
    *by_status(errors.AccountGone, 404),
)
"""Rules for paths that contain an account."""

UNFINISHED = frozenset({"PENDING_AUTHORIZATION", "RETURNED_FROM_BANK"})
"""States in which the user has not consented yet; in AUTHORIZED a session works, and all others need the user."""

ACCOUNT_TYPES = {
    "CACC": (AccountType.DEPOSITORY, "checking"),
    "CASH": (AccountType.DEPOSITORY, "cash"),
    "SVGS": (AccountType.DEPOSITORY, "savings"),
    "CARD": (AccountType.CREDIT, "credit_card"),
    "LOAN": (AccountType.LOAN, "loan"),
}

STATUSES = by_word(
    (TransactionStatus.POSTED, "BOOK"),
    (TransactionStatus.PENDING, "PDNG HOLD SCHD"),
    (TransactionStatus.CANCELED, "CNCL RJCT"),
)

# The first of these that a bank states counts. Kinds of "available" come last: they may contain an overdraft.
CURRENT = ("CLBD", "ITBD", "XPCD", "CLAV", "ITAV")
AVAILABLE = ("CLAV", "ITAV", "FWAV")

NO_REFERENCE = re.compile(r"\d{4}-\d\d-\d\d[.-]\d+|NOTPROVIDED|NONREF|", re.IGNORECASE)
"""Entry references that name no transaction: a place within a day, which moves, or a word that says so."""

USUAL_ZONE = "Europe/Paris"
ZONES = by_word(
    ("Europe/Helsinki", "FI EE LV LT RO BG GR CY"),
    ("Europe/London", "GB IE PT"),
    ("Atlantic/Reykjavik", "IS"),
)
"""Time zones of banks by country, by whose day they count calls; `USUAL_ZONE` for all others."""
