"""Plaid's published errors: the code decides, not the HTTP status."""

from __future__ import annotations

from typing import Any

from worker.sandbox.wire import Answer, json_answer

# error_code -> (HTTP status, error_type, message)
_ERRORS = {
    "ITEM_LOGIN_REQUIRED": (400, "ITEM_ERROR", "the login details of this item have changed"),
    "ACCESS_NOT_GRANTED": (400, "ITEM_ERROR", "the user did not grant access to this product"),
    "ITEM_LOCKED": (400, "ITEM_ERROR", "this account is locked"),
    "ITEM_NOT_FOUND": (400, "ITEM_ERROR", "the Item you requested cannot be found"),
    "PRODUCT_NOT_READY": (400, "ITEM_ERROR", "the requested product is not yet ready"),
    "PRODUCTS_NOT_SUPPORTED": (400, "ITEM_ERROR", "the products are not supported by this institution"),
    "NO_ACCOUNTS": (400, "ITEM_ERROR", "no valid accounts were found for this item"),
    "NO_INVESTMENT_ACCOUNTS": (400, "ITEM_ERROR", "no investment accounts were found for this item"),
    "NO_LIABILITY_ACCOUNTS": (400, "ITEM_ERROR", "no valid liability accounts were found for this item"),
    "ADDITIONAL_CONSENT_REQUIRED": (400, "INVALID_INPUT", "client does not have user consent to access the product"),
    "INVALID_PRODUCT": (400, "INVALID_INPUT", "client is not authorized to access the following products"),
    "INVALID_ACCESS_TOKEN": (400, "INVALID_INPUT", "could not find matching access token"),
    "INVALID_PUBLIC_TOKEN": (400, "INVALID_INPUT", "could not find matching public token"),
    "INVALID_LINK_TOKEN": (400, "INVALID_INPUT", "could not find matching link token"),
    "INVALID_API_KEYS": (400, "INVALID_INPUT", "invalid client_id or secret provided"),
    "INVALID_ACCOUNT_ID": (400, "INVALID_INPUT", "one of the account_ids is invalid"),
    "INVALID_WEBHOOK_VERIFICATION_KEY_ID": (400, "INVALID_INPUT", "invalid key_id provided"),
    "INVALID_INSTITUTION": (400, "INVALID_INPUT", "invalid institution_id provided"),
    "INVALID_FIELD": (400, "INVALID_REQUEST", "a field is invalid"),
    "MISSING_FIELDS": (400, "INVALID_REQUEST", "the following required fields are missing"),
    "NOT_FOUND": (404, "INVALID_REQUEST", "the requested endpoint does not exist"),
    "INSTITUTION_DOWN": (400, "INSTITUTION_ERROR", "this institution is not currently responding"),
    "INSTITUTION_NOT_RESPONDING": (400, "INSTITUTION_ERROR", "this institution is not currently responding"),
    "INSTITUTION_NO_LONGER_SUPPORTED": (400, "INSTITUTION_ERROR", "this institution is no longer supported"),
    "TRANSACTIONS_SYNC_MUTATION_DURING_PAGINATION": (
        400,
        "TRANSACTIONS_ERROR",
        "Underlying transaction data changed since last page was fetched. Please restart pagination.",
    ),
    "RATE_LIMIT": (429, "RATE_LIMIT_EXCEEDED", "rate limit exceeded for attempts to access this item"),
    "ACCOUNTS_LIMIT": (429, "RATE_LIMIT_EXCEEDED", "rate limit exceeded for attempts to access this item"),
    "ACCOUNTS_BALANCE_GET_LIMIT": (429, "RATE_LIMIT_EXCEEDED", "rate limit exceeded for attempts to access this item"),
    "TRANSACTIONS_SYNC_LIMIT": (429, "RATE_LIMIT_EXCEEDED", "rate limit exceeded for attempts to access this item"),
    "LIABILITIES_LIMIT": (429, "RATE_LIMIT_EXCEEDED", "rate limit exceeded for attempts to access this item"),
    "INTERNAL_SERVER_ERROR": (500, "API_ERROR", "an unexpected error occurred"),
    "PLANNED_MAINTENANCE": (503, "API_ERROR", "the API is down for planned maintenance"),
}
LIMITS = {
    "/accounts/get": "ACCOUNTS_LIMIT",
    "/accounts/balance/get": "ACCOUNTS_BALANCE_GET_LIMIT",
    "/transactions/sync": "TRANSACTIONS_SYNC_LIMIT",
    "/liabilities/get": "LIABILITIES_LIMIT",
}


class PlaidError(Exception):
    """Ends a request with a published error code.

    Raises:
        KeyError: the code is not one of the published codes in `_ERRORS`.
    """

    def __init__(self, code: str, detail: str = "", reason: str | None = None) -> None:
        super().__init__(code)
        self._code, self._detail, self._reason = code, detail, reason
        self._status, self._type, self._message = _ERRORS[code]

    def answer(self, request_id: str) -> Answer:
        """The answer with this error."""
        body: dict[str, Any] = {
            "display_message": None,
            "documentation_url": "https://plaid.com/docs/errors/",
            "error_code": self._code,
            "error_code_reason": self._reason,
            "error_message": f"{self._message}: {self._detail}" if self._detail else self._message,
            "error_type": self._type,
            "request_id": request_id,
            "suggested_action": None,
            "causes": [],
        }
        return json_answer(self._status, body)
