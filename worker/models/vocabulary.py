"""The fixed sets of words that rows may hold. Subtypes are not fixed: providers add new ones."""

from __future__ import annotations

from enum import StrEnum


class ProviderStatus(StrEnum):
    """State of a linked login. The schedule refreshes and syncs only `active` ones."""

    PENDING = "pending"  # created, no token yet
    ACTIVE = "active"
    NEEDS_REAUTH = "needs_reauth"  # only the user can repair it
    PAUSED = "paused"  # an operator has paused it
    UNLINKED = "unlinked"  # ended by the user or an operator; rows are kept

    def what_to_do(self, provider_id: object) -> str:
        """How to make the login active again, worded as the end of a sentence that names its state."""
        return _WHAT_TO_DO[self.value].format(provider_id)

    def what_a_client_does(self, provider_id: object) -> str:
        """The same for a program that uses the HTTP API."""
        if self is ProviderStatus.PAUSED:
            return "an operator has to resume it"
        return f"its user must link it: POST /api/v1/providers/{provider_id}/authorization"


_WHAT_TO_DO = {
    "pending": "it was never linked; the command that links it is told by: dashtam explain {}",
    "active": "nothing needs to be done",
    "needs_reauth": "its user must link it again; the command is told by: dashtam explain {}",
    "paused": "resume it first: dashtam providers resume {}",
    "unlinked": "it was unlinked; the command that links it again is told by: dashtam explain {}",
}


class LoginState(StrEnum):
    """State of a login, in the words of the HTTP API."""

    PENDING = "pending"  # never linked
    ACTIVE = "active"
    EXPIRED = "expired"  # the consent has ended by itself
    REVOKED = "revoked"  # the user, an operator or the provider has ended it
    ERROR = "error"  # its token was lost
    PAUSED = "paused"


class LinkSessionState(StrEnum):
    """State of a link session."""

    OPEN = "open"
    LINKED = "linked"
    CANCELLED = "cancelled"  # by the person in the browser
    EXPIRED = "expired"  # too late, or the API key that made it was revoked


class AccessState(StrEnum):
    """State of a SimpleFIN access."""

    UNCLAIMED = "unclaimed"  # its setup token waits for the app
    EXPIRED = "expired"  # the setup token was not exchanged in time
    IN_USE = "in use"
    REVOKED = "revoked"


class AttemptStatus(StrEnum):
    """Outcome of one refresh attempt."""

    SENT = "sent"  # written before the call; if it stays so, the outcome is unknown
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    DEFERRED = "deferred"
    NOT_SENT = "not_sent"  # the request was certainly never sent


class RunStatus(StrEnum):
    """State of a sync run."""

    RUNNING = "running"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


ROW_OUTCOMES = ("added", "changed", "unchanged", "removed", "quarantined")
"""What a run counts for the rows of each noun; the table of runs has a column for each."""


class Trigger(StrEnum):
    """Who asked for a refresh or a sync."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    LINK = "link"
    SYNC = "sync"  # a sync that found an expired access token


class AccountType(StrEnum):
    """Types of accounts: FDX categories and Plaid types, merged."""

    DEPOSITORY = "depository"
    CREDIT = "credit"
    LOAN = "loan"
    INVESTMENT = "investment"
    CRYPTO = "crypto"
    INSURANCE = "insurance"
    OTHER = "other"


class AccountStatus(StrEnum):
    """State of an account. `inaccessible` means that it is missing from the latest complete listing."""

    ACTIVE = "active"
    CLOSED = "closed"
    INACCESSIBLE = "inaccessible"


class TransactionType(StrEnum):
    """Type of a transaction; the open `subtype` says more."""

    TRADE = "trade"
    INCOME = "income"
    REINVESTMENT = "reinvestment"
    TRANSFER = "transfer"
    PAYMENT = "payment"
    FEE = "fee"
    TAX = "tax"
    CORPORATE_ACTION = "corporate_action"
    ADJUSTMENT = "adjustment"
    OTHER = "other"


class TransactionStatus(StrEnum):
    """State of a transaction. `removed` is the tombstone of a row that the provider has withdrawn."""

    PENDING = "pending"
    POSTED = "posted"
    FAILED = "failed"
    CANCELED = "canceled"
    REMOVED = "removed"


class LiabilityKind(StrEnum):
    """Kinds of liabilities."""

    CREDIT = "credit"  # a credit card
    LINE_OF_CREDIT = "line_of_credit"
    LOAN = "loan"
    MORTGAGE = "mortgage"
    STUDENT = "student"


class SecurityType(StrEnum):
    """Type of a security."""

    EQUITY = "equity"
    ETF = "etf"
    MUTUAL_FUND = "mutual_fund"
    OPTION = "option"
    FIXED_INCOME = "fixed_income"
    CASH = "cash"
    CRYPTO = "crypto"
    FUTURE = "future"
    FOREX = "forex"
    DERIVATIVE = "derivative"
    OTHER = "other"


class KeyScope(StrEnum):
    """Permissions of an API key."""

    READ = "read"  # read logins and their rows
    LINK = "link"  # create, rename, link, unlink and remove logins
    OPERATE = "operate"  # ask for syncs and refreshes
    HOOKS = "hooks"  # add, change and remove hooks that we send


class EventType(StrEnum):
    """What a subscription can be told."""

    SYNC_COMPLETED = "sync.completed"  # a run has ended that stored something
    PROVIDER_LINKED = "provider.linked"  # for the first time, again, or its token was found again
    PROVIDER_NEEDS_REAUTH = "provider.needs_reauth"
    PROVIDER_GRANT_EXPIRING = "provider.grant_expiring"
    PROVIDER_UNLINKED = "provider.unlinked"
    INTEGRATION_ALARM = "integration.alarm"  # it is paused because it refuses our application, or it has an outage
    INTEGRATION_RECOVERED = "integration.recovered"
    HOOK_TEST = "hook.test"  # somebody has asked for it; it is sent to one subscription alone


OF_OPERATORS = frozenset({EventType.INTEGRATION_ALARM, EventType.INTEGRATION_RECOVERED})
"""Events that concern no single user: only an operator's subscription is told of them."""
