"""Reads the fields of a Plaid request's body."""

from __future__ import annotations

from datetime import date
from typing import Any

from worker.integrations.plaid.stand_in.errors import PlaidError
from worker.sandbox.core import Login
from worker.sandbox.ledger import Account


def text_of(body: dict[str, Any], name: str) -> str:
    """A text field; empty if it is missing or not a text."""
    value = body.get(name)
    return value if isinstance(value, str) else ""


def options_of(body: dict[str, Any]) -> dict[str, Any]:
    """The `options` object; empty if it is missing or not an object."""
    value = body.get("options")
    return value if isinstance(value, dict) else {}


def whole_of(body: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    """A whole number from `low` to `high`. Raises PlaidError if it is not."""
    value = body.get(name, default)
    if not isinstance(value, int) or not low <= value <= high:
        raise PlaidError("INVALID_FIELD", f"{name} must be from {low} to {high}")
    return value


def day_of(body: dict[str, Any], name: str) -> date:
    """A required date. Raises PlaidError when it is missing or malformed."""
    text = text_of(body, name)
    if not text:
        raise PlaidError("MISSING_FIELDS", name)
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise PlaidError("INVALID_FIELD", f"{name} must be YYYY-MM-DD") from error


def chosen_accounts(login: Login, body: dict[str, Any]) -> list[Account]:
    """The accounts in `options.account_ids`, or all if it is missing. Raises PlaidError for an unknown account."""
    wanted = options_of(body).get("account_ids")
    accounts = login.ledger.open_accounts()
    if wanted is None:
        return accounts
    known = {account.id for account in accounts}
    if not isinstance(wanted, list) or not all(isinstance(name, str) and name in known for name in wanted):
        raise PlaidError("INVALID_ACCOUNT_ID")
    return [account for account in accounts if account.id in wanted]
