"""Tables, one file for each subject, and the inputs that create their rows.

A table is made when it is first asked for: SQLAlchemy takes 5 ms for each of them, and no command needs all. A file
imports the files of the tables that its own refer to.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from worker.models.access import ApiKey
    from worker.models.account import Account, Balance, BalanceDay, BookDrift, Holding, HoldingDay, Security
    from worker.models.base import Base, new_id
    from worker.models.feed import ChangeLog, ChangeOrigin, ChangeRead
    from worker.models.hooks import HookDelivery, LoginCheck
    from worker.models.identity import AccountChange, AccountSource, TransactionKey
    from worker.models.liability import Liability
    from worker.models.link_session import LinkSession
    from worker.models.operations import (
        Heartbeat,
        IntegrationState,
        Notice,
        ProviderAuditLog,
        QuotaDay,
        TaskDelivery,
        TaskFailure,
    )
    from worker.models.outbox import Delivery, Subscription
    from worker.models.provider import DueTime, Provider, ProviderCreate
    from worker.models.simplefin import SimplefinAccess
    from worker.models.sync import Quarantine, SyncCursor, SyncRun, SyncUndo, UnsettledRun, sync_seen
    from worker.models.token import LinkState, ProviderToken, Revocation, Spool, SpooledAnswer, TokenRefresh
    from worker.models.transaction import Transaction
    from worker.models.user import User

_CONTENTS = {
    "access": "ApiKey",
    "account": "Account Balance BalanceDay BookDrift Holding HoldingDay Security",
    "base": "Base new_id",
    "feed": "ChangeLog ChangeOrigin ChangeRead",
    "hooks": "HookDelivery LoginCheck",
    "identity": "AccountChange AccountSource TransactionKey",
    "liability": "Liability",
    "link_session": "LinkSession",
    "operations": "Heartbeat IntegrationState Notice ProviderAuditLog QuotaDay TaskDelivery TaskFailure",
    "outbox": "Delivery Subscription",
    "provider": "DueTime Provider ProviderCreate",
    "simplefin": "SimplefinAccess",
    "sync": "Quarantine SyncCursor SyncRun SyncUndo UnsettledRun sync_seen",
    "token": "LinkState ProviderToken Revocation Spool SpooledAnswer TokenRefresh",
    "transaction": "Transaction",
    "user": "User",
}
_FILES = {name: file for file, names in _CONTENTS.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Imports the file that has this name."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
    return found


def every_table() -> MetaData:
    """All tables, for migrations, roles and tests."""
    for file in _CONTENTS:
        import_module(f"{__name__}.{file}")
    from worker.models.base import Base

    return Base.metadata


__all__ = [
    "Account",
    "AccountChange",
    "AccountSource",
    "ApiKey",
    "Balance",
    "BalanceDay",
    "Base",
    "BookDrift",
    "ChangeLog",
    "ChangeOrigin",
    "ChangeRead",
    "Delivery",
    "DueTime",
    "Heartbeat",
    "Holding",
    "HoldingDay",
    "HookDelivery",
    "IntegrationState",
    "Liability",
    "LinkSession",
    "LinkState",
    "LoginCheck",
    "Notice",
    "Provider",
    "ProviderAuditLog",
    "ProviderCreate",
    "ProviderToken",
    "Quarantine",
    "QuotaDay",
    "Revocation",
    "Security",
    "SimplefinAccess",
    "Spool",
    "SpooledAnswer",
    "Subscription",
    "SyncCursor",
    "SyncRun",
    "SyncUndo",
    "TaskDelivery",
    "TaskFailure",
    "TokenRefresh",
    "Transaction",
    "TransactionKey",
    "UnsettledRun",
    "User",
    "every_table",
    "new_id",
    "sync_seen",
]
