"""Tables that map SnapTrade's words and errors to ours."""

from __future__ import annotations

from worker.errors import AccessExpired, AccountGone, Forbidden, NotReady, RateLimited, ReauthRequired, Scope, Transient
from worker.integrations.kit.hooks import Ask
from worker.integrations.kit.hooks.events import Members
from worker.integrations.kit.limits import Limit
from worker.integrations.kit.taxonomy import Rule
from worker.integrations.kit.words import by_word
from worker.models.vocabulary import AccountStatus, AccountType, SecurityType, TransactionType

DISABLED = "connection_disabled"
RULES = (
    Rule(ReauthRequired, code="3003", reason=DISABLED, scope=Scope.ACCOUNT),
    Rule(ReauthRequired, status=402, reason=DISABLED, scope=Scope.ACCOUNT),
    Rule(NotReady, code="3012", reason="being_populated"),
    Rule(NotReady, status=425, reason="being_populated"),
    Rule(RateLimited, status=429, reason="throttled"),
    Rule(AccessExpired, status=401),
    Rule(Forbidden, status=403),
    Rule(AccountGone, status=404),
    Rule(Transient, code="3002", reason="brokerage_unavailable"),
)
LIMITS = (Limit("x-ratelimit-", Scope.APP), Limit("x-ratelimit-account-", Scope.ACCOUNT))

INVESTMENT = (AccountType.INVESTMENT, "brokerage")  # also of accounts of which SnapTrade knows no category
CATEGORIES = {"DEPOSIT": (AccountType.DEPOSITORY, "deposit"), "LOC": (AccountType.CREDIT, "line_of_credit")}
STATUSES = by_word((AccountStatus.CLOSED, "closed archived"), (AccountStatus.INACCESSIBLE, "unavailable"))

SECURITY_TYPES = by_word(
    (SecurityType.EQUITY, "stock adr cs ps ad"),
    (SecurityType.ETF, "etf et"),
    (SecurityType.MUTUAL_FUND, "mutualfund oef cef"),
    (SecurityType.CRYPTO, "crypto"),
    (SecurityType.FUTURE, "future"),
    (SecurityType.OPTION, "option"),
    (SecurityType.DERIVATIVE, "cfd"),
    (SecurityType.FIXED_INCOME, "bnd"),
)
"""By the kind of a position's instrument, and by the code of an activity's symbol."""

_TYPES = {
    TransactionType.TRADE: "BUY=buy SELL=sell OPTIONEXPIRATION=option_expiration OPTIONASSIGNMENT=option_assignment"
    " OPTIONEXERCISE=option_exercise",
    TransactionType.INCOME: "DIVIDEND=dividend SUBSTITUTE_DIVIDEND=substitute_dividend INTEREST=interest REBATE=rebate"
    " RETURN_OF_CAPITAL=return_of_capital",
    TransactionType.REINVESTMENT: "REI=dividend_reinvest",
    TransactionType.TRANSFER: "CONTRIBUTION=deposit WITHDRAWAL=withdrawal TRANSFER"
    " EXTERNAL_ASSET_TRANSFER_IN=security_in EXTERNAL_ASSET_TRANSFER_OUT=security_out"
    " INTERNAL_CASH_TRANSFER_IN=internal INTERNAL_CASH_TRANSFER_OUT=internal",
    TransactionType.FEE: "FEE",
    TransactionType.TAX: "TAX",
    TransactionType.CORPORATE_ACTION: "STOCK_DIVIDEND=stock_dividend SPLIT=split REVERSE_SPLIT=reverse_split"
    " SPINOFF=spinoff STOCK_MERGER=merger",
    TransactionType.ADJUSTMENT: "ADJUSTMENT",
}
_TOLD = ((kind, word.partition("=")) for kind, told in _TYPES.items() for word in told.split())
TYPES = {word: (kind, subtype or None) for kind, (word, _, subtype) in _TOLD}
"""Our type and subtype of each type of an activity; brokerages have others, too."""
NO_UNITS = frozenset({TransactionType.INCOME, TransactionType.FEE, TransactionType.TAX})
"""Here, `units` are those for which money was paid; none of them moved."""
MAYBE_NO_MONEY = frozenset({TransactionType.TRANSFER, TransactionType.CORPORATE_ACTION, TransactionType.ADJUSTMENT})
"""These, and options that end, may move units without money; then the amount is missing."""

HOOK_MEMBERS = Members("eventType", "userId", "oauthClientId", ids=("webhookId", "webookId"))
_SYNC = (
    "CONNECTION_ADDED CONNECTION_BROKEN CONNECTION_DELETED CONNECTION_FIXED CONNECTION_UPDATED NEW_ACCOUNT_AVAILABLE"
    " ACCOUNT_HOLDINGS_UPDATED ACCOUNT_REMOVED ACCOUNT_TRANSACTIONS_INITIAL_UPDATE ACCOUNT_TRANSACTIONS_UPDATED"
)
_NOTHING = "CONNECTION_ATTEMPTED CONNECTION_FAILED TRADE_DETECTION TRADE_UPDATE USER_REGISTERED USER_DELETED"
ASKS = by_word((frozenset({Ask.SYNC}), _SYNC), (frozenset[Ask](), _NOTHING))
"""What each kind of hook asks for."""
