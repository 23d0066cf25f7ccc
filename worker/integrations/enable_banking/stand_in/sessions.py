"""Sessions as Enable Banking has them: one consent of one person at one bank."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from worker.sandbox.core import Login
from worker.sandbox.ledger import Account


@dataclass
class Session:
    """One consent at one bank; each of its accounts has an id that is valid only here."""

    id: str
    login: Login
    bank: str
    country: str
    psu_type: str
    created: datetime
    valid_until: datetime
    uids: dict[str, str] = field(default_factory=dict)
    status: str = "AUTHORIZED"


def index(login: Login, account: Account) -> int:
    """The number of an account within its login."""
    return list(login.ledger.accounts).index(account.id)


def hashes(login: Login, account: Account) -> dict[str, Any]:
    """By what an account is recognised in every session; the main one is another if it is `renumbered`."""
    others = f"other.{account.id}"
    main, more = (others, account.id) if login.broken == "renumbered" else (account.id, others)
    return {"identification_hash": main, "identification_hashes": [main, more]}


def about(session: Session) -> dict[str, Any]:
    """What every answer about a session says."""
    return {
        "aspsp": {"name": session.bank, "country": session.country},
        "psu_type": session.psu_type,
        "access": {"valid_until": session.valid_until.isoformat(), "balances": True, "transactions": True},
    }


def balance(kind: str, name: str, account: Account) -> dict[str, Any]:
    """An account's balance."""
    amount = {"currency": account.currency, "amount": str(account.current)}
    return {"name": name, "balance_amount": amount, "balance_type": kind}
