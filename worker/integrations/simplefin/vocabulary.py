"""Tables that map SimpleFIN's words and errors to ours."""

from __future__ import annotations

from datetime import timedelta

from worker.errors import BadPayload, Forbidden, InstitutionDown, RateLimited, ReauthRequired, Scope
from worker.integrations.kit.taxonomy import Rule, by_status
from worker.models.vocabulary import AccountType

RULES = (
    *by_status(ReauthRequired, 401, 403, reason="access_revoked"),
    Rule(Forbidden, status=402, reason="payment_required"),
)

_BANK, _SLOWER = Scope.INSTITUTION, timedelta(hours=6)
NOTICES = (
    # What came with such a warning is stored, and then the login waits.
    Rule(RateLimited, text="too many requests", reason="use_warned", scope=Scope.PROVIDER, wait=_SLOWER),
    Rule(RateLimited, text="rate limit", reason="use_warned", scope=Scope.PROVIDER, wait=_SLOWER),
    Rule(RateLimited, text="per day", reason="use_warned", scope=Scope.PROVIDER, wait=_SLOWER),
    Rule(ReauthRequired, code="gen.auth", reason="access_revoked"),
    Rule(ReauthRequired, code="con.auth", reason="connection_needs_user", scope=_BANK),
    Rule(InstitutionDown, code="con.", reason="connection_failed", scope=_BANK),
    Rule(InstitutionDown, code="act.missingdata", reason="account_data_missing", scope=_BANK),
    Rule(InstitutionDown, code="act.", reason="account_failed", scope=_BANK),
    # Version 1 has no codes.
    Rule(ReauthRequired, code="", text="attention", reason="connection_needs_user", scope=_BANK),
    Rule(ReauthRequired, code="", text="auth", reason="connection_needs_user", scope=_BANK),
    Rule(BadPayload, reason="unknown_notice", scope=_BANK),
)
HARMLESS = "exceeds recommended range"  # the Bridge says so above 45 days, and sends all that was asked for
CAPPED = "was capped"  # the Bridge says so above 90 days: it has left days out
SAFE_DAYS = 44

# The protocol has no types of accounts: the first of these words in the account's name decides.
ACCOUNT_WORDS = (
    ("checking", (AccountType.DEPOSITORY, "checking")),
    ("saving", (AccountType.DEPOSITORY, "savings")),
    ("mortgage", (AccountType.LOAN, "mortgage")),
    ("loan", (AccountType.LOAN, "loan")),
    ("card", (AccountType.CREDIT, "credit_card")),
    ("brokerage", (AccountType.INVESTMENT, "brokerage")),
)
