"""Tables that map SnapTrade's words and errors to ours."""

from __future__ import annotations

from worker.errors import AccessExpired, AccountGone, Forbidden, NotReady, RateLimited, ReauthRequired, Scope, Transient
from worker.integrations.kit.hooks import Ask
from worker.integrations.kit.taxonomy import Rule
from worker.integrations.kit.throttling import Limit
from worker.models.vocabulary import AccountStatus, AccountType, SecurityType, TransactionType

DISABLED = "connection_disabled"
RULES = (
    *(
        Rule(ReauthRequired, **told, reason=DISABLED, scope=Scope.ACCOUNT)
        for told in ({"code": "3003"}, {"status": 402})
    ),
    *(Rule(NotReady, **told, reason="being_populated") for told in ({"code": "3012"}, {"status": 425})),
    Rule(RateLimited, status=429, reason="throttled"),
    Rule(AccessExpired, status=401),
    Rule(Forbidden, status=403),
    Rule(AccountGone, status=404),
    Rule(Transient, code="3002", reason="brokerage_unavailable"),
)
LIMITS = (Limit("x-ratelimit-", Scope.APP), Limit("x-ratelimit-account-", Scope.ACCOUNT))

INVESTMENT = (AccountType.INVESTMENT, "brokerage")  # also of accounts of which SnapTrade knows no category
CATEGORIES = {"DEPOSIT": (AccountType.DEPOSITORY, "deposit"), "LOC": (AccountType.CREDIT, "line_of_credit")}
STATUSES = {
    **dict.fromkeys(("closed", "archived"), AccountStatus.CLOSED),
    "unavailable": AccountStatus.INACCESSIBLE,
}
SECURITY_TYPES = {  # by the kind of a position's instrument, or by the code of an activity's symbol
    **dict.fromkeys(("stock", "adr", "cs", "ps", "ad"), SecurityType.EQUITY),
    **dict.fromkeys(("etf", "et"), SecurityType.ETF),
    **dict.fromkeys(("mutualfund", "oef", "cef"), SecurityType.MUTUAL_FUND),
    "crypto": SecurityType.CRYPTO,
    "future": SecurityType.FUTURE,
    "option": SecurityType.OPTION,
    "cfd": SecurityType.DERIVATIVE,
    "bnd": SecurityType.FIXED_INCOME,
}

TYPES: dict[str, tuple[TransactionType, str | None]] = {
    "BUY": (TransactionType.TRADE, "buy"),
    "SELL": (TransactionType.TRADE, "sell"),
    "OPTIONEXPIRATION": (TransactionType.TRADE, "option_expiration"),
    "OPTIONASSIGNMENT": (TransactionType.TRADE, "option_assignment"),
    "OPTIONEXERCISE": (TransactionType.TRADE, "option_exercise"),
    **{
        word: (TransactionType.INCOME, word.lower())
        for word in ("DIVIDEND", "SUBSTITUTE_DIVIDEND", "INTEREST", "REBATE")
    },
    "RETURN_OF_CAPITAL": (TransactionType.INCOME, "return_of_capital"),
    "REI": (TransactionType.REINVESTMENT, "dividend_reinvest"),
    "CONTRIBUTION": (TransactionType.TRANSFER, "deposit"),
    "WITHDRAWAL": (TransactionType.TRANSFER, "withdrawal"),
    "TRANSFER": (TransactionType.TRANSFER, None),
    "EXTERNAL_ASSET_TRANSFER_IN": (TransactionType.TRANSFER, "security_in"),
    "EXTERNAL_ASSET_TRANSFER_OUT": (TransactionType.TRANSFER, "security_out"),
    **dict.fromkeys((f"INTERNAL_CASH_TRANSFER_{way}" for way in ("IN", "OUT")), (TransactionType.TRANSFER, "internal")),
    "FEE": (TransactionType.FEE, None),
    "TAX": (TransactionType.TAX, None),
    **{word: (TransactionType.CORPORATE_ACTION, word.lower()) for word in ("STOCK_DIVIDEND", "SPLIT", "REVERSE_SPLIT")},
    "SPINOFF": (TransactionType.CORPORATE_ACTION, "spinoff"),
    "STOCK_MERGER": (TransactionType.CORPORATE_ACTION, "merger"),
    "ADJUSTMENT": (TransactionType.ADJUSTMENT, None),
}
NO_UNITS = frozenset({TransactionType.INCOME, TransactionType.FEE, TransactionType.TAX})
"""Here, `units` are those for which money was paid; none of them moved."""
MAYBE_NO_MONEY = frozenset({TransactionType.TRANSFER, TransactionType.CORPORATE_ACTION, TransactionType.ADJUSTMENT})
"""These, and options that end, may move units without money; then the amount is missing."""

_SYNC = (
    *(f"CONNECTION_{word}" for word in ("ADDED", "BROKEN", "DELETED", "FIXED", "UPDATED")),
    *(
        f"ACCOUNT_{word}"
        for word in ("HOLDINGS_UPDATED", "REMOVED", "TRANSACTIONS_INITIAL_UPDATE", "TRANSACTIONS_UPDATED")
    ),
    "NEW_ACCOUNT_AVAILABLE",
)
_NOTHING = (
    "CONNECTION_ATTEMPTED",
    "CONNECTION_FAILED",
    "TRADE_DETECTION",
    "TRADE_UPDATE",
    "USER_REGISTERED",
    "USER_DELETED",
)
ASKS = {**dict.fromkeys(_SYNC, frozenset({Ask.SYNC})), **dict.fromkeys(_NOTHING, frozenset[Ask]())}
"""What each kind of hook asks for."""
