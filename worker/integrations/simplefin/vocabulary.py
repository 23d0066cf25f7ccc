"""Tables that map SimpleFIN's words and errors to ours."""

from __future__ import annotations

from datetime import timedelta

from worker.errors import BadPayload, Forbidden, InstitutionDown, RateLimited, ReauthRequired
from worker.integrations.kit.taxonomy import Rule, by_status
from worker.models.vocabulary import AccountType

RULES = (
    *by_status(ReauthRequired, 401, 403, reason="access_revoked"),
    Rule(Forbidden, status=402, reason="payment_required"),
)

CODES = frozenset({"gen.auth", "con.auth", "act.missingdata"})  # others count as their group: `gen.`, `con.`, `act.`
NOTICES = (
    *(Rule(RateLimited, text=text, reason="use_warned") for text in ("too many requests", "rate limit", "per day")),
    Rule(ReauthRequired, code="gen.auth", reason="access_revoked"),
    Rule(ReauthRequired, code="con.auth", reason="connection_needs_user"),
    Rule(InstitutionDown, code="con.", reason="connection_failed"),
    Rule(InstitutionDown, code="act.missingdata", reason="account_data_missing"),
    Rule(InstitutionDown, code="act.", reason="account_failed"),
    # Version 1 has no codes.
    *(Rule(ReauthRequired, code="", text=text, reason="connection_needs_user") for text in ("attention", "auth")),
    Rule(BadPayload, reason="unknown_notice"),
)
HARMLESS = "exceeds recommended range"  # the Bridge says so above 45 days, and sends all that was asked for
CAPPED = "was capped"  # the Bridge says so above 90 days: it has left days out
SAFE_DAYS = 44
SLOWER = timedelta(hours=6)

# The protocol has no types of accounts: the first of these words in the account's name decides.
ACCOUNT_WORDS = (
    ("checking", AccountType.DEPOSITORY, "checking"),
    ("saving", AccountType.DEPOSITORY, "savings"),
    ("mortgage", AccountType.LOAN, "mortgage"),
    ("loan", AccountType.LOAN, "loan"),
    ("card", AccountType.CREDIT, "credit_card"),
    ("brokerage", AccountType.INVESTMENT, "brokerage"),
)
